"""The rules agree with the SDK's local mode wherever both speak, of a sound container and of such with a fault."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from broken import SOUND_IMAGE, Fault, build_sound, faults, load, remove
from conftest import ROOT, SAMPLE, long
from test_broken import PAYLOAD, START_S, wanted_by

from local_test.conformance import judge
from local_test.rules import RULES
from local_test.runners import Containers
from local_test.sdk import sandbox
from local_test.sdk.agreement import LINES, as_markdown, disagreements
from local_test.sdk.steps import Step
from local_test.subject import Subject
from local_test.verdicts import Status, Verdict

FAULTS = [replace(fault, tag="local-mode") for fault in (*faults(), *faults("local_mode.txt"))]
NONE = Fault("none", ())
QUICK = {"none", "train-fails", "no-serve-on-path", "ping-redirects", "the-last-record-is-dropped"}
"""The sound container, two faults that both find at once, one that local mode lets pass, one that shows at the end."""
AT_ONCE = 3
TRAIN_S = 40
HYPERPARAMETERS = {"epochs": "200"}

Compared = tuple[dict[str, bool], dict[str, Verdict]]
"""What was tried in local mode and whether it was done; what the rules say."""
Compare = Callable[[Fault], Compared]


@pytest.fixture(scope="module")
def compare(
    docker: str, network: None, sdk3_python: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Compare]:
    """A function that returns what is said of a fault's image: they are judged in threads."""
    chosen = wanted_by(request, test_of_an_image_both_say_the_same)
    wanted = [fault for fault in chosen if fault.name in QUICK or os.environ.get("LONG") == "1"]
    images = [fault for fault in wanted if fault is not NONE]
    folder = tmp_path_factory.mktemp("compared")

    def work(fault: Fault) -> Compared:
        scratch = folder / fault.name
        scratch.mkdir()
        name = SOUND_IMAGE if fault is NONE else fault.image
        return in_local_mode(name, sdk3_python, scratch), by_the_rules(name, scratch)

    load(docker, images, folder)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {fault.name: pool.submit(work, fault) for fault in wanted}
        try:
            yield lambda fault: begun[fault.name].result()
        finally:
            pool.shutdown(cancel_futures=True)
            remove(docker, images)


@pytest.fixture(scope="module")
def network(docker: str) -> Iterator[None]:
    """Local mode's network, with a neighbor on it: a run that finds none removes it at its end, when another may want it."""
    name, label = "berth-neighbor", f"com.docker.compose.network={sandbox.NETWORK}"  # compose looks for its label
    build_sound(docker)
    made = not subprocess.run([docker, "network", "create", "--label", label, sandbox.NETWORK], capture_output=True).returncode
    on = ["--network", sandbox.NETWORK, "--network-alias", "neighbor"]
    subprocess.run([docker, "run", "--detach", "--name", name, *on, SOUND_IMAGE, "sleep", "infinity"], check=True)
    yield
    subprocess.run([docker, "rm", "--force", name], check=True)
    if made:
        subprocess.run([docker, "network", "rm", sandbox.NETWORK], check=True)


def in_local_mode(image: str, python: Path, folder: Path) -> dict[str, bool]:
    """Return what was tried with an image in local mode, and whether it was done."""
    payload, account = folder / "payload.csv", folder / "account.json"
    payload.write_bytes(PAYLOAD.body)
    words = ["--image", image, "--data", SAMPLE, "--payload", payload, "--json", account]
    limits = ["--train-seconds", str(TRAIN_S), "--start-seconds", str(START_S)]
    given = [word for pair in HYPERPARAMETERS.items() for word in ("--hyperparameter", "=".join(pair))]
    command = [python, "-m", "local_test.sdk.steps", *words, *limits, *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "local_mode.txt").write_text(done.stdout)
    steps = json.loads(account.read_text())["steps"]
    return {step["step"]: step["right"] for step in steps if step["step"] in set(Step)}


def by_the_rules(image: str, folder: Path) -> dict[str, Verdict]:
    """Judge an image by the rules that speak of what local mode does."""
    named = {line.rule for line in LINES}
    subject = Subject(
        Containers(image), folder, train_data=SAMPLE, payload=PAYLOAD, hyperparameters=HYPERPARAMETERS, start_s=START_S
    )
    with contextlib.closing(subject):
        return {verdict.rule.name: verdict for verdict in judge(subject, [rule for rule in RULES if rule.name in named])}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.name, marks=() if fault.name in QUICK else long) for fault in (NONE, *FAULTS)],
)
def test_of_an_image_both_say_the_same(fault: Fault, compare: Compare) -> None:
    steps, verdicts = compare(fault)
    assert disagreements(steps, verdicts) == []
    if fault is NONE:
        assert steps == dict.fromkeys(map(str, Step), True)
    for line in LINES:
        if line.seen_of == fault.name:
            assert verdicts[line.rule].status is Status.FAILED, verdicts[line.rule]
            assert line.found in verdicts[line.rule].seen
            assert steps.get(line.step) is bool(line.passes), line


def test_each_line_names_a_rule_and_a_fault_that_there_are_and_each_step_has_a_line() -> None:
    assert {line.rule for line in LINES} <= {rule.name for rule in RULES}
    assert {line.seen_of for line in LINES} <= {fault.name for fault in FAULTS}
    assert [step for step in Step if step not in {line.step for line in LINES}] == []


def test_the_table_in_the_documentation_is_that_of_the_test() -> None:
    assert as_markdown(RULES) in (ROOT / "docs" / "conformance.md").read_text(), as_markdown(RULES)


FAILED = {
    "train fails": {"trains": (Status.FAILED, "exit code 1")},
    "no model is left": {"trains": (Status.FAILED, "train ended with exit code 0 and left no file in /opt/ml/model")},
    "the model is written to": {
        "starts_with_a_read_only_model": (Status.FAILED, "with a writable one it becomes ready"),
        "becomes_ready": (Status.BLOCKED, "blocked by H-4"),
        "payload_is_answered": (Status.BLOCKED, "blocked by H-7"),
    },
    "nothing answers": {
        "becomes_ready": (Status.FAILED, "no 200 within 15 s"),
        "payload_is_answered": (Status.BLOCKED, "blocked by H-7"),
    },
    "two at once block each other": {
        "serve_stays": (Status.BLOCKED, "blocked by H-7: the last ping answered 503"),
        "becomes_ready": (Status.BLOCKED, "blocked by H-1"),
    },
}


@pytest.mark.parametrize(
    ("failed", "step", "done", "told"),
    [
        pytest.param("", Step.TRAIN, True, "", id="all is sound"),
        pytest.param("", Step.TRAIN, False, "failed, and no rule beside it did", id="local mode alone finds it"),
        pytest.param("train fails", Step.TRAIN, False, "", id="both find it"),
        pytest.param("train fails", Step.TRAIN, True, "done, and T-1 trains failed: exit code 1", id="the rule alone finds it"),
        pytest.param("train fails", Step.SERVE, False, "failed, and no rule", id="a rule of another step finds it"),
        pytest.param("no model is left", Step.TRAIN, True, "", id="what is found is let pass"),
        pytest.param("the model is written to", Step.INVOKE, True, "", id="what is blocked by what is let pass"),
        pytest.param("the model is written to", Step.SERVE, False, "", id="what need not fail may"),
        pytest.param("nothing answers", Step.INVOKE, True, "done, and H-7 becomes_ready failed", id="what is blocked"),
        pytest.param("two at once block each other", Step.SERVE, True, "", id="nothing failed"),
    ],
)
def test_a_difference_is_told_unless_it_is_declared(failed: str, step: Step, done: bool, told: str) -> None:
    found = FAILED.get(failed, {})
    verdicts = {
        rule.name: Verdict(rule, *found.get(rule.name, (Status.PASSED, "")))
        for rule in RULES
        if rule.name in {line.rule for line in LINES}
    }
    differences = disagreements({step: done}, verdicts)
    assert len(differences) == bool(told)
    assert told in "".join(differences)
