"""`GET /report`: the page that training left beside the model, read when it is asked for and only as the manifest knows it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from flask import Flask, Response

from contract.errors import DamagedModel, UnknownPath
from contract.manifest import Manifest

REPORT = "report/report.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""The report is one file, with its styles and drawings in line; it runs nothing and asks nobody."""


def add_report(pages: Flask, manifest: Manifest, folder: Path | None) -> None:
    """Let an application answer `/report`.

    Args:
        pages: the application; BerthError is answered by it.
        manifest: of the model.
        folder: where the model's files are; without it there is no report.
    """

    @pages.get("/report")
    def report() -> Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return Response(read_report(manifest, folder), mimetype="text/html", headers=headers)


def read_report(manifest: Manifest, folder: Path | None) -> bytes:
    """Return the report's bytes: those whose sha256 the manifest names, or none.

    Raises:
        UnknownPath: the model has no report.
        DamagedModel: its file has changed since the model was loaded.
    """
    entry = manifest.files.get(REPORT)
    if folder is None or entry is None:
        raise UnknownPath(f"This model has no report: its manifest names no {REPORT}. Train it again to have one.")
    try:
        with (folder / REPORT).open("rb") as file:
            content = file.read(entry["size_bytes"] + 1)  # never more, whatever stands there now
    except OSError as error:
        raise DamagedModel(f"{REPORT} can't be read ({error.strerror}). Restore the model.", file=REPORT) from error
    if sha256(content).hexdigest() != entry["sha256"]:
        raise DamagedModel(f"{REPORT} was changed after the model was loaded. Restore the model.", file=REPORT)
    return content
