"""The promises of prose: what README and Makefile say is so."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from ahead import ahead, beside, scratch
from conftest import ROOT, docker_client

from deploy.__main__ import VERBS

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
BARE = """
FROM {base}
RUN apt-get update && apt-get install -y --no-install-recommends python3 make && rm -rf /var/lib/apt/lists/*
"""


def verbs() -> list[str]:
    return re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE)


def verbs_of_deploy() -> list[str]:
    return re.search(r"^DEPLOY_VERBS = (.+)$", MAKEFILE, re.MULTILINE)[1].split()


def test_the_first_screen_has_one_sentence_two_commands_and_what_they_print() -> None:
    screen = README.splitlines()[:25]
    assert screen[2].endswith(".")
    assert "make run" in screen[5]
    assert "make test" in screen[6]
    assert any("/ping answered 200" in line for line in screen)


def test_make_run_prints_what_readme_shows(main_job: str) -> None:
    """Digits of times aside: those are another machine's."""
    shown = re.search(r"`make run` prints.*?```\n(.*?)```", README, re.DOTALL)
    printed = _without_times(main_job)
    assert shown
    assert [line for line in _without_times(shown[1]).splitlines() if line not in printed.splitlines()] == []


def _without_times(text: str) -> str:
    return re.sub(r"\d+(\.\d+)? m?s$", "TIME", text, flags=re.MULTILINE)


def test_every_make_verb_that_readme_names_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", README))
    assert named - set(verbs()) - set(verbs_of_deploy()) == set()


def test_the_make_verbs_of_deploy_are_verbs_of_deploy() -> None:
    assert set(verbs_of_deploy()) <= {verb.name for verb in VERBS}


def test_make_alone_prints_every_verb() -> None:
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [verb for verb in verbs() if f"make {verb} " not in printed] == []
    assert " ".join(verbs_of_deploy()) in printed


def test_every_variable_that_the_code_reads_is_documented() -> None:
    code = "".join(path.read_text() for folder in ("serving", "contract") for path in (ROOT / folder).glob("*.py"))
    read = set(re.findall(r'"(SAGEMAKER_[A-Z_]+|AIP_[A-Z_]+|PORT|PREDICTOR)"', code))
    assert read
    assert [name for name in sorted(read) if f"`{name}`" not in README] == []


def test_readme_names_every_estimator() -> None:
    from model.pipeline import ESTIMATORS

    assert [name for name in ESTIMATORS if f"`{name}`" not in README] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/decisions.md", "CHANGELOG.md"])
def test_links_between_documents_lead_somewhere(name: str) -> None:
    document = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_decisions_are_numbered_and_at_most_ten_lines() -> None:
    parts = re.split(r"^## ", (ROOT / "docs" / "decisions.md").read_text(), flags=re.MULTILINE)[1:]
    assert [int(part.split(".")[0]) for part in parts] == list(range(1, len(parts) + 1))
    assert [part.splitlines()[0] for part in parts if part.strip().count("\n") > 10] == []


@ahead
def bare_machine() -> str:
    """What `make run` prints on bare Debian: no ensurepip, no compiler, no pip. The environment is made anew inside."""
    docker = docker_client()
    folder = scratch()
    (folder / "Dockerfile").write_text(BARE.format(base="debian:trixie-slim"))
    done = beside([docker, "build", "--tag", "berth-bare:test", folder], ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    tree = folder / "tree"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    mount = ["--volume", f"{tree}:/berth", "--workdir", "/berth"]
    # make as process 1 can't end itself on SIGTERM, and would try for ever: --init has it be another.
    done = beside([docker, "run", "--rm", "--init", *mount, "berth-bare:test", "make", "run"], ROOT)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_a_machine_with_nothing_but_python_and_make_runs_the_main_job(bare_machine: str) -> None:
    assert "== All answered ==" in bare_machine
    assert "Python parser serves instead" in bare_machine
