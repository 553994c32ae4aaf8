"""Images with one fault each, made of a container that is otherwise sound: what tests/subjects/faults.txt lists.

A fault is a layer and an edit of the image's configuration. They are put beside the sound image in one archive and loaded
together, which takes a tenth of the time of as many builds.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOUND = Path(__file__).resolve().parent / "subjects"
SOUND_IMAGE = "berth-sound:test"
PLACES = {"model.py": "/usr/local/lib/sound/model.py", "train.py": "/usr/local/bin/train", "serve.py": "/usr/local/bin/serve"}


@dataclass
class Fault:
    """A fault, as a section of faults.txt tells it."""

    name: str
    breaks: tuple[str, ...]
    """The names of the rules that find it."""
    is_long: bool = False
    """Whether only `make soak` judges it.

    Others of its kind do for `make test`; or its quick twin does, a fault of the same rule: of a program as a process in
    test_launch.py and test_training_rules.py, or of one that is mounted into a container in test_isolation.py.
    """
    tag: str = "test"
    hunks: list[tuple[str, list[str]]] = field(default_factory=list)
    """What is edited and a hunk of its diff.

    It is one of the programs, a new file of the image, `image` for the configuration, or, with programs as lines,
    `removed`, `unexecutable` or `crlf`.
    """

    @property
    def image(self) -> str:
        """The image's name."""
        return f"berth-fault-{self.name}:{self.tag}"

    def added(self, name: str) -> list[str]:
        """Return the lines of one kind of hunk."""
        return [line[1:] for hunk, lines in self.hunks if hunk == name for line in lines]

    def files(self) -> dict[str, str]:
        """Return the files that are other than the sound ones, by their places."""
        texts: dict[str, str] = {}
        for name, lines in self.hunks:
            place = PLACES.get(name, name)
            old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kept) for kept in (" -", " +"))
            if name in PLACES:
                texts[place] = self._edited(texts.get(place) or (SOUND / name).read_text(), old, new)
            elif name.startswith("/"):
                texts[place] = new
        for name in self.added("crlf"):
            texts[PLACES[name]] = (SOUND / name).read_text().replace("\n", "\r\n")
        for name in self.added("unexecutable"):
            texts[PLACES[name]] = (SOUND / name).read_text()
        return texts

    def _edited(self, text: str, old: str, new: str) -> str:
        if text.count(old) != 1:
            raise ValueError(f"{self.name}: the program has {text.count(old)} times what the fault replaces:\n{old}")
        return text.replace(old, new)

    def layer(self) -> bytes:
        """Return the fault as a layer of an image, empty where it is of the configuration alone."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for place, text in self.files().items():
                stays = all(PLACES[name] != place for name in self.added("unexecutable"))
                _add(archive, place.lstrip("/"), text.encode(), 0o755 if stays else 0o644)
            for name in self.added("removed"):
                folder, _, file = PLACES[name].rpartition("/")
                _add(archive, f"{folder}/.wh.{file}".lstrip("/"), b"", 0o644)  # how a layer tells that a file is gone
        return packed.getvalue() if self.files() or self.added("removed") else b""


def faults(file: str = "faults.txt") -> list[Fault]:
    """Return all faults: `== name: rules` or `== name (long): rules`, then `@ what` and a hunk, as often as need be."""
    found: list[Fault] = []
    for line in (SOUND / file).read_text().splitlines():
        if line.startswith("== "):
            name, _, rules = line[3:].partition(": ")
            found.append(Fault(name.removesuffix(" (long)"), tuple(rules.split()), name.endswith(" (long)")))
        elif line.startswith("@ "):
            found[-1].hunks.append((line[2:], []))
        elif line and found:
            found[-1].hunks[-1][1].append(line)
    return found


def build_sound(docker: str) -> None:
    """Build the container without a fault."""
    _run([docker, "build", "--tag", SOUND_IMAGE, SOUND])


def load(docker: str, wanted: Sequence[Fault], folder: Path) -> None:
    """Make the images of faults."""
    packed = folder / "images.tar"
    _run([docker, "save", "--output", packed, SOUND_IMAGE])
    with tarfile.open(packed) as archive:
        sound = _document(archive, "manifest.json")[0]
        config = _document(archive, sound["Config"])
    with tarfile.open(packed, "a") as archive:  # what stands last in an archive is what counts
        manifest = [_image(archive, fault, sound["Layers"], config) for fault in wanted]
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)
    _run([docker, "load", "--input", packed])
    packed.unlink()


def remove(docker: str, wanted: Sequence[Fault]) -> None:
    """Remove the images of faults."""
    subprocess.run([docker, "image", "rm", "--force", *(fault.image for fault in wanted)], capture_output=True, check=False)


def _image(archive: tarfile.TarFile, fault: Fault, layers: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """Add a fault's layer and configuration, and return what the archive's manifest says of its image."""
    ours, layer = deepcopy(config), fault.layer()
    if layer:
        digest = hashlib.sha256(layer).hexdigest()
        ours["rootfs"]["diff_ids"].append(f"sha256:{digest}")
        layers = [*layers, f"{digest}/layer.tar"]
        _add(archive, layers[-1], layer, 0o644)
    for edit in fault.added("image"):
        _merge(ours, json.loads(edit))
    ours["history"].append({"created_by": fault.name, "empty_layer": not layer})
    text = json.dumps(ours).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    _add(archive, name, text, 0o644)
    return {"Config": name, "RepoTags": [fault.image], "Layers": layers}


def _merge(into: dict[str, Any], edit: dict[str, Any]) -> None:
    """Put an edit's values into a document: objects are merged, lists lengthened unless they are commands."""
    for name, value in edit.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = [*into["Env"], *value] if name == "Env" else value


def _document(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None
    return json.load(file)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(content), mode
    archive.addfile(about, io.BytesIO(content))


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout.strip()
