"""The folder that an export writes into: whose files may be replaced, one export at a time, and all of it or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from contract.edge import COMPILED, COREML, COREML_MODEL, EDGE, FLOAT, INT8
from contract.errors import BadArtifact
from contract.files import TEMPORARY, write_text
from contract.manifest import MANIFEST, ONNX

OWN = (ONNX, INT8, FLOAT, COREML, COREML_MODEL, COMPILED)
UNFINISHED = "unfinished"
"""The schema of an edge.json that stands while files take their places: no reader takes it, and it says which are ours."""


def check_output(out: Path) -> None:
    """Raise BadArtifact where a folder holds a trained model, or files of our names that no edge.json there lists."""
    if (out / MANIFEST).exists():
        raise BadArtifact(
            f"{out} holds {MANIFEST}: a trained model, whose {ONNX} an export would replace. Name another folder: --out DIR.",
            file=str(out),
        )
    listed = _listed(out)
    # The compiler's file is never written here, and never served unless edge.json lists it.
    known = {COMPILED} if listed is None else {COMPILED, EDGE, *listed}
    foreign = [name for name in (*OWN, EDGE) if name not in known and os.path.lexists(out / name)]
    if foreign:
        raise BadArtifact(
            f"{out} holds {', '.join(foreign)}, which no export wrote: no {EDGE} there lists it. Move it away, or name another "
            "folder: --out DIR.",
            file=foreign[0],
        )


@contextmanager
def output(out: Path) -> Iterator[Path]:
    """Give a folder within `out` to write into, gone afterwards; what an earlier export that was killed left there goes too.

    Raises:
        BadArtifact: nothing can be written there, no room is left, another export is writing there, or see `check_output`.
    """
    had = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            check_output(out)
            for left in out.glob(f".export.*{TEMPORARY}"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=".export.", suffix=TEMPORARY, dir=out, ignore_cleanup_errors=True
            ) as folder:
                yield Path(folder)
    except OSError as error:  # shutil.Error, of a folder's copy, is one too, with a list for a reason
        why = error.strerror or str(error)
        raise BadArtifact(
            f"Nothing can be written to {out} ({why}). Is there room, and may you write? Or name another folder: --out DIR.",
            file=str(out),
        ) from error
    finally:
        if not had:
            with suppress(OSError):  # there is something in it
                out.rmdir()


def place(folder: Path, out: Path, names: Sequence[str]) -> None:
    """Put finished files over an earlier export's, the manifest last; others' files stay.

    Whenever it is killed, the edge.json that then stands says which files are ours.
    """
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # coremltools leaves a folder to its owner alone
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())
    earlier = _listed(out)
    ours = [*(earlier or ()), *names]
    write_text(out / EDGE, json.dumps({"schema": UNFINISHED, "artifacts": {name: {} for name in ours}}) + "\n")
    for name in ours if earlier is None else [*ours, COMPILED]:
        _remove(out / name)
    for name in [*names, EDGE]:
        (folder / name).rename(out / name)


def _listed(out: Path) -> list[str] | None:
    """Return the names of ours that an earlier export's edge.json lists; None where there is no such file."""
    try:
        document = json.loads((out / EDGE).read_bytes())
        return [name for name in OWN if name in document["artifacts"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder for one export; the kernel lets go of it when the process ends, however it does."""
    held = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(held, out)
        yield
    finally:
        os.close(held)


def _lock(held: int, out: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BadArtifact(
            f"Another export is writing to {out}. Wait for its end, or name another folder: --out DIR.", file=str(out)
        ) from error
