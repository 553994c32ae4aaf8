"""Checkpoints, the platform's side (T-28, T-29): a folder that is copied out while a job runs, and back before it starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

UPLOADING, UPLOADED, IGNORED = ".sagemaker-uploading", ".sagemaker-uploaded", ".sagemaker-ignore"
EVERY_S = 0.02


@dataclass
class Uploader:
    """Mirrors a folder of checkpoints into a bucket, which is a folder too.

    What the platform does (T-29): every new or changed file is copied, a marker file beside it while that goes on and another
    one afterwards; what is removed in the folder is removed in the bucket; names that end in `.sagemaker-ignore` are skipped;
    what comes into the bucket later is not fetched. An object is there as a whole or not at all.
    """

    folder: Path
    bucket: Path
    copy_s: float = 0.0
    """How much longer a copy takes than it does here: as long the marker stands."""
    marks: bool = True
    """Whether marker files are left."""
    uploaded: list[str] = field(default_factory=list)
    """Names in the order in which they were copied, a changed file's again."""
    removed: list[str] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    """Files that this user may not read: a container's own user wrote them for nobody else."""
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)
    _lost: threading.Event = field(default_factory=threading.Event)

    def restore(self) -> None:
        """Bring everything from the bucket into the folder, with the marks of what is uploaded: before a start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.bucket.exists():
            shutil.copytree(self.bucket, self.folder, dirs_exist_ok=True)
        for name, state in self._files().items():
            self._known[name] = state
            if self.marks:
                _beside(self.folder / name, UPLOADED).touch()

    def sync(self) -> None:
        """Look once: copy what is new or has changed, remove what is gone."""
        found = self._files()
        for name, state in found.items():
            if self._known.get(name) != state and not self._lost.is_set():
                self._upload(name, state)
        for name in self._known.keys() - found.keys():
            (self.bucket / name).unlink(missing_ok=True)
            self.removed.append(name)
            del self._known[name]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Look again and again, and one last time at the end, unless the machine was lost."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(EVERY_S) and not self._lost.is_set():
                self.sync()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if not self._lost.is_set():
                self.sync()

    def lose(self) -> None:
        """Copy nothing from now on: the machine is gone, and what was under way with it."""
        self._lost.set()

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        paths = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        for path in sorted(paths):
            if not path.name.endswith((UPLOADING, UPLOADED, IGNORED)):
                with contextlib.suppress(OSError):  # it went meanwhile
                    state = path.stat()
                    found[path.relative_to(self.folder).as_posix()] = (state.st_mtime_ns, state.st_size)
        return found

    def _upload(self, name: str, state: tuple[int, int]) -> None:
        source, target = self.folder / name, self.bucket / name
        marker, part = _beside(source, UPLOADING), self.bucket.with_name(f"{self.bucket.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self.marks:
                marker.touch()
            shutil.copyfile(source, part)
            time.sleep(self.copy_s)
        except FileNotFoundError:  # it was removed meanwhile: the next look finds that
            marker.unlink(missing_ok=True)
            return
        except PermissionError:
            self.unreadable.add(name)
        if self._lost.is_set():
            return
        self._known[name] = state
        if part.exists():
            part.replace(target)
            self.uploaded.append(name)
        with contextlib.suppress(FileNotFoundError):  # there are no marks, or the folder went with all that is in it
            marker.replace(_beside(source, UPLOADED))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
