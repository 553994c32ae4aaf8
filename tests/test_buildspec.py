"""buildspec.yml and the workflow: make verbs in their order, of one mind with each other, and safe to run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from conftest import ROOT, long, registry_program

from local_test.rehearsal.registry import registry

TEMPLATES = sorted((ROOT / "deploy" / "templates").glob("*.yaml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PROGRAMS = Path(sys.executable).parent


# ---- buildspec.yml


@cache
def buildspec() -> dict:
    """buildspec.yml."""
    document: dict = yaml.safe_load((ROOT / "buildspec.yml").read_text())
    return document


def commands() -> dict[str, list[str]]:
    """The commands of each phase."""
    return {name: phase.get("commands", []) for name, phase in buildspec()["phases"].items()}


def test_the_phases_are_the_make_verbs_in_their_order() -> None:
    said = {name: re.findall(r"\bmake ([a-z-]+)", "\n".join(lines)) for name, lines in commands().items()}
    assert said == {
        "install": ["setup-test"],
        "pre_build": ["lint", "test"],
        "build": ["image", "scan", "conformance"],
        "post_build": ["push", "deploy"],
    }


def deploy_verbs() -> set[str]:
    """What `python -m deploy` does so far."""
    from deploy.__main__ import VERBS

    return {verb.name for verb in VERBS if verb.name}


def make_verbs() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_verb_that_a_pipeline_uses_exists() -> None:
    texts = [(ROOT / "buildspec.yml").read_text(), *(path.read_text() for path in [*TEMPLATES, *WORKFLOWS])]
    code = "\n".join(line.partition("# ")[0] for text in texts for line in text.splitlines())
    coming = {"scan", "push", "fresh", "deploy"} - {{"endpoint": "deploy"}.get(verb, verb) for verb in deploy_verbs()}
    used = set(re.findall(r"\bmake ([a-z][a-z-]+)", code))
    assert used >= {"lint", "test", "image", "scan", "conformance", "push", "deploy", "fresh"}
    assert used - make_verbs() - coming == set()


def test_every_variable_of_the_buildspec_is_explained_above_it() -> None:
    lines = (ROOT / "buildspec.yml").read_text().splitlines()
    for name in set(buildspec()["env"]["variables"]) - {"DOCKER_BUILDKIT"}:
        (at,) = [index for index, line in enumerate(lines) if line.startswith(f"    {name}:")]
        assert lines[at - 1].startswith("    # ")


def test_what_is_kept_between_builds_is_what_pip_fetched() -> None:
    assert buildspec()["cache"] == {"paths": [f"{buildspec()['env']['variables']['PIP_CACHE_DIR']}/**/*"]}


def test_what_codebuild_reports_is_written_by_the_phases() -> None:
    written = json.dumps(buildspec()["env"]["variables"]) + json.dumps(commands())
    reports = buildspec()["reports"].values()
    assert {each["file-format"] for each in reports} == {"JUNITXML"}
    assert [file for each in reports for file in each["files"] if file not in written] == []


def played(text: str, tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What `.ci/phases` makes of a buildspec, run."""
    path = tmp_path / "buildspec.yml"
    path.write_text(text)
    script = subprocess.run([sys.executable, ROOT / ".ci" / "phases", path], capture_output=True, text=True, check=False)
    if script.returncode:
        return script
    return subprocess.run(
        ["bash", "-c", script.stdout], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


PHASES = """
version: 0.2
env: {{variables: {{GIVEN: "of the file", FREE: "two words"}}}}
phases:
  pre_build: {{commands: ["export KEPT=kept", "{pre_build}"]}}
  build: {{commands: ['echo "$GIVEN, $FREE, $KEPT"', "{build}", "echo after"]}}
  post_build: {{commands: ['echo "succeeding $CODEBUILD_BUILD_SUCCEEDING"']}}
"""


def test_the_phases_are_played_as_codebuild_does(tmp_path: Path) -> None:
    done = played(PHASES.format(pre_build="true", build="true"), tmp_path, GIVEN="of the project")
    assert done.returncode == 0
    assert "of the project, two words, kept\n" in done.stdout
    assert "after\n" in done.stdout
    assert "succeeding 1\n" in done.stdout


def test_a_build_that_fails_still_has_its_end_and_a_test_that_fails_has_none(tmp_path: Path) -> None:
    done = played(PHASES.format(pre_build="true", build="false"), tmp_path)
    assert (done.returncode, "succeeding 0\n" in done.stdout, "after\n" in done.stdout) == (1, True, False)
    done = played(PHASES.format(pre_build="false", build="true"), tmp_path)
    assert (done.returncode, "succeeding" in done.stdout) == (1, False)


def test_a_part_of_a_buildspec_that_can_not_be_played_is_named(tmp_path: Path) -> None:
    done = played("version: 0.2\nphases: {build: {commands: [], finally: [ls]}}\n", tmp_path)
    assert done.returncode == 1
    assert "{'build': ['finally']}" in done.stderr


def test_nothing_is_pushed_from_a_build_that_failed(tmp_path: Path) -> None:
    """The whole post_build of the real file, with `make` and `python3` stood in for."""
    (tmp_path / "make").write_text('#!/bin/sh\necho "make $*"\n')
    (tmp_path / "make").chmod(0o755)
    spec = {**buildspec(), "phases": {"build": {"commands": ["false"]}, "post_build": buildspec()["phases"]["post_build"]}}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = played(yaml.safe_dump(spec), tmp_path, PUSH="true", APPROVED="true", PATH=path)
    assert done.returncode == 1
    assert "make push" not in done.stdout.replace("== ", "")


MACHINE = """
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc git libc6-dev make python3 python3-dev
"""


@long
def test_the_phases_run_from_a_commit_to_a_registry_in_a_clean_container(docker: str, tmp_path: Path) -> None:
    """With this machine's Docker engine and network, as CodeBuild has its own; few tests, and without AWS."""
    if lacking_verbs := {"scan", "push", "deploy"} - make_verbs():
        pytest.skip(f"the Makefile has no {', '.join(sorted(lacking_verbs))} yet")
    tree, machine, image = tmp_path / "tree", "berth-phases:test", "berth-phases-built:test"
    subprocess.run(["git", "clone", "--quiet", ROOT, tree], check=True)
    # The engine sees the folders of this machine: what it is to mount must have the same path in here.
    (tree / "build" / "tmp").mkdir(parents=True)
    subprocess.run([docker, "build", "--quiet", "--tag", machine, "-"], input=MACHINE, text=True, check=True)
    script = subprocess.run([sys.executable, ROOT / ".ci" / "phases"], capture_output=True, text=True, check=True).stdout
    narrow = f"{buildspec()['env']['variables']['PYTEST_ADDOPTS']} tests/test_rules.py tests/test_layout.py"
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry", registry_program()) as address:
        environ = {
            "IMAGE": image,
            "BASE_IMAGE": "debian:trixie-slim",
            "PYTEST_ADDOPTS": narrow,
            "PUSH": "true",
            "BERTH_IMAGE_REGISTRY": address,
            "BERTH_GATE_SKIP_SCAN": "true",  # no registry but ECR scans
            "TMPDIR": str(tree / "build" / "tmp"),
        }
        mounts = [f"{tree}:{tree}", "/var/run/docker.sock:/var/run/docker.sock", f"{Path(docker).resolve()}:/usr/bin/docker:ro"]
        options = [*("--network=host", "--pid=host", f"--workdir={tree}"), *(f"--volume={mount}" for mount in mounts)]
        command = [docker, "run", "--rm", *options, *(f"--env={name}={value}" for name, value in environ.items()), machine]
        done = subprocess.run([*command, "bash", "-c", script], capture_output=True, text=True, check=False)
        subprocess.run([docker, "image", "rm", "--force", image, machine], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        with urllib.request.urlopen(f"http://{address}/v2/berth/tags/list", timeout=10) as answer:
            assert len(json.load(answer)["tags"]) == 1
    ran = re.findall(r"^== (\w+): ", done.stdout, re.MULTILINE)
    assert ran == [name for name, lines in commands().items() for _ in lines]
    for report in buildspec()["reports"].values():
        suites = ET.parse(tree / report["files"][0]).getroot().iter("testsuite")
        assert sum(int(suite.get("tests", 0)) for suite in suites) > 50
    assert json.loads((tree / "build" / "pushed.json").read_text())["uri"].startswith(f"{address}/berth@sha256:")


# ---- the workflows


def test_zizmor_finds_nothing_in_the_workflows() -> None:
    done = subprocess.run(
        [PROGRAMS / "zizmor", "--offline", "--no-progress", *WORKFLOWS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is() -> None:
    uses = [use for path in WORKFLOWS for use in re.findall(r"uses: (.*)", path.read_text())]
    assert len(uses) > len(WORKFLOWS)
    assert [use for use in uses if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


def test_a_pull_request_gets_no_secret_and_no_role() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert [path.name for path in WORKFLOWS if "secrets." in path.read_text()] == []
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow[True]  # YAML 1.1 reads `on` as true
    trusted = {name for name, job in workflow["jobs"].items() if "id-token" in job["permissions"]}
    assert trusted == {"push", "deploy"}
    assert "github.event_name == 'push' && github.ref == 'refs/heads/main'" in workflow["jobs"]["push"]["if"]
    assert workflow["jobs"]["deploy"]["needs"] == "push"


def test_the_workflow_runs_the_verbs_of_the_buildspec() -> None:
    steps = [step.get("run", "") for job in yaml.safe_load(WORKFLOW.read_text())["jobs"].values() for step in job["steps"]]
    own, other = (set(re.findall(r"\bmake ([a-z][a-z-]+)", text)) for text in ("\n".join(steps), json.dumps(commands())))
    assert own == other - {"setup-test"}


def test_the_pipeline_hands_on_what_the_build_exports() -> None:
    text = (ROOT / "deploy" / "templates" / "pipeline.yaml").read_text()
    handed = set(re.findall(r"#\{build\.(\w+)\}", text))
    assert handed == set(buildspec()["env"]["exported-variables"])
    assert handed == {"BERTH_IMAGE_URI"}  # deploy's setting image.uri
