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
START_S = 15
AT_ONCE = 3
"""Images that are judged side by side: most of a judgement is waiting."""
GOOD = b"0.00632,18,2.31,0,0.538,6.575,65.2,4.09,1,296,15.3,396.9,4.98\n"
PAYLOAD = Payload(GOOD + GOOD.replace(b"6.575", b"4.575") + GOOD.replace(b"6.575", b"5.575"), "text/csv")
Judge = Callable[[str, Sequence[Rule]], list[Verdict]]


def module_of(rule: Rule) -> str:
    """Return the module a rule stands in."""
    return rule.check.__module__


def own(fault: Fault) -> list[Rule]:
    """Return the rules that are to find a fault."""
    return [rule for rule in RULES if rule.name in fault.breaks]


def neighbors(fault: Fault) -> list[Rule]:
    """Return the rules of the modules in which those stand."""
    modules = {module_of(rule) for rule in own(fault)}
    return [rule for rule in RULES if module_of(rule) in modules]


@pytest.fixture(scope="module")
def sound(docker: str) -> Iterator[str]:
    """The image without a fault."""
    build_sound(docker)
    return SOUND_IMAGE


@pytest.fixture(scope="module")
def model_tar(sound: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the sound image's."""
    folder = tmp_path_factory.mktemp("sound")
    with contextlib.closing(Subject(Containers(sound), folder, train_data=SAMPLE)) as subject:
        path = folder / "model.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(subject.model / "model.json", "model.json")
    return path


def verdicts_of(image: str, rules: Sequence[Rule], folder: Path, model_tar: Path | None) -> dict[str, Verdict]:
    """Judge an image as its owner would have it judged."""
    subject = Subject(
        Containers(image),
        folder,
        train_data=SAMPLE,
        payload=PAYLOAD,
        model_tar=model_tar,
        hyperparameters={"epochs": "1000"},
        start_s=START_S,
    )
    with contextlib.closing(subject):
        return {verdict.rule.name: verdict for verdict in judge(subject, rules)}


Judged = Callable[[Fault], dict[str, Verdict]]


@contextlib.contextmanager
def side_by_side(
    docker: str, wanted: Sequence[Fault], folder: Path, rules: Callable[[Fault], Sequence[Rule]], model_tar: Path | None
) -> Iterator[Judged]:
    """Give a function that returns what is said of a fault's image: they are judged in threads."""

    def work(fault: Fault) -> dict[str, Verdict]:
        scratch = folder / fault.name
        scratch.mkdir()
        return verdicts_of(fault.image, rules(fault), scratch, model_tar)

    load(docker, wanted, folder)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun: dict[str, Future[dict[str, Verdict]]] = {fault.name: pool.submit(work, fault) for fault in wanted}
        try:
            yield lambda fault: begun[fault.name].result()
        finally:
            pool.shutdown(cancel_futures=True)
            remove(docker, wanted)


def wanted_by(request: pytest.FixtureRequest, test: str) -> list[Fault]:
    """Return the faults that the session's tests ask for."""
    items = [item for item in request.session.items if item.name.startswith(f"{test}[")]
    return [item.callspec.params["fault"] for item in items]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def beside(docker: str, model_tar: Path, tmp_path_factory, request: pytest.FixtureRequest) -> Iterator[Judged]:
    """What a fault's own rules and their neighbors say."""
    wanted = wanted_by(request, test_a_fault_is_found_by_its_rule_and_by_no_neighbor.__name__)
    with side_by_side(docker, wanted, tmp_path_factory.mktemp("faults"), neighbors, model_tar) as judged:
        yield judged


@pytest.fixture(scope="module")
def across(docker: str, sound: str, tmp_path_factory, request: pytest.FixtureRequest) -> Iterator[Judged]:
    """What all rules say of a fault's image."""
    wanted = wanted_by(request, test_a_fault_is_found_by_its_rule_and_by_no_other.__name__)
    with side_by_side(docker, wanted, tmp_path_factory.mktemp("faults"), lambda fault: RULES, None) as judged:
        yield judged


@pytest.fixture(scope="module")
def of_sound(sound: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """What all rules say of the sound image."""
    return verdicts_of(sound, RULES, tmp_path_factory.mktemp("sound-judged"), None)


each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def test_there_are_thirty_faults_and_each_names_rules_that_there_are() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 30
    names = {rule.name for rule in RULES}
    assert [name for fault in FAULTS for name in fault.breaks if name not in names] == []


def test_a_sound_container_that_is_not_berth_passes_every_rule_that_applies(of_sound: dict[str, Verdict]) -> None:
    assert told(of_sound, Status.FAILED, Status.BLOCKED) == []
    assert [line for line in told(of_sound, Status.UNJUDGED) if "the rule itself failed" in line] == []
    assert sum(verdict.status is Status.PASSED for verdict in of_sound.values()) > len(RULES) / 2


@each_fault
def test_a_fault_is_found_by_its_rule_and_by_no_neighbor(fault: Fault, beside: Judged) -> None:
    holds_of(fault, beside(fault))


@long
@each_fault
def test_a_fault_is_found_by_its_rule_and_by_no_other(fault: Fault, across: Judged, of_sound: dict[str, Verdict]) -> None:
    verdicts = across(fault)
    holds_of(fault, verdicts)
    touched = {*fault.breaks, *(name for name, verdict in verdicts.items() if verdict.status is Status.BLOCKED)}
    changed = [
        f"{verdict.rule.number} {name}: {of_sound[name].status} of the sound image, {verdict.status}: {verdict.seen}"
        for name, verdict in verdicts.items()
        if name not in touched and verdict.status is not of_sound[name].status
    ]
    assert changed == []


def holds_of(fault: Fault, verdicts: dict[str, Verdict]) -> None:
    """Hold that a fault's own rules failed and no other, and that what is blocked is blocked by them."""
    numbers = {rule.number for rule in own(fault)}
    failed = {name for name, verdict in verdicts.items() if verdict.status is Status.FAILED}
    assert failed == set(fault.breaks), told(verdicts, Status.FAILED, Status.BLOCKED, Status.UNJUDGED)
    blocked = [verdict for verdict in verdicts.values() if verdict.status is Status.BLOCKED]
    assert [verdict.seen for verdict in blocked if verdict.seen.split(":")[0].removeprefix("blocked by ") not in numbers] == []
    assert [line for line in told(verdicts, Status.UNJUDGED) if "the rule itself failed" in line] == []


def told(verdicts: dict[str, Verdict], *statuses: Status) -> list[str]:
    """Return verdicts as lines to read."""
    return [
        f"{verdict.rule.number} {name} {verdict.status}: {verdict.seen}"
        for name, verdict in verdicts.items()
        if verdict.status in statuses
    ]
