"""How images are judged: what each outcome of a rule reads as, what is blocked, and the three forms of a report."""

from __future__ import annotations

import argparse
import json
import tarfile
import xml.dom.minidom

import pytest

from local_test.conformance import add_arguments, chosen, conformance, judge, table, to_json, to_junit
from local_test.rules import RULES
from local_test.runners import Containers, Processes
from local_test.subject import Subject
from local_test.verdicts import Blocked, DoesNotApply, Rule, Severity, Status, Unjudged, Violated

HOSTILE = 'ends <b>& "so" ]]> \x00\x1b[31m\ud800\ufffe\r end'


def holds(subject):
    return "seen to hold"


def breaks(subject):
    raise Violated("found the wrong thing\nand more of it")


def wants_nothing(subject):
    raise DoesNotApply("the image has no such label")


def sees_nothing(subject):
    raise Unjudged("no payload was given: --payload FILE")


def finds_another(subject):
    raise Blocked("H-2: it listens elsewhere")


def is_wrong_itself(subject):
    return {}["a mistake of the rule's"]


def meets_a_cut_connection(subject):
    raise ConnectionResetError("peer")


def needs_breaks(subject):
    raise AssertionError("it is blocked, and was asked")


def needs_needs_breaks(subject):
    raise AssertionError("it is blocked, and was asked")


def needs_wants_nothing(subject):
    raise AssertionError("it does not apply, and was asked")


def prints_what_xml_cannot_hold(subject):
    raise Violated(HOSTILE)


def rule(check, number="H-1", needs=(), platform="sagemaker"):
    return Rule(number, check.__name__.replace("_", " "), Severity.SAGEMAKER, f"mend {check.__name__}", check, needs, platform)


TABLE = (
    rule(holds, "T-1"),
    rule(breaks, "H-2"),
    rule(wants_nothing, "H-23"),
    rule(sees_nothing, "H-11"),
    rule(finds_another, "H-7"),
    rule(is_wrong_itself, "H-9"),
    rule(meets_a_cut_connection, "H-12"),
    rule(needs_breaks, "H-8", ("holds", "breaks")),
    rule(needs_needs_breaks, "V-1", ("needs_breaks",), "vertex"),
    rule(needs_wants_nothing, "H-24", ("wants_nothing",)),
)


@pytest.fixture
def subject(tmp_path):
    return Subject(Processes(), tmp_path)


@pytest.fixture
def verdicts(subject):
    return list(judge(subject, TABLE, TABLE))


@pytest.fixture
def told(verdicts):
    """What is said of each rule, by its name."""
    return {verdict.rule.name: (verdict.status, verdict.seen) for verdict in verdicts}


# ---- what each outcome reads as


@pytest.mark.parametrize(
    ("name", "status", "seen"),
    [
        ("holds", Status.PASSED, "seen to hold"),
        ("breaks", Status.FAILED, "found the wrong thing\nand more of it"),
        ("wants_nothing", Status.NOT_APPLICABLE, "the image has no such label"),
        ("sees_nothing", Status.UNJUDGED, "no payload was given: --payload FILE"),
        ("finds_another", Status.BLOCKED, "blocked by H-2: it listens elsewhere"),
        ("meets_a_cut_connection", Status.FAILED, "ConnectionResetError: peer"),
        ("needs_breaks", Status.BLOCKED, "blocked by H-2"),
        ("needs_needs_breaks", Status.BLOCKED, "blocked by H-2"),
        ("needs_wants_nothing", Status.NOT_APPLICABLE, "the image has no such label"),
    ],
)
def test_an_outcome_reads_as_what_it_is(told, name, status, seen):
    assert told[name] == (status, seen)


def test_every_rule_has_a_name_of_its_own_and_stands_after_what_it_needs() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert [(rule.name, need) for place, rule in enumerate(RULES) for need in rule.needs if need not in names[:place]] == []


def test_a_mistake_of_ours_is_not_told_as_the_images(told):
    status, seen = told["is_wrong_itself"]
    assert status is Status.UNJUDGED
    assert seen == 'the rule itself failed: KeyError: "a mistake of the rule\'s"'


def test_every_rule_has_one_verdict_in_the_tables_order(verdicts):
    assert [verdict.rule for verdict in verdicts] == list(TABLE)


def test_a_rule_alone_is_judged_with_what_it_needs_and_no_other(subject):
    only = chosen(["V-1"], every=TABLE)
    assert [verdict.rule.name for verdict in judge(subject, only, TABLE)] == [
        "holds",
        "breaks",
        "needs_breaks",
        "needs_needs_breaks",
    ]


def test_rules_are_chosen_by_number_by_name_and_by_platform():
    assert [found.name for found in chosen(["H-2", "holds"], every=TABLE)] == ["holds", "breaks"]
    assert [found.name for found in chosen(platforms=["vertex"], every=TABLE)] == ["needs_needs_breaks"]
    assert chosen(every=TABLE) == list(TABLE)


def test_rules_are_chosen_by_how_grave_they_are_and_what_is_graver_is_among_them() -> None:
    graveness = [Severity.SAGEMAKER, Severity.MARKETPLACE, Severity.ELSEWHERE, Severity.WASTEFUL]
    every = [Rule(f"H-{number}", "holds", one, "", holds) for number, one in enumerate(graveness, 1)]
    found = {word: len(chosen(every=every, severity=word)) for word in ("sagemaker", "marketplace", "elsewhere", "wasteful")}
    assert found == {"sagemaker": 1, "marketplace": 2, "elsewhere": 3, "wasteful": 4}
    with pytest.raises(RuntimeError, match="No rule is named H-2 and as grave as sagemaker"):
        chosen(["H-2"], every=every, severity="sagemaker")


def test_a_number_that_no_rule_has_is_answered_with_those_there_are():
    with pytest.raises(RuntimeError, match=r"No rule is named H-99\. There are: T-1, H-2, H-23,"):
        chosen(["H-99"], every=TABLE)


def test_what_cannot_be_made_is_asked_for_once_and_refused_to_all(subject):
    asked = []

    def make():
        asked.append(1)
        raise Violated("no model")

    for _ in range(3):
        with pytest.raises(Violated, match="no model"):
            subject.once("model", make)
    assert len(asked) == 1


ENGINE = """#!/bin/sh
case "$1" in
  inspect) echo 203.0.113.7/24 ;;
  rm) echo "$3" >> "$0.removed" ;;
  *) echo started ;;
esac
"""
"""Of a machine of its own: its containers have addresses in a network that this machine is not in."""


def test_containers_that_cannot_be_reached_are_not_judged_and_not_left_running(tmp_path):
    engine_of_another = tmp_path / "engine"
    engine_of_another.write_text(ENGINE)
    engine_of_another.chmod(0o755)
    subject = Subject(Containers("an:image", str(engine_of_another)), tmp_path, start_s=1)
    with pytest.raises(Unjudged, match=r"can't be reached from here: this machine has no address in 203\.0\.113\.7/24"):
        _ = subject.first_start
    assert (tmp_path / "engine.removed").read_text().startswith("berth-")


# ---- the reports


def test_the_table_tells_of_a_failure_what_was_found_and_what_to_do(verdicts):
    lines = table(verdicts).splitlines()
    assert lines[0] == "T-1   passed          holds"
    assert lines[1] == "H-2   failed          breaks (found the wrong thing)"
    assert lines[7] == "H-8   blocked         needs breaks (blocked by H-2)"
    found = lines.index("H-2 breaks: fails on SageMaker")
    assert lines[found + 1 : found + 4] == ["  found: found the wrong thing", "and more of it", "  do: mend breaks"]
    assert lines[-1] == "1 passed, 2 failed, 3 blocked, 2 not applicable, 2 not judged"


def test_the_json_holds_what_the_table_holds(verdicts):
    read = json.loads(to_json(verdicts))
    assert [(row["number"], row["name"], row["status"]) for row in read] == [
        (verdict.rule.number, verdict.rule.name, str(verdict.status)) for verdict in verdicts
    ]
    assert (read[1]["seen"], read[1]["fix"], read[1]["severity"]) == (
        "found the wrong thing\nand more of it",
        "mend breaks",
        "fails on SageMaker",
    )


def test_a_reader_of_junit_counts_what_was_judged_and_finds_each_failure(verdicts):
    suite = xml.dom.minidom.parseString(to_junit(verdicts, "an:image")).documentElement
    cases = suite.getElementsByTagName("testcase")
    counted = {name: len(suite.getElementsByTagName(tag)) for name, tag in (("failures", "failure"), ("skipped", "skipped"))}
    assert {name: int(suite.getAttribute(name)) for name in counted} == counted == {"failures": 2, "skipped": 7}
    assert (suite.getAttribute("name"), int(suite.getAttribute("tests")), len(cases)) == ("an:image", 10, 10)
    failure = cases[1].getElementsByTagName("failure")[0]
    assert failure.getAttribute("message").split() == ["found", "the", "wrong", "thing", "and", "more", "of", "it"]
    assert failure.firstChild.data == "mend breaks"
    assert cases[8].getAttribute("classname") == "vertex"


def test_a_report_holds_whatever_a_container_printed(subject, tmp_path):
    hostile = (rule(prints_what_xml_cannot_hold),)
    verdicts = list(judge(subject, hostile, hostile))
    (tmp_path / "junit.xml").write_text(to_junit(verdicts, "an:image"), encoding="utf-8")
    (tmp_path / "report.json").write_text(to_json(verdicts), encoding="utf-8")
    failure = xml.dom.minidom.parse(str(tmp_path / "junit.xml")).getElementsByTagName("failure")[0]
    assert failure.getAttribute("message") == 'ends <b>& "so" ]]> ??[31m??? end'
    assert json.loads((tmp_path / "report.json").read_text())[0]["seen"] == HOSTILE


# ---- the program


def run(*words, every=TABLE):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return conformance(parser.parse_args(words), every)


def test_the_exit_status_counts_failures_and_nothing_else(capsys):
    assert run() == 2
    assert run("--only", "H-2") == 1
    assert run("--only", "H-11", "--only", "H-24") == 0
    assert "1 not applicable" not in capsys.readouterr().out.splitlines()[-1]


def test_a_line_comes_for_each_rule_while_it_goes_on_and_reports_are_written(capsys, tmp_path):
    run("--only", "T-1", "--only", "H-2", "--junit", str(tmp_path / "j.xml"), "--json", str(tmp_path / "j.json"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["T-1", "H-2"]
    assert xml.dom.minidom.parse(str(tmp_path / "j.xml")).documentElement.getAttribute("name") == "source tree"
    assert len(json.loads((tmp_path / "j.json").read_text())) == 2


def test_an_engine_that_is_not_there_stops_the_run():
    with pytest.raises(FileNotFoundError, match="there-is-no-such-engine"):
        run("an:image", "--engine", "there-is-no-such-engine")


# ---- the table of rules itself


def test_no_two_rules_have_the_same_name():
    names = [found.name for found in RULES]
    assert len(set(names)) == len(names)


def test_what_a_rule_needs_stands_before_it():
    names = [found.name for found in RULES]
    late = {(found.name, need) for found in RULES for need in found.needs if need not in names[: names.index(found.name)]}
    assert late == set()


def test_a_rule_says_in_its_title_what_holds_and_in_its_fix_what_to_do():
    assert [found.name for found in RULES if len(found.title) > 90 or found.title.endswith(".")] == []
    assert [found.name for found in RULES if not found.fix.endswith((".", "]"))] == []


def test_rules_of_containers_are_not_judged_of_a_source_tree(subject):
    alone = {"user_is_root", "architecture_is_amd64", "holds_no_secret", "serves_read_only", "unknown_word_is_refused"}
    for found in RULES:
        if found.name in alone:
            with pytest.raises(Unjudged, match="a source tree was given"):
                found.check(subject)


def test_this_source_tree_is_ready_and_answers_its_ping(model_dir, tmp_path):
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in model_dir.iterdir():
            tar.add(path, path.name)
    words = ["--only", "H-8", "--only", "H-7", "--model", str(archive), "--json", str(tmp_path / "report.json")]
    assert run(*words, every=RULES) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["status"] for row in report if row["number"] in {"H-7", "H-8"}} == {"passed"}


def test_an_engine_is_a_program_that_can_be_named():
    assert Containers("an:image", "podman").docker == "podman"
