"""What people look at, and `/metadata` for programs: a small Flask application behind the short path.

The page is complete without JavaScript; `static/` makes it live. It takes nothing from other hosts and runs nothing in line.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, render_template
from werkzeug.exceptions import HTTPException

from contract.errors import BerthError, MethodNotAllowed, UnknownPath
from contract.manifest import Manifest
from serving.errors import error_body
from serving.report import REPORT, add_report
from serving.settings import Settings

HERE = Path(__file__).parent
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SAMPLES = ("curl", "Python", "boto3", "AWS CLI")
"""Ways to call, each a file of `templates/samples/`; the page's script fills the same texts with what the form holds."""
ADDRESS = "http://localhost:8080/invocations"
"""Where samples call as long as no script has put the page's own address there."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def make_pages(manifest: Manifest, settings: Settings, folder: Path | None = None) -> Flask:
    """Return the application that serves the home page, the report of a folder and `/metadata`, and answers unknown paths."""
    pages = Flask(__name__, static_folder=None)
    pages.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    pages.add_template_filter(figure)
    image = {"version": settings.image_version, "revision": settings.image_revision}
    document = json.dumps({**manifest.to_json(), "served_by": image}, indent=2, ensure_ascii=False)
    assets = {path.name: path for path in (HERE / "static").iterdir() if path.suffix in MEDIA_TYPES}
    # The digest stands in the path, so that what a page's scripts import has it too, and a browser may keep all for good.
    digest = sha256(b"".join(assets[name].read_bytes() for name in sorted(assets))).hexdigest()[:12]
    home_page = cache(lambda: render_template("home.html", assets=f"static/{digest}", image=image, **_content(manifest)))

    @pages.get("/")
    def home() -> Response:
        return Response(home_page(), mimetype="text/html", headers={"Cache-Control": "no-cache"})

    @pages.get("/static/<version>/<name>")
    def static(version: str, name: str) -> Response:
        if name not in assets:
            abort(404)
        keep = "public, max-age=31536000, immutable" if version == digest else "no-store"
        media_type = MEDIA_TYPES[assets[name].suffix]
        return Response(assets[name].read_bytes(), mimetype=media_type, headers={"Cache-Control": keep})

    @pages.get("/metadata")
    def metadata() -> Response:
        return Response(document, mimetype="application/json")

    add_report(pages, manifest, folder)

    @pages.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        return _error_response(_translate(error))

    @pages.errorhandler(BerthError)
    def explain(error: BerthError) -> Response:
        return _error_response(error)

    @pages.after_request
    def protect(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return pages


def figure(value: Any) -> str:
    """Return a number as a person reads it: six digits, thousands apart; another value as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.4e}"
    decimals = max(0, 5 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def _content(manifest: Manifest) -> Mapping[str, Any]:
    """Return what the template shows."""
    estimator = manifest.hyperparameters.get("estimator")
    knobs = [knob for knob in manifest.declaration.hyperparameters if not knob.estimators or estimator in knob.estimators]
    return {
        "model": manifest.declaration,
        "manifest": manifest,
        "metrics": _metric_table(manifest.metrics),
        "trained_with": {knob.name: manifest.hyperparameters.get(knob.name) for knob in knobs},
        "samples": _sample_calls(manifest),
        "report": "report" if REPORT in manifest.files else None,
    }


def _metric_table(metrics: Mapping[str, float]) -> Mapping[str, Any]:
    """Return `part:name` metrics as a table: a row a name, a column a part."""
    cells = {tuple(name.rpartition(":")[::2]): value for name, value in metrics.items()}
    parts, names = list(dict.fromkeys(part for part, _ in cells)), list(dict.fromkeys(name for _, name in cells))
    return {"parts": parts, "rows": {name: [cells.get((part, name)) for part in parts] for name in names}}


def _sample_calls(manifest: Manifest) -> list[Mapping[str, str]]:
    row = manifest.samples[0]["row"]
    values = {
        "json": _literal(row, "null").replace("'", "\\u0027"),  # it stands in a shell's single quotes
        "python": _literal(row, "None"),
        "url": ADDRESS,
        "name": re.sub(r"[^A-Za-z0-9-]", "-", manifest.declaration.name),  # bare in a command
    }
    calls: list[Mapping[str, str]] = []
    for title in SAMPLES:
        template = (HERE / "templates" / "samples" / f"{title.lower().replace(' ', '-')}.txt").read_text(encoding="utf-8")
        template = template.strip().replace("@name@", values["name"])
        text = re.sub(r"@(json|python|url)@", lambda found: values[found[1]], template)
        calls.append({"title": title, "template": template, "text": text})
    return calls


def _literal(row: Mapping[str, Any], missing: str) -> str:
    """Return a row as JSON, and with another word for null as Python: their texts and numbers are written alike."""
    pairs = ((json.dumps(name, ensure_ascii=False), value) for name, value in row.items())
    cells = (f"{name}: {missing if value is None else json.dumps(value, ensure_ascii=False)}" for name, value in pairs)
    return f"{{{', '.join(cells)}}}"


def _translate(error: HTTPException) -> BerthError:
    """Return Flask's own errors as ours."""
    if error.code == 405:
        allowed: list[str] = sorted(getattr(error, "valid_methods", None) or [])
        return MethodNotAllowed(f"This path takes {' and '.join(allowed)}.", allow=allowed)
    if error.code == 404:
        return UnknownPath("Nothing answers at this path. GET / shows what does.")
    return BerthError("The server failed; its log has the cause under this request_id.")


def _error_response(error: BerthError, **headers: Any) -> Response:
    if "allow" in error.facts:
        headers["Allow"] = ", ".join(error.facts["allow"])
    return Response(error_body(error, secrets.token_hex(8)), status=error.status, mimetype="application/json", headers=headers)
