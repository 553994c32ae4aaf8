"""The files of an image, read without starting it, and the steps it was built in."""

from __future__ import annotations

import io
import posixpath
import subprocess
import tarfile
from dataclasses import dataclass, field
from types import TracebackType

from local_test.entry import MOST_LINKS
from local_test.runners import Containers
from local_test.verdicts import Unjudged


@dataclass
class Contents:
    """A container that is made, read from and removed, and never started."""

    containers: Containers
    name: str = ""
    _seen: dict[str, list[tarfile.TarInfo]] = field(default_factory=dict)

    def __enter__(self) -> Contents:
        """Make the container; raises Unjudged where the engine does not."""
        done = self._engine("create", *self.containers.options, self.containers.image, "true")
        if done.returncode:
            raise Unjudged(f"the engine can't make a container to look into: {done.stderr.decode('utf-8', 'replace').strip()}")
        self.name = done.stdout.decode().split()[-1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove it."""
        self._engine("rm", "--force", "--volumes", self.name)

    def below(self, folder: str) -> list[tarfile.TarInfo]:
        """Return what is in a folder at any depth, named from the root; nothing where there is no such folder."""
        if folder not in self._seen:
            parent = folder.rpartition("/")[0]
            with self._open(folder) as archive:
                members = archive.getmembers()
            for member in members:
                member.name = f"{parent}/{member.name}"
            self._seen[folder] = members
        return self._seen[folder]

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, links followed as the container would; None where there is no such file."""
        for _ in range(MOST_LINKS):
            with self._open(path) as archive:
                member = archive.next()
                if member is None or not member.issym():
                    file = archive.extractfile(member) if member and member.isfile() else None
                    return file.read() if file else None
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
        return None

    def steps(self) -> list[str]:
        """Return the commands that the image was built with, as it tells them to whoever pulls it."""
        done = self._engine("history", "--no-trunc", "--format", "{{.CreatedBy}}", self.containers.image)
        return done.stdout.decode("utf-8", "replace").splitlines()

    def _open(self, path: str) -> tarfile.TarFile:
        """Return an archive of what is at a path; an empty one where nothing is."""
        done = self._engine("cp", f"{self.name}:{path}", "-")
        if done.returncode or not done.stdout:
            return tarfile.open(fileobj=io.BytesIO(bytes(2 * tarfile.BLOCKSIZE)))
        return tarfile.open(fileobj=io.BytesIO(done.stdout))

    def _engine(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.containers.docker, *words], capture_output=True, check=False)
