"""The rules agree with the SDK's local mode wherever both speak: of a sound container, of faults, of others' servers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from broken import SOUND_IMAGE, Fault, faults, load, remove
from conftest import ROOT, SAMPLE, long
from neighbors import neighbor
from test_broken import PAYLOAD, START_S, wanted_by

from local_test.conformance import judge
from local_test.foreign import SERVERS, Server, build, take_model
from local_test.payloads import csv_body
from local_test.rules import RULES
from local_test.runners import Containers
from local_test.sdk.agreement import LINES, as_markdown, disagreements
from local_test.sdk.steps import Step
from local_test.subject import Payload, Subject
from local_test.verdicts import Status, Verdict

FAULTS = [replace(fault, tag="local-mode") for fault in (*faults(), *faults("local_mode.txt"))]
NONE = Fault("none", ())
QUICK = {"none", "train-leaves-no-model", "no-serve-on-path", "the-last-record-is-dropped"}
"""The sound container, a fault that local mode lets pass until it serves, one that both find, and one that shows last."""
AT_ONCE = 4
TRAIN_S = 40
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
        given = Given(PAYLOAD, hyperparameters={"epochs": "200"}, start_s=START_S)
        return in_local_mode(name, given, sdk3_python, scratch), by_the_rules(name, given, scratch)

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
    """Local mode's network, kept for all runs."""
    with neighbor(docker):
        yield


@dataclass(frozen=True)
class Given:
    """What both are given of an image, beside the sample to train on."""

    payload: Payload
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    model: Path | None = None
    start_s: float = 60


def in_local_mode(image: str, given: Given, python: Path, folder: Path) -> dict[str, bool]:
    """Return what was tried with an image in local mode, and whether it was done."""
    payload, account = folder / "payload", folder / "account.json"
    payload.write_bytes(given.payload.body)
    words = {
        "--image": image,
        "--data": SAMPLE,
        "--payload": payload,
        "--content-type": given.payload.content_type,
        "--json": account,
        "--train-seconds": TRAIN_S,
        "--start-seconds": given.start_s,
        **({"--model": given.model} if given.model else {}),
    }
    command = [python, "-m", "local_test.sdk.steps", *(str(word) for pair in words.items() for word in pair)]
    command += [part for pair in given.hyperparameters.items() for part in ("--hyperparameter", "=".join(pair))]
    command += [part for pair in given.environ.items() for part in ("--env", "=".join(pair))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(account.read_text())["steps"]
    return {step["step"]: step["right"] for step in steps if step["step"] in set(Step)}


def by_the_rules(image: str, given: Given, folder: Path) -> dict[str, Verdict]:
    """Judge an image by the rules that speak of what local mode does."""
    subject = Subject(
        Containers(image),
        folder,
        train_data=SAMPLE,
        payload=given.payload,
        model_tar=given.model,
        hyperparameters=given.hyperparameters,
        environ=given.environ,
        start_s=given.start_s,
    )
    named = {line.rule for line in LINES}
    with contextlib.closing(subject):
        return {verdict.rule.name: verdict for verdict in judge(subject, [rule for rule in RULES if rule.name in named])}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.name, marks=() if fault.name in QUICK else long) for fault in (NONE, *FAULTS)],
)
def test_of_an_image_both_say_the_same(fault: Fault, compare: Compare) -> None:
    steps, verdicts = compare(fault)
    assert disagreements(steps, verdicts) == []
    assert {name for name, verdict in verdicts.items() if verdict.status is Status.FAILED} == verdicts.keys() & {*fault.breaks}
    if fault is NONE:
        assert steps == dict.fromkeys(map(str, Step), True)
    for line in LINES:
        if line.seen_of == fault.name:
            assert verdicts[line.rule].status is Status.FAILED, verdicts[line.rule]
            assert line.found in verdicts[line.rule].seen
            assert steps.get(line.step) is bool(line.passes), line


@long
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_of_a_server_that_others_wrote_both_say_the_same(
    server: Server, docker: str, network: None, sdk3_python: Path, tmp_path: Path
) -> None:
    image = build(server, "debian:trixie-slim", docker)
    model = take_model(image, docker, tmp_path) if server.has_model else tmp_path / "model.tar.gz"
    if not server.has_model:
        tarfile.open(model, "w:gz").close()
    given = Given(Payload(server.payload.encode(), server.content_type), environ=server.environ, model=model)
    steps, verdicts = in_local_mode(image, given, sdk3_python, tmp_path), by_the_rules(image, given, tmp_path)
    assert disagreements(steps, verdicts) == []
    assert steps[Step.SERVE] is (verdicts["becomes_ready"].status is Status.PASSED)


@long
def test_of_berths_own_image_all_is_done_and_every_rule_kept(
    image: str, manifest: dict, network: None, sdk3_python: Path, tmp_path: Path
) -> None:
    given = Given(Payload(csv_body(manifest), "text/csv"))
    assert in_local_mode(image, given, sdk3_python, tmp_path) == dict.fromkeys(map(str, Step), True)
    statuses = {verdict.status for verdict in by_the_rules(image, given, tmp_path).values()}
    assert statuses == {Status.PASSED}


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
