"""Every rule of the platforms against any image: `python -m local_test conformance IMAGE`. It knows no more than the contract.

A rule whose need was not met reads "blocked by" that rule's number: neither passed nor failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from local_test.arguments import add_what_is_given, payload_of, platform_of
from local_test.rules import RULES
from local_test.subject import Subject
from local_test.verdicts import Blocked, DoesNotApply, Rule, Severity, Status, Unjudged, Verdict, Violated

MOST_SEEN = 2_000
"""Characters of evidence in a report; a table shows its first line."""
NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, and the carriage return, which a reader would turn into a new line."""
WASTEFUL = Severity.WASTEFUL.name.lower()
GRAVEST = {severity.name.lower(): tuple(Severity)[: number + 1] for number, severity in enumerate(Severity)}
"""A severity's word, and those that are as grave or graver: what fails on SageMaker fails on Marketplace too."""


def judge(subject: Subject, rules: Sequence[Rule], every: Sequence[Rule] = RULES) -> Iterator[Verdict]:
    """Yield a verdict for each rule, in the order of the table of `every` rule, and one for each rule that they need."""
    verdicts: dict[str, Verdict] = {}
    for rule in _with_needs(rules, every):
        verdict = _blocked(rule, verdicts) or _verdict(rule, subject)
        verdicts[rule.name] = verdict
        yield verdict


def chosen(
    only: Sequence[str] = (), platforms: Sequence[str] = (), every: Sequence[Rule] = RULES, *, severity: str = WASTEFUL
) -> list[Rule]:
    """Return the rules of some numbers and platforms that are at least as grave as one severity; all where none is named.

    Raises:
        RuntimeError: there is no such rule; the message has what there is.
    """
    found = [
        rule
        for rule in every
        if (not only or rule.number in only or rule.name in only)
        and (not platforms or rule.platform in platforms)
        and rule.severity in GRAVEST[severity]
    ]
    if not found:
        there = ", ".join(dict.fromkeys(rule.number for rule in every))
        raise RuntimeError(f"No rule is named {' '.join([*only, *platforms])}{_as_grave(severity)}. There are: {there}.")
    return found


def table(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as lines to read, and what to do about those that failed."""
    lines = [f"{v.rule.number:<6}{v.status:<16}{v.rule.title}{_first_line(v)}" for v in verdicts]
    for verdict in verdicts:
        if verdict.status is Status.FAILED:
            told = f"\n{verdict.rule.number} {verdict.rule.title}: {verdict.rule.severity}\n  found: {verdict.seen}"
            lines.append(f"{told}\n  do: {verdict.rule.fix}")
    counts = {status: sum(verdict.status is status for verdict in verdicts) for status in Status}
    lines.append("\n" + ", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return "\n".join(lines)


def to_json(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts for programs."""
    return json.dumps([_facts(verdict) for verdict in verdicts], indent=1) + "\n"


def to_junit(verdicts: Sequence[Verdict], image: str) -> str:
    """Return verdicts as JUnit XML, which continuous integration shows: what was not judged counts as skipped."""
    failed = sum(verdict.status is Status.FAILED for verdict in verdicts)
    passed = sum(verdict.status is Status.PASSED for verdict in verdicts)
    counts = {"tests": len(verdicts), "failures": failed, "skipped": len(verdicts) - failed - passed}
    about: dict[str, str] = {"name": image, **{name: str(count) for name, count in counts.items()}}
    suite = ET.Element("testsuite", about)
    for verdict in verdicts:
        rule = verdict.rule
        case = ET.SubElement(suite, "testcase", classname=rule.platform, name=f"{rule.number} {rule.title}")
        case.set("time", f"{verdict.seconds:.3f}")
        if verdict.status is Status.FAILED:
            failure = ET.SubElement(case, "failure", message=_printable(verdict.seen), type=rule.severity)
            failure.text = _printable(rule.fix)
        elif verdict.status is not Status.PASSED:
            ET.SubElement(case, "skipped", message=_printable(f"{verdict.status}: {verdict.seen}"))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def conformance(arguments: argparse.Namespace, every: Sequence[Rule] = RULES) -> int:
    """Judge an image: print a line a rule while it goes on, then a table; return how many rules failed, at most 100.

    Raises:
        RuntimeError: there is no such image, or no such rule.
        OSError: a file that was given can't be read.
    """
    platform = platform_of(arguments)
    rules = chosen(arguments.only, arguments.platform, every, severity=arguments.severity)
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="berth-conformance-", ignore_cleanup_errors=True) as folder:
        subject = Subject(
            platform,
            Path(folder),
            train_data=arguments.train_data,
            channel=arguments.channel,
            payload=payload_of(arguments),
            model_tar=arguments.model,
            hyperparameters=dict(arguments.hyperparameter),
            environ=dict(arguments.env),
            start_s=arguments.start_seconds,
            train_s=arguments.train_seconds,
            distributed=arguments.distributed,
            pipe=arguments.pipe,
            asked=frozenset(arguments.platform),
        )
        with contextlib.closing(subject):
            for verdict in judge(subject, rules, every):
                verdicts.append(verdict)
                print(f"{verdict.rule.number:<6}{verdict.status:<16}{verdict.seconds:6.1f} s  {verdict.rule.title}", flush=True)
    print("\n" + table(verdicts))
    if arguments.junit:
        arguments.junit.write_text(to_junit(verdicts, arguments.image or "source tree"), encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(to_json(verdicts), encoding="utf-8")
    return min(100, sum(verdict.status is Status.FAILED for verdict in verdicts))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `conformance` takes."""
    add_what_is_given(parser, what="to judge", without_data="training isn't judged", train_s=120)
    parser.add_argument("--distributed", action="store_true", help="say that it trains on several hosts")
    parser.add_argument("--pipe", action="store_true", help="say that it reads Pipe mode")
    parser.add_argument(
        "--only", action="append", default=[], metavar="RULE", help="a rule's number, such as H-8, and its needs"
    )
    parser.add_argument(
        "--platform", action="append", default=[], help="only sagemaker, vertex, azure, kserve or cloudrun; claimed or not"
    )
    parser.add_argument(
        "--severity",
        choices=GRAVEST,
        default="wasteful",
        help="only what is at least as grave: marketplace has SageMaker's too",
    )
    parser.add_argument("--junit", type=Path, help="write JUnit XML here")
    parser.add_argument("--json", type=Path, help="write JSON here")


def _as_grave(severity: str) -> str:
    return "" if severity == WASTEFUL else f" and as grave as {severity}"


def _with_needs(rules: Sequence[Rule], every: Sequence[Rule]) -> list[Rule]:
    """Return rules and what they need, and that needs, in the table's order."""
    wanted = {rule.name for rule in rules}
    for rule in reversed(every):  # a need stands earlier in the table
        if rule.name in wanted:
            wanted |= set(rule.needs)
    return [rule for rule in every if rule.name in wanted]


def _blocked(rule: Rule, verdicts: dict[str, Verdict]) -> Verdict | None:
    """Return the verdict of a rule whose need is not there; it names the rule that failed first."""
    for need in rule.needs:
        found = verdicts[need]
        if found.status is Status.FAILED:
            return Verdict(rule, Status.BLOCKED, f"blocked by {found.rule.number}")
        if found.status in {Status.BLOCKED, Status.NOT_APPLICABLE, Status.UNJUDGED}:
            return Verdict(rule, found.status, found.seen)
    return None


def _verdict(rule: Rule, subject: Subject) -> Verdict:
    started = time.monotonic()
    try:
        status, seen = Status.PASSED, rule.check(subject)
    except Violated as error:
        status, seen = Status.FAILED, str(error)
    except Blocked as error:
        status, seen = Status.BLOCKED, f"blocked by {error}"
    except DoesNotApply as error:
        status, seen = Status.NOT_APPLICABLE, str(error)
    except Unjudged as error:
        status, seen = Status.UNJUDGED, str(error)
    except PermissionError as error:  # a container's user wrote it for nobody else
        status, seen = Status.UNJUDGED, f"{error.filename or error} can't be read by this user; run as root"
    except OSError as error:  # what the container did to a connection
        status, seen = Status.FAILED, f"{type(error).__name__}: {error}"
    except Exception as error:  # ours: it must not pass for the image's fault
        status, seen = Status.UNJUDGED, f"the rule itself failed: {''.join(traceback.format_exception_only(error)).strip()}"
    return Verdict(rule, status, seen[:MOST_SEEN], time.monotonic() - started)


def _first_line(verdict: Verdict) -> str:
    shown = verdict.status is not Status.PASSED and verdict.seen
    return f" ({verdict.seen.splitlines()[0][:150]})" if shown else ""


def _facts(verdict: Verdict) -> dict[str, object]:
    rule = verdict.rule
    told = {"number": rule.number, "name": rule.name, "title": rule.title, "severity": rule.severity, "platform": rule.platform}
    return {**told, "status": verdict.status, "seen": verdict.seen, "fix": rule.fix, "seconds": round(verdict.seconds, 3)}


def _printable(text: str) -> str:
    """Return a text as XML can hold it."""
    return NOT_XML.sub("?", text)
