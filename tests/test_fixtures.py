"""The fixtures of local_test/fixtures.py, as other people's tests use them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

TESTS = """
from pathlib import Path

ROW = b"0,6.575,296,15.3,396.9,4.98"


def test_an_endpoint_answers(endpoint):
    assert float(endpoint.invoke(ROW).text) > 0


def test_a_job_joins_what_is_answered(transform_job, tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"first," + ROW + b"\\n")
    options = {"split_type": "Line", "assemble_with": "Line", "input_filter": "$[1:]", "join_source": "Input"}
    done = transform_job(tmp_path / "rows.csv", output_filter="$[0,-1]", **options)
    assert done.status == "Completed"
    assert done.outputs[0].read_text().startswith("first,")


def test_models_are_asked_by_name(multi_model_endpoint, served):
    asked = multi_model_endpoint({"one.tar.gz": served / "model", "other.tar.gz": served / "model"})
    assert asked.invoke("one.tar.gz", ROW).status == asked.invoke("other.tar.gz", ROW).status == 200
    assert asked.loads == 2


def test_a_request_is_answered_in_a_file(async_endpoint):
    taken = async_endpoint.invoke(ROW)
    assert taken.wait(60)
    assert float(taken.output_location.read_text()) > 0


def test_a_pipeline_of_one_answers(pipeline, platform, served):
    assert float(pipeline((platform, served)).invoke(ROW).text) > 0
"""


def run(folder: Path, test: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(TESTS)
    (folder / "conftest.py").write_text('pytest_plugins = ["local_test.fixtures"]\n')
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", test, "test_mine.py"]
    inherited = {name: value for name, value in os.environ.items() if name not in {"MODEL", "IMAGE"}}
    return subprocess.run(
        words, cwd=folder, env={**inherited, "PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, check=False
    )


def test_each_way_of_serving_is_a_fixture(model_dir: Path, tmp_path: Path) -> None:
    done = run(tmp_path, MODEL=str(model_dir))
    assert "5 passed" in done.stdout, done.stdout


def test_without_a_model_it_is_said_how_to_name_one(tmp_path: Path) -> None:
    done = run(tmp_path, "endpoint_answers")
    assert "set MODEL=model.tar.gz, or define a fixture `served`" in done.stdout


def test_an_image_serves_many_models_and_in_a_pipeline(docker: str, image: str, model_dir: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "models or pipeline", IMAGE=image, ENGINE=docker, MODEL=str(model_dir))
    assert "2 passed, 3 deselected" in done.stdout, done.stdout
