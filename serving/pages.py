"""What people look at, and `/metadata` for programs: a small Flask application behind the short path."""

from __future__ import annotations

import json
import secrets
from typing import Any

from flask import Flask, Response, render_template_string
from werkzeug.exceptions import HTTPException

from contract.errors import BerthError, MethodNotAllowed, UnknownPath
from contract.manifest import Manifest
from serving.errors import error_body
from serving.settings import Settings

HOME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ model.title }}</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{overflow:auto;background:#8881;padding:1rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left}</style>
<h1>{{ model.title }}</h1>
<p>{{ model.about }}</p>
<p>Predicts <b>{{ model.target.name }}</b>: {{ model.target.meaning }}
{%- if model.target.unit %}, in {{ model.target.unit }}{% endif %}
{%- if model.target.labels %}; one of {{ model.target.labels | join(", ") }}{% endif %}.</p>
<table><tr><th>feature<th>meaning<th>takes</tr>
{% for feature in model.features -%}
<tr><td>{{ feature.name }}<td>{{ feature.meaning }}<td>{{ feature.choices | join(", ") if feature.choices else "a number" }}
{%- if feature.unit %}, {{ feature.unit }}{% endif %}{% if feature.nullable %}, or nothing{% endif %}</tr>
{% endfor -%}
</table>
<h2>Call it</h2>
<pre>curl -H 'Content-Type: application/json' -d '{{ sample }}' http://localhost:8080/invocations</pre>
<p><a href="/metadata">/metadata</a> describes the model to programs: columns, samples, metrics, versions.</p>
</html>
"""


def make_pages(manifest: Manifest, settings: Settings) -> Flask:
    """Return the application that serves the home page and `/metadata`, and answers unknown paths."""
    pages = Flask(__name__, static_folder=None)
    image = {"version": settings.image_version, "revision": settings.image_revision}
    document = json.dumps({**manifest.to_json(), "served_by": image}, indent=2, ensure_ascii=False)
    sample = json.dumps({"instances": [manifest.samples[0]["row"]]}, ensure_ascii=False)
    sample = sample.replace("'", "\\u0027")  # it stands in a shell's single quotes

    @pages.get("/")
    def home() -> str:
        return render_template_string(HOME, model=manifest.declaration, sample=sample)

    @pages.get("/metadata")
    def metadata() -> Response:
        return Response(document, mimetype="application/json")

    @pages.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        return _error_response(_translate(error))

    return pages


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
