"""Every verb, with each of its calls made to fail in turn: nothing doubled, nothing lost, and the message says what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import cloudy
import pytest
from conftest import ROOT, long
from failing import KINDS, every_fault, run_once
from projects import (
    ASYNC,
    BUCKET,
    ECR,
    ENDPOINT,
    MODEL,
    RECORDS,
    TOPIC,
    WHERE,
    a_model,
    a_release,
    a_role,
    a_training_job,
    a_version,
    all_of_it,
    an_async_endpoint,
    an_endpoint,
    an_endpoint_that_answers,
    an_endpoint_with_a_finding,
    an_image,
    an_updated_endpoint,
    good,
)
from snapshots import snapshot
from verbs import ROLE, Ran, berth

import deploy.cloud
import deploy.supply.scan
from deploy.__main__ import VERBS
from deploy.supply.findings import Scan

if TYPE_CHECKING:
    from local_test.cloud import Cloud

READS = ("status", "logs", "preflight", "scan", "settings", "invoke", "fresh")


@dataclass(frozen=True)
class Case:
    """A verb, and what has to be there before."""

    words: tuple[str, ...]
    prepare: Callable[[Cloud], None] = lambda aws: None
    calls: str = ""
    """A call that it must make: else the case tests something else than it says."""


CASES = {
    "train": [
        Case(("train", *WHERE), calls="CreateTrainingJob"),
        Case(("train", "--stop"), a_training_job, "StopTrainingJob"),
    ],
    "tune": [Case(("tune", *WHERE, "--jobs", "2"), calls="CreateHyperParameterTuningJob")],
    "approve": [Case(("approve",), a_version, "UpdateModelPackage")],
    "endpoint": [
        Case(ENDPOINT, a_model, "CreateEndpoint"),
        Case((*ENDPOINT, "--environment", "A=B"), an_endpoint, "UpdateEndpoint"),
    ],
    "rollback": [Case(("rollback",), an_updated_endpoint, "UpdateEndpoint")],
    "autoscale": [
        Case(("autoscale",), an_endpoint, "PutScalingPolicy"),
        Case(("autoscale", *ASYNC, "--min-count", "0"), an_async_endpoint, "PutScalingPolicy"),
    ],
    "invoke": [Case(("invoke",), an_endpoint_that_answers, "InvokeEndpoint")],
    "async": [Case(("async", "--bucket", BUCKET), an_async_endpoint, "InvokeEndpointAsync")],
    "batch": [
        Case(
            ("batch", *WHERE, "--batch-data", MODEL, "--batch-input", RECORDS, "--bucket", BUCKET),
            a_model,
            "CreateTransformJob",
        )
    ],
    "publish": [
        Case(("publish", "algorithm", *WHERE), a_release, "CreateAlgorithm"),
        Case(("publish", "model", *WHERE, "--sold-model", MODEL), a_release, "CreateModelPackage"),
    ],
    "status": [Case(("status",), all_of_it, "GetResources")],
    "logs": [Case(("logs", "training"), all_of_it, "FilterLogEvents")],
    "delete": [
        Case(("delete", "--yes"), all_of_it, "DeleteEndpoint"),
        Case(
            ("delete", "--yes", "--models", "--images", "--jobs", "--data", "--logs", "--bucket", BUCKET),
            all_of_it,
            "DeleteBucket",
        ),
    ],
    "preflight": [Case(("preflight", "--role", ROLE), a_role, "GetCallerIdentity")],
    "fresh": [Case(("fresh", "--no-relock", "--topic", TOPIC), an_endpoint_with_a_finding, "Publish")],
    "scan": [Case(("scan", f"{ECR}:1"), an_image, "DescribeImageScanFindings")],
    "settings": [Case(("settings",))],
}
"""For each verb what is run; the name that it has on the command line."""
ELSEWHERE = {
    "push": ("test_push.py", "test_each_failure_of_each_call_of_a_push_to_ecr_is_mended_by_the_next"),
}
"""Verbs whose own tests have each call fail, as they need more than a cloud."""
ALL = [pytest.param(case, id=f"{name}{number or ''}") for name, cases in CASES.items() for number, case in enumerate(cases)]

CHANGING = [each for each in ALL if each.values[0].words[0] not in READS]
LONG = os.environ.get("LONG") == "1"


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every fault be the last word."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("BERTH_LISTING_RELEASES", str(tmp_path))
    monkeypatch.setattr(cloudy, "AFTER_CALL", [count_down])
    monkeypatch.setattr(deploy.supply.scan, "grype", lambda image: None)  # it is ECR that is asked
    monkeypatch.setattr(deploy.supply.scan, "pip_audit", lambda root: Scan("pip-audit", "the lock"))


FAILED: set[str] = set()
"""Calls that have failed in a test before."""
READING = ("Get", "List", "Describe", "Head", "Filter", "Simulate")


def in_turn(number: int, call: str) -> list[str]:
    """Return one kind for each call that changes something; of those that don't, for the first: all verbs look in one way."""
    if call in FAILED and is_reading(call):
        return []
    FAILED.add(call)
    return [KINDS[number % len(KINDS)]]


def is_reading(call: str) -> bool:
    return call.partition(":")[2].startswith(READING)


def test_every_verb_has_a_case() -> None:
    assert {verb.name for verb in VERBS} == {*CASES, *ELSEWHERE}
    for name, (file, test) in ELSEWHERE.items():
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), name


@pytest.mark.parametrize("case", ALL)
def test_a_call_that_failed_is_made_good_by_the_next_run(aws: Cloud, case: Case) -> None:
    calls = every_fault(aws, lambda: berth(*case.words), lambda: case.prepare(aws), in_turn)
    assert not case.calls or case.calls in {call.partition(":")[2] for call in calls}


@long
@pytest.mark.parametrize("case", ALL)
def test_a_call_that_failed_in_any_way_is_made_good_by_the_next_run(aws: Cloud, case: Case) -> None:
    every_fault(aws, lambda: berth(*case.words), lambda: case.prepare(aws))


@pytest.mark.parametrize("case", ALL)
def test_a_verb_that_is_run_twice_makes_nothing_twice(aws: Cloud, case: Case) -> None:
    first = run_once(aws, lambda: berth(*case.words), lambda: case.prepare(aws))
    assert first.ran.exit_code == 0, first.ran.output
    assert first.seen.untagged() == []
    again = berth(*case.words)
    assert again.exit_code == 0, again.output
    assert snapshot(aws).unlike(first.seen) == {}


@pytest.mark.parametrize("case", CHANGING)
def test_a_dry_run_changes_nothing(aws: Cloud, case: Case) -> None:
    aws.looks(1)
    case.prepare(aws)
    before, made = snapshot(aws), len(aws.calls)
    ran = berth(*case.words, "--dry-run")
    assert ran.exit_code == 0, ran.output
    assert ran.requests, ran.output
    assert snapshot(aws).unlike(before) == {}
    assert [call.operation for call in aws.calls[made:] if not is_reading(f"{call.service}:{call.operation}")] == []


def test_a_call_that_is_throttled_once_is_tried_again_by_itself(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    monkeypatch.setattr(deploy.cloud, "boto3", boto3)
    a_model(aws)
    aws.fail(1, "throttled", operation="CreateModel")
    good(*ENDPOINT)
    assert [call.fault for call in aws.calls if call.operation == "CreateModel"] == ["throttled", ""]


@pytest.mark.parametrize("case", CHANGING)
def test_what_ctrl_c_left_half_done_is_finished_by_the_next_run(aws: Cloud, case: Case) -> None:
    clean = run_once(aws, lambda: berth(*case.words), lambda: case.prepare(aws))
    changes = [number for number, call in enumerate(clean.calls, 1) if not is_reading(call)]
    for number in changes if LONG else [changes[len(changes) // 2]]:
        stopped = run_once(aws, lambda number=number: interrupted(number, case.words), lambda: case.prepare(aws))
        again = berth(*case.words)
        story = f"after call {number}, {clean.calls[number - 1]}:\n{stopped.ran.output}\n-- and again:\n{again.output}"
        assert stopped.ran.exit_code == 130, story
        assert stopped.seen.untagged() == [], story
        assert again.exit_code == 0, story
        assert snapshot(aws).unlike(clean.seen) == {}, story


def interrupted(number: int, words: tuple[str, ...]) -> Ran:
    """Run a verb whose person presses Ctrl-C once its number-th call is done."""
    COUNTDOWN["calls"] = number
    try:
        return berth(*words)
    finally:
        COUNTDOWN["calls"] = 0


def count_down() -> None:
    COUNTDOWN["calls"] -= 1
    if COUNTDOWN["calls"] == 0:
        raise KeyboardInterrupt


COUNTDOWN = {"calls": 0}
"""How many calls are left until Ctrl-C."""
