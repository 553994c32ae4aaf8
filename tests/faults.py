"""Images with one fault each, made of a container that is otherwise sound: what tests/faults.txt lists."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SOUND = TESTS / "subjects"
SOUND_IMAGE = "berth-sound:test"
PLACES = {"model.py": "/usr/local/lib/sound/model.py", "train.py": "/usr/local/bin/train", "serve.py": "/usr/local/bin/serve"}


@dataclass
class Fault:
    """A fault, as a section of faults.txt tells it."""

    name: str
    breaks: tuple[str, ...]
    """The rules that find it."""
    hunks: list[tuple[str, list[str]]] = field(default_factory=list)
    """A file and lines of a diff: of one of the programs, of the Dockerfile, or what the image says of its platform."""

    @property
    def image(self) -> str:
        """The image's tag."""
        return f"berth-fault-{self.name}:test"

    def files(self) -> dict[str, str]:
        """Return the programs that are other than the sound ones."""
        texts: dict[str, str] = {}
        for name, lines in self.hunks:
            if name in PLACES:
                text = texts.get(name) or (SOUND / name).read_text()
                old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kept) for kept in (" -", " +"))
                if text.count(old) != 1:
                    raise ValueError(f"{self.name}: {name} has {text.count(old)} times what the fault replaces:\n{old}")
                texts[name] = text.replace(old, new)
        return texts

    def added(self, name: str) -> list[str]:
        """Return the lines that are no program's."""
        return [line[1:] for hunk, lines in self.hunks if hunk == name for line in lines]


def faults() -> list[Fault]:
    """Return all faults: `== name: rules`, then `@ file` and a hunk, as often as need be."""
    found: list[Fault] = []
    for line in (TESTS / "faults.txt").read_text().splitlines():
        if line.startswith("== "):
            name, _, rules = line[3:].partition(": ")
            found.append(Fault(name, tuple(rules.split())))
        elif line.startswith("@ "):
            found[-1].hunks.append((line[2:], []))
        elif line and found:
            found[-1].hunks[-1][1].append(line)
    return found


def build_sound(docker: str) -> None:
    """Build the container without a fault."""
    _run([docker, "build", "--quiet", "--tag", SOUND_IMAGE, SOUND])


def build(docker: str, fault: Fault, folder: Path) -> None:
    """Build the image of a fault: a small layer on the sound one."""
    if fault.added("platform"):
        _import(docker, fault)
        return
    folder.mkdir(parents=True)
    lines = [f"FROM {SOUND_IMAGE}", *fault.added("Dockerfile")]
    for name, text in fault.files().items():
        shutil.copymode(SOUND / name, _written(folder / name, text))
        lines.append(f"COPY {name} {PLACES[name]}")
    _written(folder / "Dockerfile", "\n".join(lines) + "\n")
    _run([docker, "build", "--quiet", "--tag", fault.image, folder])


def remove(docker: str, fault: Fault) -> None:
    """Remove the image of a fault."""
    subprocess.run([docker, "image", "rm", fault.image], capture_output=True, check=False)


def _import(docker: str, fault: Fault) -> None:
    """Make an image that says it is of another platform."""
    changes = [f"--change={line}" for line in _settings()]
    container = _run([docker, "create", SOUND_IMAGE])
    try:
        with subprocess.Popen([docker, "export", container], stdout=subprocess.PIPE) as export:
            given = {"stdin": export.stdout, "capture_output": True, "check": True}
            subprocess.run([docker, "import", "--platform", *fault.added("platform"), *changes, "-", fault.image], **given)
    finally:
        _run([docker, "rm", container])


def _settings() -> Iterator[str]:
    """Yield what the sound Dockerfile sets, a line each."""
    text = (SOUND / "Dockerfile").read_text().replace("\\\n", " ")
    return (line for line in text.splitlines() if line.startswith(("LABEL", "ENV", "CMD")))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _run(command: list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout.strip()
