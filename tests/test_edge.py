"""`python -m edge`: how the command line ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

COMMAND = [sys.executable, "-m", "edge"]


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "\nStopped; nothing half-written is left.\n"), (signal.SIGTERM, 143, "")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_export_that_is_stopped_leaves_nothing(model_dir: Path, tmp_path: Path, number: int, code: int, said: str) -> None:
    words = ["export", "--model", str(model_dir), "--data", str(ROOT / "model" / "sample"), "--out", str(tmp_path / "out")]
    with subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        assert export.stdout is not None
        export.stdout.readline()  # it has read its rows, and teaches now
        export.send_signal(number)
        _, errors = export.communicate(timeout=60)
    assert (export.returncode, errors) == (code, said)
    assert not (tmp_path / "out").exists()


def test_a_word_that_it_lacks_is_told_with_how_it_is_called() -> None:
    done = subprocess.run([*COMMAND, "fly"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: python -m edge ")
    assert "No such command 'fly'" in done.stderr
