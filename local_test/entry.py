"""The file that the engine starts for a word such as `serve`, read without starting it."""

from __future__ import annotations

import contextlib
import io
import posixpath
import re
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local_test.runners import Containers

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEAD_BYTES = 4_096
MACHINES = {0x3E: "amd64", 0xB7: "arm64", 0x28: "arm", 0x03: "386", 0xF3: "riscv64", 0x15: "ppc64le", 0x16: "s390x"}
"""What the header of an ELF program calls processors, and what images call them."""
MOST_LINKS = 10
ABSENT = re.compile(
    "could not find the file|could not be found|no such container:path|no such file|not a directory", re.IGNORECASE
)
"""What engines say of a path that is not in a container."""


@dataclass(frozen=True)
class Entry:
    """The file that a container begins with."""

    asked: str
    """As ENTRYPOINT or the word names it."""
    path: str = ""
    """Where it is; empty where it is nowhere on PATH."""
    mode: int = 0
    """Its permissions."""
    head: bytes = b""
    """How it begins."""
    interpreter_missing: bool = False
    """Whether the program that its first line names is not in the image."""

    @property
    def is_program(self) -> bool:
        """Say whether it is machine code."""
        return self.head.startswith(b"\x7fELF")

    @property
    def machine(self) -> str:
        """The processor that it is made for, as images name it; empty for a script."""
        if not self.is_program or len(self.head) < 20:
            return ""
        number = int.from_bytes(self.head[18:20], "big" if self.head[5] == 2 else "little")
        return MACHINES.get(number, f"machine {number:#x}")

    @property
    def interpreter(self) -> list[str]:
        """The words of the first line after `#!`, such as `/usr/bin/env python3`; none without it."""
        line = self.head.partition(b"\n")[0]
        return line[2:].decode("utf-8", "replace").split() if line.startswith(b"#!") else []

    @property
    def has_carriage_returns(self) -> bool:
        """Say whether its first line ends as those of Windows do."""
        return not self.is_program and self.head.partition(b"\n")[0].endswith(b"\r")


def read_entry(containers: Containers, config: dict[str, Any], word: str, mounts: Sequence[str] = ()) -> Entry | None:
    """Return the file that `docker run IMAGE WORD` starts.

    Args:
        containers: the image and its engine.
        config: what the engine says of the image under `Config`.
        word: `train` or `serve`.
        mounts: of the container, `folder:place[:ro]`: one may hold the file.

    Returns:
        None where the engine does not let the image be looked into.
    """
    asked = [*(config.get("Entrypoint") or []), word][0]
    path = dict(entry.partition("=")[::2] for entry in config.get("Env") or []).get("PATH", PATH)
    with contextlib.suppress(_Unreadable), _made(containers, word, mounts) as name:
        if not name:
            return None
        look = _Look(containers.docker, name, config.get("WorkingDir") or "/", path.split(":"))
        found = look.find(asked)
        if found is None:
            return Entry(asked)
        entry = Entry(asked, *found)
        words = [posixpath.basename(part) if at == 0 else part for at, part in enumerate(entry.interpreter)]
        program = words[1:2] if words[:1] == ["env"] else entry.interpreter[:1]
        wanted = [part for part in [*entry.interpreter[:1], *program] if not part.startswith("-")]
        missing = any(look.find(part, follow=False) is None for part in wanted)
        return Entry(asked, *found, interpreter_missing=missing)
    return None


class _Unreadable(Exception):
    """The engine did not say what is at a path, nor that nothing is."""


@dataclass(frozen=True)
class _Look:
    """Looks for files in a container that was made and not started."""

    docker: str
    name: str
    folder: str
    path: list[str]

    def find(self, program: str, *, follow: bool = True) -> tuple[str, int, bytes] | None:
        """Return path, permissions and beginning of a program, found as a start finds it; of a link, unless it is followed."""
        places = [posixpath.join(self.folder, program)] if "/" in program else [f"{place}/{program}" for place in self.path]
        first: tuple[str, int, bytes] | None = None
        for place in places:
            file = self._read(place, follow)
            if file and file[0] & 0o111:
                return place, *file
            first = first or ((place, *file) if file else None)
        if first is None:
            self._check()
        return first

    def _check(self) -> None:
        """Raise _Unreadable where the container is gone: some clients say the same of that as of a path that is not in it."""
        if subprocess.run([self.docker, "inspect", self.name], capture_output=True, check=False).returncode:
            raise _Unreadable("the container that was made to look into the image was removed by somebody else")

    def _read(self, path: str, follow: bool) -> tuple[int, bytes] | None:
        for _ in range(MOST_LINKS):
            done = subprocess.run([self.docker, "cp", f"{self.name}:{path}", "-"], capture_output=True, check=False)
            if done.returncode:
                said = done.stderr.decode("utf-8", "replace").strip()
                if ABSENT.search(said):
                    return None
                raise _Unreadable(
                    f"the engine could not read {path} of the image: {said}"
                )  # which does not say that it is not there
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
                member = archive.next()
                if member is None or not (member.isfile() or member.issym()):
                    return None
                if member.isfile() or not follow:
                    file = archive.extractfile(member) if member.isfile() else None
                    return member.mode, file.read(HEAD_BYTES) if file else b""
                path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
        return None


@contextlib.contextmanager
def _made(containers: Containers, word: str, mounts: Sequence[str]) -> Iterator[str]:
    """Give the name of a container that is not started; empty where none could be made."""
    volumes = [part for mount in mounts for part in ("--volume", mount)]
    command = [containers.docker, "create", *volumes, *containers.options, containers.image, word]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    name = done.stdout.strip() if done.returncode == 0 else ""
    try:
        yield name
    finally:
        if name:
            subprocess.run([containers.docker, "rm", "--force", name], capture_output=True, check=False)
