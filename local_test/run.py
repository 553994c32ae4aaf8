"""`make run`: train on the sample, serve the model, call it with every kind of payload, and tell what happened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_test import payloads
from local_test.emulator import Endpoint, lay_out, serving, train
from local_test.runners import Platform

Body = Callable[[Mapping[str, Any]], bytes]


@dataclass(frozen=True)
class Call:
    """One way to ask for predictions."""

    name: str
    path: str
    content_type: str
    body: Body


CALLS = (
    Call("CSV, three rows", "/invocations", "text/csv", payloads.csv_body),
    Call("CSV with a header", "/invocations", "text/csv", lambda manifest: payloads.csv_body(manifest, header=True)),
    Call("JSON", "/invocations", "application/json", payloads.json_body),
    Call("JSON Lines", "/invocations", "application/jsonlines", payloads.jsonlines_body),
    Call("NumPy array, JSON back", "/invocations", "application/x-npy", payloads.npy_body),
    Call("Parquet", "/invocations", "application/x-parquet", payloads.parquet_body),
    Call("the book's columns", "/predict", "application/json", payloads.columns_body),
)


def run(platform: Platform, base: Path, data: Path, hyperparameters: Mapping[str, str]) -> int:
    """Do the main job below `base`, print a readable account and return an exit code."""
    prepare(base, data, hyperparameters)
    print(f"== Train on {_short(data)} ==", flush=True)
    outcome = train(platform, base)
    print(outcome.output.rstrip().replace(str(base), _short(base)))
    print(f"train ended with exit code {outcome.exit_code} after {outcome.seconds:.1f} s\n", flush=True)
    if outcome.exit_code:
        return outcome.exit_code
    manifest = json.loads((base / "model" / "manifest.json").read_text())
    print(f"== Serve {_short(base / 'model')} ==", flush=True)
    with serving(platform, base) as endpoint:
        print(f"/ping answered 200 after {endpoint.seconds_to_ready:.2f} s\n")
        failed = [call.name for call in CALLS if not _show(call, endpoint, manifest)]
        _show_an_error(endpoint, len(manifest["features"]))
    print(f"== {'All answered' if not failed else 'Not answered: ' + ', '.join(failed)} ==")
    return 1 if failed else 0


def prepare(base: Path, data: Path, hyperparameters: Mapping[str, str]) -> None:
    """Lay out a fresh /opt/ml at `base`; what is there goes only once the new one is whole."""
    if not data.is_dir():
        raise NotADirectoryError(f"DATA={data} is no folder; a folder of CSV files was expected")
    fresh = base.with_name(base.name + ".new")
    for folder in (fresh, base.with_name(base.name + ".old")):
        shutil.rmtree(folder, ignore_errors=True)
    lay_out(fresh, {"training": data}, hyperparameters)
    if base.exists():
        base.rename(base.with_name(base.name + ".old"))
    fresh.rename(base)
    shutil.rmtree(base.with_name(base.name + ".old"), ignore_errors=True)


def _short(path: Path) -> str:
    """Return a path as seen from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _show(call: Call, endpoint: Endpoint, manifest: Mapping[str, Any]) -> bool:
    is_binary = call.content_type in {"application/x-npy", "application/x-parquet"}
    payload = call.body(manifest)
    reply = endpoint.invoke(payload, call.content_type, "application/json" if is_binary else "", call.path)
    print(f"{call.name}: POST {call.path}, {call.content_type}")
    print(_indent(f"({len(payload)} bytes)" if is_binary else payload.decode(), ">"))
    print(_indent(reply.text, "<"))
    print(f"  {reply.status} in {1000 * reply.seconds:.1f} ms\n", flush=True)
    return reply.status == 200


def _show_an_error(endpoint: Endpoint, n_features: int) -> None:
    reply = endpoint.invoke(b"1," * n_features + b"2\n")
    print("A row of the wrong width is told what is wrong:")
    print(_indent(json.loads(reply.body)["message"], "<") + "\n", flush=True)


def _indent(text: str, mark: str) -> str:
    shortened = re.sub(r"^(.{118}).+$", r"\1 ..", text.rstrip(), flags=re.MULTILINE)
    return "\n".join(f"  {mark} {line}" for line in shortened.splitlines())
