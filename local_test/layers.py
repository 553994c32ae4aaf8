"""`python -m local_test.layers A B`: whether two images are the same, and which files of which layer differ where they are not.

Only what an image's digest is made of is compared: its layers, by their uncompressed digests, and its configuration.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MOST_TOLD = 20
"""Files of a layer that are named."""


class Entry(NamedTuple):
    """A file of a layer, as far as it counts."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    time_s: int
    link: str
    attributes: tuple[tuple[str, str], ...]
    digest: str


def main() -> int:
    """Print what differs; 0 where the images are the same."""
    parser = argparse.ArgumentParser(prog="python -m local_test.layers", description=__doc__)
    parser.add_argument("images", nargs=2, metavar="IMAGE")
    parser.add_argument("--engine", default="docker", help="program that saves images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        saved = [save(arguments.engine, image, Path(folder, str(number))) for number, image in enumerate(arguments.images)]
        told = list(differences(*saved))
    print("\n".join(told) or "The images are the same.")
    return 1 if told else 0


def save(engine: str, image: str, folder: Path) -> Path:
    """Return a folder with an image's layers and configuration, as the engine saves them."""
    folder.mkdir()
    archive = folder / "image.tar"
    subprocess.run([engine, "save", "--output", archive, image], check=True)
    with tarfile.open(archive) as saved:
        saved.extractall(folder, filter="data")
    archive.unlink()
    return folder


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between two saved images, in words."""
    configurations = [_configuration(folder) for folder in (one, other)]
    layers = [[folder / name for name in _manifest(folder)["Layers"]] for folder in (one, other)]
    digests = [configuration["rootfs"]["diff_ids"] for configuration in configurations]
    if len(digests[0]) != len(digests[1]):
        yield f"{len(digests[0])} layers and {len(digests[1])} layers"
    for number, (first, second) in enumerate(zip(*digests, strict=False)):
        if first != second:
            yield f"layer {number}: {first} and {second}"
            yield from _files(layers[0][number], layers[1][number])
    yield from _settings(*configurations)


def _manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())[0]


def _configuration(folder: Path) -> Any:
    return json.loads((folder / _manifest(folder)["Config"]).read_text())


def _files(one: Path, other: Path) -> Iterator[str]:
    """Yield the files by which two layers differ."""
    first, second = _entries(one), _entries(other)
    told = [(name, _fields(first.get(name), second.get(name))) for name in sorted({**first, **second})]
    found = [f"  {name}: {fields}" for name, fields in told if fields]
    yield from found[:MOST_TOLD]
    if len(found) > MOST_TOLD:
        yield f"  and {len(found) - MOST_TOLD} more files"
    if not found:
        yield (
            "  the same files in another order" if list(first) != list(second) else "  the same files, in archives that differ"
        )


def _fields(one: Entry | None, other: Entry | None) -> str:
    """Say by what two files differ; nothing where they are the same."""
    if one is None or other is None:
        return "only in the second" if one is None else "only in the first"
    return ", ".join(
        f"{name} {first!r} and {second!r}" if name != "digest" else "content"
        for name, first, second in zip(Entry._fields, one, other, strict=True)
        if first != second
    )


def _entries(layer: Path) -> dict[str, Entry]:
    found = {}
    with tarfile.open(layer) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest() if content else ""
            attributes = tuple(sorted((name, value) for name, value in member.pax_headers.items() if name.startswith("SCHILY")))
            owner = (member.uid, member.gid)
            found[member.name] = Entry(member.type, member.mode, owner, int(member.mtime), member.linkname, attributes, digest)
    return found


def _settings(one: Any, other: Any) -> Iterator[str]:
    """Yield the parts of two configurations that differ, but for the layers."""
    for name in sorted({**one, **other}):
        first, second = one.get(name), other.get(name)
        if name == "history":
            first, second = ([step.get("created") for step in steps or ()] for steps in (first, second))
            name = "the times of the history's steps"
        if first != second and name != "rootfs":
            yield f"configuration: {name} is {_short(first)} and {_short(second)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:100]}.."


if __name__ == "__main__":
    sys.exit(main())
