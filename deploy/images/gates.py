"""What an image has to pass before it is pushed: the scan, and the platforms' rules. Both are programs; their JSON is read."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from deploy.errors import Rejected
from deploy.options import flags_of
from deploy.programs import ROOT, environ, read_json
from deploy.settings import Account, Gate

UNSCANNED = 2
"""Exit status of `scan` where something could not be looked at."""
NOBODY = "none"
"""What `scan` names where no scanner can look into an image: grype is not here, and the image is not in ECR."""
WASTEFUL = "wasteful"
"""Severity of a rule whose breach costs money and breaks nothing: it holds no push up."""
SHOWN = 10
DEPLOY = (sys.executable, "-m", "deploy")


def conform(engine: str, image: str) -> None:
    """Judge an image by the platforms' rules; raises Rejected where it breaks one that matters, or can't be judged."""
    with tempfile.TemporaryDirectory(prefix="berth-push-") as folder:
        path = Path(folder) / "conformance.json"
        words = [f"IMAGE={image}", f"ARGS=--engine {engine} --json {path}"]
        click.echo(f"Judge {image} by the platforms' rules: make conformance IMAGE={image}")
        status = _run(["make", "--directory", str(ROOT), "--no-print-directory", "conformance", *words])
        verdicts = read_json(path)
    if not isinstance(verdicts, list) or not any(verdict["status"] == "passed" for verdict in verdicts):
        raise Rejected(
            f"{image} is not pushed: it could not be judged by the platforms' rules (exit status {status}; what was said "
            "stands above). --skip-conformance pushes it all the same."
        )
    broken = [verdict for verdict in verdicts if verdict["status"] == "failed"]
    for verdict in broken:
        if verdict["severity"] == WASTEFUL:
            click.echo(f"Wasteful: {verdict['number']} {verdict['title']}: {verdict['seen']}")
    told = [_told(verdict) for verdict in broken if verdict["severity"] != WASTEFUL]
    if told:
        raise Rejected(
            f"{image} is not pushed: it breaks {len(told)} of the platforms' rules.\n  "
            + "\n  ".join(told[:SHOWN])
            + "\nMend it, `make image` and push; or push it all the same with --skip-conformance."
        )


def scan(account: Account, gate: Gate, image: str) -> bool:
    """Look for known vulnerabilities; say whether a scanner could look into the image.

    Args:
        account: where ECR is asked.
        gate: the severity that counts, and what is let pass.
        image: as the engine here knows it, or as it is named in a registry.

    Raises:
        Rejected: it has some, or the lock could not be looked up.
    """
    with tempfile.TemporaryDirectory(prefix="berth-push-") as folder:
        path = Path(folder) / "scan.json"
        click.echo(f"Scan {image}: python -m deploy scan {image}")
        words = ["scan", *flags_of(account, gate), "--json", str(path), image]
        status = _run([*DEPLOY, *_settings(), *words])
        told = read_json(path)
    if not isinstance(told, dict):
        raise Rejected(
            f"{image} is not pushed: the scan failed (exit status {status}; what it said stands above). --skip-scan pushes "
            "without one."
        )
    if told["passed"]:
        return True
    silent = [one for one in told["scans"] if one["error"]]
    if silent and all(one["scanner"] == NOBODY for one in silent) and status == UNSCANNED:
        return False
    said = "could not be scanned" if status == UNSCANNED else "does not pass the scan"
    raise Rejected(
        f"{image} {said}, as said above. Build it anew on newer packages, or let a finding pass, with a reason and an end, in "
        f"{gate.allow}; --skip-scan pushes without a scan."
    )


def _told(verdict: Mapping[str, Any]) -> str:
    return f"{verdict['number']} {verdict['title']} ({verdict['severity']}): {verdict['seen']} Do: {verdict['fix']}"


def _settings() -> list[str]:
    """Return the flag that names the settings file, where this command was given one."""
    context = click.get_current_context(silent=True)
    named = context.find_root().params.get("settings_file") if context else None
    return ["--settings", str(named)] if named else []


def _run(command: Sequence[str]) -> int:
    """Run a program that speaks for itself; return its exit status. It finds this package from any folder."""
    sys.stdout.flush()
    return subprocess.run(command, env=environ(), check=False).returncode  # noqa: S603
