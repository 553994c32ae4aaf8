"""Why an endpoint or a training job would fail, in plain words: `python -m local_test doctor IMAGE`."""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from local_test.arguments import add_what_is_given, payload_of, platform_of
from local_test.doctor.causes import Finding, diagnose
from local_test.doctor.observations import Observations
from local_test.doctor.watching import watch_serving, watch_training
from local_test.emulator import lay_out
from local_test.runners import Containers, Processes

FIRST_LINES = 5
MIB = 2**20


def doctor(arguments: argparse.Namespace) -> int:
    """Start an image as the platform does, print what is wrong and what to do; return 0 where nothing was found, else 1.

    Raises:
        RuntimeError: there is no such image.
        OSError: a file that was given can't be read.
    """
    options = ("--memory", arguments.memory) if arguments.memory else ()
    platform = platform_of(arguments, options)
    healthy = True
    with tempfile.TemporaryDirectory(prefix="berth-doctor-", ignore_cleanup_errors=True) as folder:
        for seen in _watched(platform, arguments, Path(folder)):
            findings = diagnose(seen)
            print(report(seen, findings), flush=True)
            healthy = healthy and not findings
    return 0 if healthy else 1


def report(seen: Observations, findings: list[Finding]) -> str:
    """Return what was found as lines to read: how it went, each cause with evidence and fix, what was looked at."""
    lines = [f"{seen.word}: {_course(seen)}"]
    for number, finding in enumerate(findings, 1):
        rule = f" ({finding.cause.number})" if finding.cause.number else ""
        lines += [f"  {number}. {finding.cause.name}{rule}", _indented("seen", finding.evidence)]
        lines.append(_indented("do", finding.cause.fix))
    if not findings:
        lines.append("  Nothing wrong was found.")
    lines.append(_indented("looked at", "; ".join(_facts(seen))))
    if seen.failed and seen.output.strip():
        lines.append(_indented("it began", "\n".join(seen.output.strip().splitlines()[:FIRST_LINES])))
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `doctor` takes: as `conformance`, where it makes sense."""
    add_what_is_given(parser, what="is ill", without_data="only serve is started", train_s=300)
    parser.add_argument("--memory", default="", help="as much as the instance has, such as 4g: a limit for the container")


def unpack(archive: Path, folder: Path) -> tuple[tuple[str, ...], str]:
    """Unpack a model as far as that can be, and return the links in it, which are left out, and what hindered."""
    try:
        with tarfile.open(archive) as opened:
            members = opened.getmembers()
            links = tuple(f"{member.name} -> {member.linkname}" for member in members if member.issym() or member.islnk())
            opened.extractall(folder, [member for member in members if member.isfile() or member.isdir()], filter="data")
            return links, ""
    except (tarfile.TarError, EOFError) as error:
        return (), f"{archive.name}: {error}"


def _watched(platform: Containers | Processes, arguments: argparse.Namespace, folder: Path) -> Iterator[Observations]:
    """Yield what was seen of `train`, where there is data, and of `serve`, where there is something to serve."""
    environ = dict(arguments.env)
    model = folder / "served" / "model"
    links: tuple[str, ...] = ()
    unreadable = ""
    if arguments.train_data:
        base = folder / "trained"
        lay_out(base, {arguments.channel: arguments.train_data}, dict(arguments.hyperparameter))
        trained = watch_training(platform, base, environ, arguments.train_seconds, arguments.channel)
        yield trained
        if not arguments.model and not trained.artifacts:
            return
        model = base / "model"
    if arguments.model:
        model = folder / "served" / "model"
        model.mkdir(parents=True)
        links, unreadable = unpack(arguments.model, model)
    model.mkdir(parents=True, exist_ok=True)
    served = watch_serving(platform, model, environ, arguments.start_seconds, payload_of(arguments))
    yield replace(served, model_links=links, model_unreadable=unreadable)


def _course(seen: Observations) -> str:
    """Return in a few words how it went."""
    if seen.refused:
        return "the container could not be started"
    if seen.ended:
        when = f"it ended after {seen.seconds:.1f} s with exit code {seen.exit_code}"
        return f"{when}, before /ping answered 200" if seen.word == "serve" and not seen.is_ready else when
    if seen.word == "train":
        return f"it still ran after {seen.seconds:.0f} s, and was stopped (--train-seconds)"
    return f"ready after {seen.ready_s:.1f} s" if seen.ready_s is not None else f"not ready after {seen.seconds:.0f} s"


def _facts(seen: Observations) -> Iterator[str]:
    """Yield what was looked at, and what was not."""
    if seen.entry:
        yield f"the file it begins with, {seen.entry.path or seen.entry.asked}"
    if seen.word == "serve":
        yield from _facts_of_server(seen)
    if seen.memory:
        limit = f" of {seen.memory.limit_bytes / MIB:.0f}" if seen.memory.limit_bytes else ", without a limit (--memory)"
        yield f"memory: {seen.memory.used_bytes / MIB:.0f} MiB{limit}"
    if seen.architecture and not seen.refused:
        yield f"packets that wanted to leave it: {seen.without_route}"
        yield f"files written outside /tmp: {', '.join(seen.written[:5]) or 'none'}"
    if not seen.architecture:
        yield "as processes of this machine: not its memory, its network and what it writes"
    if seen.stop_s is not None:
        yield f"SIGTERM: ended after {seen.stop_s:.1f} s"
    if seen.word == "train":
        yield f"/opt/ml/model: {len(seen.artifacts)} files"
    yield f"log: {len(seen.output.splitlines())} lines"


def _facts_of_server(seen: Observations) -> Iterator[str]:
    if seen.is_alive and seen.listeners is None:
        yield "where it listens can't be seen from here"
    elif seen.is_alive:
        yield f"listens on {', '.join(map(str, sorted(seen.listeners or ()))) or 'nothing'}"
    if seen.early_pings:
        slowest = max(answer.seconds for answer in seen.early_pings)
        yield f"{len(seen.early_pings)} pings, the slowest {1000 * slowest:.0f} ms"
    if seen.busy_ping:
        yield f"a ping while a request was open: {seen.busy_ping}"
    if seen.invoked:
        yield f"{'the payload' if seen.has_payload else 'an empty request (no --payload)'}: {seen.invoked}"
    if seen.large:
        yield f"a body of 2 MB: {seen.large}"


def _indented(name: str, text: str) -> str:
    first, *others = text.splitlines() or [""]
    return "\n".join([f"     {name}: {first}", *(f"       {line}" for line in others)])
