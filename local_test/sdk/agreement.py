"""Which rules speak of the same as a step of the SDK's local mode, and where a rule asks for more and why.

A step fails if and only if a rule beside it fails, but for what local mode lets pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from local_test.sdk.steps import Step
from local_test.verdicts import Rule, Status, Verdict


@dataclass(frozen=True)
class Line:
    """A step and a rule that speak of the same."""

    step: Step
    rule: str
    """Its name."""
    seen_of: str
    """The fault of tests/subjects that shows it."""
    passes: str = ""
    """Why local mode lets pass what the rule finds; nothing where both find it."""
    found: str = ""
    """Where a rule asks for several things: what it says of that which local mode lets pass."""


LINES = (
    Line(Step.TRAIN, "train_is_a_program", "no-train-on-path"),
    Line(
        Step.TRAIN,
        "entrypoint_takes_the_word",
        "entrypoint-in-shell-form",
        "what is started without its word may do the right thing by chance; it still gets no signal",
    ),
    Line(
        Step.TRAIN,
        "entrypoint_is_no_init",
        "entrypoint-tini",
        "Docker hands tini's words on; the platform's guide says that they get lost there",
    ),
    Line(Step.TRAIN, "user_is_root", "user-is-not-root"),
    Line(Step.TRAIN, "reads_resourceconfig", "train-reads-another-name"),
    Line(Step.TRAIN, "trains_with_three_config_files", "train-wants-undocumented-files"),
    Line(Step.TRAIN, "needs_no_sm_variables", "train-wants-sm-variables"),
    Line(
        Step.TRAIN,
        "trains_without_a_network",
        "train-wants-a-route",
        "its containers have this machine's network; isolated jobs, and Marketplace's, have none",
    ),
    Line(Step.TRAIN, "trains", "train-fails"),
    Line(
        Step.TRAIN,
        "trains",
        "train-leaves-no-model",
        "a job that left no model is complete too, where it ended with exit code 0",
        "left no file",
    ),
    Line(
        Step.TRAIN,
        "leaves_plain_files",
        "train-leaves-a-link",
        "it puts what a link points to into `model.tar.gz`; an archive with links is refused on the platform",
    ),
    Line(
        Step.TRAIN,
        "reads_a_read_only_channel",
        "train-writes-into-a-channel",
        "channels are mounted so that they can be written to; FastFile's can't",
    ),
    Line(Step.FAIL, "bad_data_fails", "train-fails-with-0"),
    Line(Step.SAY_WHY, "failure_file_is_written", "train-has-no-failure-file"),
    Line(Step.NO_WORD, "bare_start_trains", "no-command"),
    Line(
        Step.NO_WORD,
        "bare_start_trains",
        "command-does-nothing",
        "a job that left no model is complete too, where it ended with exit code 0",
        "left 0 files",
    ),
    Line(Step.SERVE, "serve_is_a_program", "no-serve-on-path"),
    Line(Step.SERVE, "serve_stays", "serve-ends"),
    Line(
        Step.SERVE,
        "starts_without_network",
        "serve-wants-a-neighbor",
        "its containers have this machine's network; Marketplace's have none",
    ),
    Line(
        Step.SERVE,
        "starts_with_a_read_only_model",
        "serve-writes-beside-the-model",
        "/opt/ml/model is mounted so that it can be written to; on the platform it is to be taken for read-only",
    ),
    Line(Step.SERVE, "listens_in_time", "slow-start"),
    Line(Step.SERVE, "listens_on_the_port", "port-5000"),
    Line(Step.SERVE, "listens_on_every_interface", "bound-to-localhost"),
    Line(Step.SERVE, "ping_is_not_redirected", "ping-redirects", "it follows a redirect of /ping; the platform follows none"),
    Line(Step.SERVE, "becomes_ready", "never-ready"),
    Line(Step.SERVE, "ping_is_quick", "ping-takes-3-s", "it waits for a ping as long as that takes; the platform waits 2 s"),
    Line(
        Step.SERVE,
        "model_is_loaded_before_ping",
        "ping-loads-the-model",
        "it waits for a ping as long as that takes; the platform waits 2 s",
    ),
    Line(Step.INVOKE, "payload_is_answered", "payload-is-refused"),
    Line(
        Step.INVOKE,
        "answer_has_its_type",
        "answers-have-no-type",
        "where an answer has no Content-Type, it says that the answer is what was asked for",
    ),
    Line(Step.ANY_ACCEPT, "any_accept_will_do", "any-accept-is-refused"),
    Line(Step.SPELLED, "media_type_is_compared_alone", "media-types-with-parameters-are-refused"),
    Line(Step.INFERENCE_ID, "added_headers_make_no_difference", "added-headers-are-refused"),
    Line(Step.TRANSFORM, "batch_starts", "batch-is-not-understood"),
    Line(Step.TRANSFORM, "execution_parameters_can_be_used", "execution-parameters-are-no-json"),
    Line(
        Step.TRANSFORM,
        "execution_parameters_can_be_used",
        "execution-parameters-above-100-mb",
        "it sends one request at a time, and so allows more than 100 MB",
        "100",
    ),
    Line(Step.A_LINE, "batch_answers_the_payload", "payload-is-refused-in-batch"),
    Line(Step.A_LINE, "records_are_answered_in_order", "the-last-record-is-dropped"),
    Line(
        Step.A_LINE,
        "records_are_answered_in_order",
        "records-are-sorted",
        "as many lines in another order look alike to it",
        "is answered",
    ),
    Line(Step.NO_BLANK, "output_has_no_blank_lines", "blank-lines-in-answers"),
)


def disagreements(steps: Mapping[str, bool], verdicts: Mapping[str, Verdict]) -> list[str]:
    """Say where the rules and local mode differ otherwise than declared.

    Args:
        steps: what was tried, by its name, and whether it was done.
        verdicts: those of all rules that are named here, and of what they need, by their names.
    """
    told = []
    for step, done in steps.items():
        beside = [verdicts[rule] for rule in dict.fromkeys(line.rule for line in LINES if line.step == step)]
        causes = [cause for verdict in beside for cause in _causes(verdict, verdicts)]
        if done:
            told += [f"{step}: done, and {_told(cause)}" for cause in dict.fromkeys(causes) if not _passes(cause)]
        elif not causes and beside:
            told.append(f"{step}: failed, and no rule beside it did: {'; '.join(map(_told, beside))}")
    return told


def as_markdown(rules: Iterable[Rule]) -> str:
    """Return the table as docs/conformance.md has it."""
    known = {rule.name: rule for rule in rules}
    rows, last = ["| step of local mode | rule | beside it |", "|---|---|---|"], None
    for line in LINES:
        rule = known[line.rule]
        beside = f"asks for more: {line.passes}" if line.passes else "finds the same"
        rows.append(f"| {line.step if line.step != last else ''} | {rule.number} {rule.title} | {beside} |")
        last = line.step
    return "\n".join(rows).replace("*", r"\*") + "\n"


def _causes(verdict: Verdict, verdicts: Mapping[str, Verdict], seen: Sequence[Verdict] = ()) -> Iterator[Verdict]:
    """Yield what failed: the verdict itself, or that by which it is blocked."""
    if verdict.status is Status.FAILED:
        yield verdict
    if verdict.status is not Status.BLOCKED or verdict in seen:
        return
    number = verdict.seen.removeprefix("blocked by ").split(":")[0]
    same = [other for other in verdicts.values() if other.rule.number == number]
    failed = [other for other in same if other.status is Status.FAILED]
    for other in failed or same:
        yield from _causes(other, verdicts, (*seen, verdict))


def _passes(verdict: Verdict) -> bool:
    """Say whether local mode lets pass what a rule found."""
    return any(
        line.passes and line.rule == verdict.rule.name and re.search(line.found, verdict.seen) is not None for line in LINES
    )


def _told(verdict: Verdict) -> str:
    return f"{verdict.rule.number} {verdict.rule.name} {verdict.status}: {verdict.seen[:200]}"
