"""What jobs find that a first try on a laptop does not show: T-2, T-10 to T-12, T-14, T-15, T-20, T-21, T-33.

One job with all of it at once tells most images right; where it fails, each oddity has a job of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from local_test.emulator.jobs import TrainingJob
from local_test.rules.jobs import documents, ended_well, files, patience_s, respelled, run, why
from local_test.runners import Containers
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Unjudged, Violated

EPOCHS = 3
EXTRA = {
    "_tuning_objective_metric": "validation:rmse",
    "sagemaker_program": '"train.py"',
    "sagemaker_submit_directory": '"s3://b/code/sourcedir.tar.gz"',
    "sagemaker_region": '"us-east-1"',
    "sagemaker_job_name": '"conformance"',
    "sagemaker_container_log_level": "20",
    "sagemaker_enable_cloudwatch_metrics": "false",
}
"""Keys that nobody who wrote the container defined: a tuning job's and the SDK's (T-15)."""


@dataclass(frozen=True)
class Oddity:
    """Something that a job may find, and how a job is made that finds it."""

    what: str
    found: Callable[[TrainingJob], TrainingJob]
    applies: Callable[[Subject], None]
    """Raises DoesNotApply or Unjudged where it is nothing to this subject."""


def trains_under_an_entrypoint(subject: Subject) -> str:
    """Judge whether a job may name the program itself, and no word follows."""
    return _takes(subject, ENTRYPOINT)


def takes_declared_channels_alone(subject: Subject) -> str:
    """Judge whether manifests and FIFOs beside the channels are left alone."""
    return _takes(subject, BESIDE)


def takes_more_config(subject: Subject) -> str:
    """Judge whether config files and keys are passed over that were not there when the image was made."""
    return _takes(subject, CONFIG)


def makes_output_data(subject: Subject) -> str:
    """Judge whether a folder for other results is made where none is."""
    return _takes(subject, NO_OUTPUT)


def takes_every_spelling(subject: Subject) -> str:
    """Judge whether hyperparameters mean the same as another SDK spells them."""
    return _takes(subject, SPELLING)


def takes_the_platforms_own_keys(subject: Subject) -> str:
    """Judge whether hyperparameters that tuning jobs and SDKs add are passed over."""
    return _takes(subject, KEYS)


def reads_a_read_only_channel(subject: Subject) -> str:
    """Judge whether nothing is written into a channel."""
    return _takes(subject, READ_ONLY)


def reads_a_pipe(subject: Subject) -> str:
    """Judge whether a channel is read through FIFOs, where the owner says that it is."""
    if not subject.pipe:
        raise DoesNotApply("nobody says that it reads Pipe mode: --pipe")
    options = {subject.channel: {"TrainingInputMode": "Pipe"}}
    job = subject.job("pipe", options=options, epochs=EPOCHS)
    outcome = run(job, patience_s(subject))
    if not ended_well(job, outcome):
        names = ", ".join(path.name for path in files(job.channels[subject.channel])[:5])
        raise Violated(f"with {names} one after the other in Pipe mode, {why(outcome, patience_s(subject))}")
    return f"train read {subject.channel}_0 and on, and ended well"


def _takes(subject: Subject, oddity: Oddity) -> str:
    """Say that a job ended well that found an oddity, with others or alone."""
    oddity.applies(subject)
    if subject.once("odd", lambda: _all_at_once(subject)):
        return f"a job with {oddity.what} ended well"
    job = oddity.found(subject.job("odd"))
    outcome = run(job, patience_s(subject))
    if not ended_well(job, outcome):
        raise Violated(f"with {oddity.what}, {why(outcome, patience_s(subject))}")
    return f"a job with {oddity.what} ended well"


def _all_at_once(subject: Subject) -> bool:
    """Say whether a job ends well that finds all oddities."""
    job = subject.job("odd")
    for oddity in (ENTRYPOINT, BESIDE, CONFIG, NO_OUTPUT, SPELLING, KEYS, READ_ONLY):
        try:
            oddity.applies(subject)
        except (DoesNotApply, Unjudged):
            continue
        job = oddity.found(job)
    try:
        return ended_well(job, run(job, patience_s(subject)))
    except Violated:  # it can't be started; which oddity prevents that is seen when they come alone
        return False


def _beside(job: TrainingJob) -> TrainingJob:
    """Return a job with a manifest beside each channel, another one's, and a FIFO that nobody writes to (T-10)."""

    def prepare(base: Path) -> None:
        data = base / "input" / "data"
        for name in (*job.channels, "checkpoints"):
            (data / f"{name}-manifest").write_text(f"s3://b/{name}/\nobject-1\n")
        os.mkfifo(data / "undeclared_0")

    return replace(job, prepare=(*job.prepare, prepare))


def _more_config(job: TrainingJob) -> TrainingJob:
    """Return a job with all config files of SageMaker's, the newer keys of resourceconfig.json, another interface (T-33)."""
    group = {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": list(job.hosts)}
    resources = {
        "current_host": job.host,
        "hosts": list(job.hosts),
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "instance_groups": [group],
        "network_interface_name": "ethwe",
        "topology": None,
    }
    return replace(job, config={**job.config, **documents(job), "resourceconfig": resources})


def _without_output(job: TrainingJob) -> TrainingJob:
    return replace(job, prepare=(*job.prepare, lambda base: shutil.rmtree(base / "output" / "data")))


def _respelled(job: TrainingJob) -> TrainingJob:
    values: Mapping[str, str] = {name: respelled(value) for name, value in job.hyperparameters.items()}
    return replace(job, hyperparameters=values)


def _with_keys(job: TrainingJob) -> TrainingJob:
    return replace(job, hyperparameters={**job.hyperparameters, **EXTRA})


def _read_only(job: TrainingJob) -> TrainingJob:
    return replace(job, options={name: {"TrainingInputMode": "FastFile"} for name in job.channels})


def _under_entrypoint(job: TrainingJob) -> TrainingJob:
    return replace(job, words=(), container=(*job.container, "--entrypoint", "train"))


def _has_no_entrypoint(subject: Subject) -> None:
    if subject.containers and subject.inspected["Config"].get("Entrypoint"):
        raise DoesNotApply(
            "the image has an ENTRYPOINT of its own: a job that names another has to name a program of the image's"
        )


def _has_hyperparameters(subject: Subject) -> None:
    if not subject.hyperparameters:
        raise DoesNotApply("no hyperparameter was given to be spelled otherwise: --hyperparameter NAME=VALUE")


def _is_contained(subject: Subject) -> None:
    if not isinstance(subject.platform, Containers):
        raise Unjudged("a source tree's channel can't be mounted read-only: give an image")


def _always(subject: Subject) -> None:
    """Apply to every subject."""


ENTRYPOINT = Oddity("`--entrypoint train` and no word", _under_entrypoint, _has_no_entrypoint)
BESIDE = Oddity("manifests and an undeclared FIFO in /opt/ml/input/data", _beside, _always)
CONFIG = Oddity("more config files, newer keys in resourceconfig.json and another interface", _more_config, _always)
NO_OUTPUT = Oddity("no /opt/ml/output/data", _without_output, _always)
SPELLING = Oddity("hyperparameters as another SDK spells them", _respelled, _has_hyperparameters)
KEYS = Oddity(f"hyperparameters {', '.join(EXTRA)}", _with_keys, _always)
READ_ONLY = Oddity("a channel that is mounted read-only", _read_only, _is_contained)
TRAINS = ("trains",)
RULES = (
    Rule(
        "T-2",
        "train trains where a job names it as ContainerEntrypoint",
        Severity.SAGEMAKER,
        "Let the program train without a word behind its name: a job that sets ContainerEntrypoint passes none.",
        trains_under_an_entrypoint,
        TRAINS,
    ),
    Rule(
        "T-10",
        "channels are those of inputdataconfig.json",
        Severity.SAGEMAKER,
        "Take the channels' names from inputdataconfig.json: /opt/ml/input/data holds manifests and FIFOs beside them.",
        takes_declared_channels_alone,
        TRAINS,
    ),
    Rule(
        "T-33",
        "config files and keys that it does not know are passed over",
        Severity.SAGEMAKER,
        "Read the files and keys that you need and leave others alone; let the interface's name be what it is.",
        takes_more_config,
        TRAINS,
    ),
    Rule(
        "T-12",
        "/opt/ml/output/data may be missing",
        Severity.ELSEWHERE,
        "Make the folder before something is written there.",
        makes_output_data,
        TRAINS,
    ),
    Rule(
        "T-14",
        "hyperparameters mean the same in every spelling",
        Severity.SAGEMAKER,
        'Parse a value as JSON first, then as a bool in any case, then as it stands: 5 comes as `5` and as `"5"`.',
        takes_every_spelling,
        TRAINS,
    ),
    Rule(
        "T-15",
        "hyperparameters of tuning jobs and SDKs are passed over",
        Severity.SAGEMAKER,
        "Drop keys that begin with sagemaker_ or _tuning_ before you refuse unknown ones.",
        takes_the_platforms_own_keys,
        TRAINS,
    ),
    Rule(
        "T-20",
        "a read-only channel is read",
        Severity.SAGEMAKER,
        "Write nothing into /opt/ml/input/data, no cache and no unpacked file either: FastFile mode mounts it read-only.",
        reads_a_read_only_channel,
        TRAINS,
    ),
    Rule(
        "T-21",
        "a channel in Pipe mode is read",
        Severity.SAGEMAKER,
        "Open /opt/ml/input/data/CHANNEL_0, wait where it is not there yet, read to its end, then CHANNEL_1 for another epoch.",
        reads_a_pipe,
        TRAINS,
    ),
)
