"""Programs of this project that verbs run as processes: they find it from any folder, and what they say is read as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def environ() -> dict[str, str]:
    """Return the environment of a program that imports from this project, in whichever folder it is run."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def read_json(path: Path) -> Any:
    """Return what a program has written; None where it has not, or no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
