"""Conformance against a sound container that is not Berth, and against images with one fault each."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from broken import SOUND_IMAGE, Fault, build_sound, faults, load, remove
from conftest import SAMPLE, long

from local_test.conformance import judge
from local_test.rules import RULES
from local_test.runners import Containers
from local_test.subject import Payload, Subject
from local_test.verdicts import Rule, Status, Verdict

FAULTS = faults()
NONE = Fault("none", ())
"""The sound container, judged beside the others."""
START_S = 15
AT_ONCE = 4
"""Images that are judged side by side: most of a judgement is waiting."""
GOOD = b"0.00632,18,2.31,0,0.538,6.575,65.2,4.09,1,296,15.3,396.9,4.98\n"
PAYLOAD = Payload(GOOD + GOOD.replace(b"6.575", b"4.575") + GOOD.replace(b"6.575", b"5.575"), "text/csv")
Judged = Callable[[Fault], dict[str, Verdict]]


def own(fault: Fault) -> list[Rule]:
    """Return the rules that are to find a fault."""
    return [rule for rule in RULES if rule.name in fault.breaks]


def neighbors(fault: Fault) -> list[Rule]:
    """Return the rules of the modules in which those stand; all where there is no fault."""
    modules = {rule.check.__module__ for rule in own(fault)}
    return [rule for rule in RULES if fault is NONE or rule.check.__module__ in modules]


@pytest.fixture(scope="module")
def sound(docker: str) -> str:
    """The image without a fault."""
    build_sound(docker)
    return SOUND_IMAGE


@pytest.fixture(scope="module")
def model_tar(sound: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the sound image's: what serves with a fault is not to wait for a training."""
    folder = tmp_path_factory.mktemp("sound")
    with contextlib.closing(Subject(Containers(sound), folder, train_data=SAMPLE)) as subject:
        path = folder / "model.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(subject.model / "model.json", "model.json")
    return path


@pytest.fixture(scope="module")
def beside(
    docker: str, model_tar: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Judged]:
    """What a fault's own rules and their neighbors say, and all rules of the sound image."""
    wanted = wanted_by(request, test_a_fault_is_found_by_its_rule_and_by_no_neighbor)
    sound_too = wanted_by(request, test_a_sound_container_that_is_not_berth_passes_every_rule_that_applies)
    with side_by_side(docker, [*sound_too, *wanted], tmp_path_factory.mktemp("faults"), neighbors, model_tar) as judged:
        yield judged


@pytest.fixture(scope="module")
def across(
    docker: str, sound: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Judged]:
    """What all rules say of a fault's image."""
    wanted = wanted_by(request, test_a_fault_is_found_by_its_rule_and_by_no_other)
    with side_by_side(docker, [NONE, *wanted], tmp_path_factory.mktemp("faults"), lambda _: RULES, None) as judged:
        yield judged


def wanted_by(request: pytest.FixtureRequest, test: Callable[..., None]) -> list[Fault]:
    """Return the faults for which the session is to run a test."""
    items = [item for item in request.session.items if item.name.startswith(f"{test.__name__}[")]
    return [item.callspec.params["fault"] for item in items]  # type: ignore[attr-defined]


@contextlib.contextmanager
def side_by_side(
    docker: str, wanted: Sequence[Fault], folder: Path, rules: Callable[[Fault], Sequence[Rule]], model_tar: Path | None
) -> Iterator[Judged]:
    """Give a function that returns what is said of a fault's image: they are judged in threads."""

    def work(fault: Fault) -> dict[str, Verdict]:
        scratch = folder / fault.name
        scratch.mkdir()
        return verdicts_of(fault.image, rules(fault), scratch, None if fault is NONE else model_tar)

    load(docker, wanted, folder)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun: dict[str, Future[dict[str, Verdict]]] = {fault.name: pool.submit(work, fault) for fault in wanted}
        try:
            yield lambda fault: begun[fault.name].result()
        finally:
            pool.shutdown(cancel_futures=True)
            remove(docker, wanted)


def verdicts_of(image: str, rules: Sequence[Rule], folder: Path, model_tar: Path | None) -> dict[str, Verdict]:
    """Judge an image as its owner would have it judged."""
    subject = Subject(
        Containers(image),
        folder,
        train_data=SAMPLE,
        payload=PAYLOAD,
        model_tar=model_tar,
        hyperparameters={"epochs": "1000", "pause_s": "0.25"},  # some 3 s: less tells nothing of when lines come
        start_s=START_S,
    )
    with contextlib.closing(subject):
        return {verdict.rule.name: verdict for verdict in judge(subject, rules)}


def each(chosen: Sequence[Fault]) -> pytest.MarkDecorator:
    """Return the mark of a test that is run once a fault."""
    return pytest.mark.parametrize("fault", chosen, ids=lambda fault: fault.name)


def test_there_are_more_than_thirty_faults_and_each_names_rules_that_there_are() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert sum(not fault.is_long for fault in FAULTS) > 30
    names = {rule.name for rule in RULES}
    assert [name for fault in FAULTS for name in fault.breaks if name not in names] == []


@each([NONE])
def test_a_sound_container_that_is_not_berth_passes_every_rule_that_applies(fault: Fault, beside: Judged) -> None:
    verdicts = beside(fault)
    assert told(verdicts, Status.FAILED, Status.BLOCKED) == []
    assert [line for line in told(verdicts, Status.UNJUDGED) if "the rule itself failed" in line] == []
    assert sum(verdict.status is Status.PASSED for verdict in verdicts.values()) > len(RULES) / 2


@each([fault for fault in FAULTS if not fault.is_long])
def test_a_fault_is_found_by_its_rule_and_by_no_neighbor(fault: Fault, beside: Judged) -> None:
    holds_of(fault, beside(fault))


@long
@each(FAULTS)
def test_a_fault_is_found_by_its_rule_and_by_no_other(fault: Fault, across: Judged) -> None:
    verdicts, sound = across(fault), across(NONE)
    holds_of(fault, verdicts)
    touched = {*fault.breaks, *(name for name, verdict in verdicts.items() if verdict.status is Status.BLOCKED)}
    declares = bool(fault.added("image"))
    changed = [
        f"{verdict.rule.number} {name}: {sound[name].status} of the sound image, {verdict.status}: {verdict.seen}"
        for name, verdict in verdicts.items()
        if name not in touched and verdict.status is not sound[name].status and not (declares and applies_no_more(verdict))
    ]
    assert changed == []


def holds_of(fault: Fault, verdicts: dict[str, Verdict]) -> None:
    """Hold that a fault's own rules failed and no other, and that what is blocked is blocked by them."""
    failed = {name for name, verdict in verdicts.items() if verdict.status is Status.FAILED}
    assert failed == set(fault.breaks), told(verdicts, Status.FAILED, Status.BLOCKED, Status.UNJUDGED)
    blocked = [verdict for verdict in verdicts.values() if verdict.status is Status.BLOCKED]
    numbers = {rule.number for rule in own(fault)} | {verdict.rule.number for verdict in blocked}  # what is blocked may block
    assert [verdict.seen for verdict in blocked if verdict.seen.split(":")[0].removeprefix("blocked by ") not in numbers] == []
    assert [line for line in told(verdicts, Status.UNJUDGED) if "the rule itself failed" in line] == []


def applies_no_more(verdict: Verdict) -> bool:
    """Say whether a rule judges something that an image without a CMD, say, does not have."""
    return verdict.status is Status.NOT_APPLICABLE


def told(verdicts: dict[str, Verdict], *statuses: Status) -> list[str]:
    """Return verdicts as lines to read."""
    return [
        f"{verdict.rule.number} {name} {verdict.status}: {verdict.seen}"
        for name, verdict in verdicts.items()
        if verdict.status in statuses
    ]
