"""Whether `train` trains, and what it needs for that which no platform gives: T-1, T-9, T-11, T-17, T-32, H-4, T-37, T-39."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from local_test.emulator import Outcome
from local_test.emulator.jobs import TrainingJob
from local_test.rules.image import starts_as_root
from local_test.rules.jobs import documents, ended_well, files, was_cut, why
from local_test.runners import Containers
from local_test.subject import Subject
from local_test.verdicts import Blocked, Rule, Severity, Unjudged, Violated

VARIED_S = 60
"""How long a job may take that is only to show why another fails."""
TOLD_APART_S = 2.0
"""A job has to take as long, for lines that come as they are printed to be told from lines that come at the end."""
AT_ONCE_S = 0.3
OURS = re.compile(r"/(opt/ml|tmp|state|dev|proc|sys|run)(/|$)|/etc/(hosts|hostname|resolv\.conf|mtab)$")
"""Where `train` may write, and what engines make themselves."""


UNCONNECTED = re.compile(
    r"name or service not known|failure in name resolution|could not resolve host|network is unreachable|no route to host"
    r"|\b(ENOTFOUND|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH)\b|UnknownHostException",  # a FileNotFoundError is no ENOTFOUND
    re.IGNORECASE,
)
"""How programs say that there is no network."""


@dataclass(frozen=True)
class Need:
    """Something that no platform promises, and a job that has it nevertheless."""

    number: str
    what: str
    given: Callable[[TrainingJob], TrainingJob]


def reads_resourceconfig(subject: Subject) -> str:
    """Judge whether the file's name is taken as the platform writes it, all in lower case."""
    return _does_not_need(subject, RESOURCE_CONFIG)


def trains_with_three_config_files(subject: Subject) -> str:
    """Judge whether a job needs no config file beyond those that SDK local mode writes too."""
    return _does_not_need(subject, MORE_CONFIG)


def needs_no_sm_variables(subject: Subject) -> str:
    """Judge whether a job needs none of the variables that only the toolkits set."""
    return _does_not_need(subject, SM_VARIABLES)


def trains_without_a_network(subject: Subject) -> str:
    """Judge whether a job needs no network."""
    if not isinstance(subject.platform, Containers):
        raise Unjudged("a source tree runs with this machine's network: give an image")
    return _does_not_need(subject, NETWORK)


def trains(subject: Subject) -> str:
    """Judge whether `docker run IMAGE train` trains."""
    base, outcome = subject.trained
    if outcome.exit_code:
        need = _needed(subject)
        if need:
            raise Blocked(need.number)
        if was_cut(outcome, subject.train_s):
            raise Unjudged(f"{why(outcome, subject.train_s)}\nGive it longer by --train-seconds, or less data.")
        raise Violated(why(outcome, subject.train_s))
    left = files(base / "model")
    if not left:
        raise Violated("train ended with exit code 0 and left no file in /opt/ml/model")
    size = sum(path.stat().st_size for path in left)
    return f"train ended with exit code 0 after {outcome.seconds:.1f} s and left {len(left)} files, {size:,} bytes"


def leaves_plain_files(subject: Subject) -> str:
    """Judge whether the model is made of files alone, as its archive may hold no links."""
    model = subject.trained[0] / "model"
    odd = [path for path in model.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]
    if odd:
        names = ", ".join(path.relative_to(model).as_posix() for path in odd[:5])
        raise Violated(f"/opt/ml/model holds links, or what is neither a file nor a folder: {names}")
    return f"{len(files(model))} files, no links"


def says_what_it_does(subject: Subject) -> str:
    """Judge whether there is a log: what is printed."""
    lines = subject.trained[1].output.splitlines()
    if not any(line.strip() for line in lines):
        raise Violated("train printed nothing")
    return f"train printed {len(lines)} lines"


def prints_at_once(subject: Subject) -> str:
    """Judge whether lines come as they are printed, so that a metric is seen while the job goes on."""
    outcome = subject.trained[1]
    if not isinstance(subject.platform, Containers):
        raise Unjudged("when a source tree printed a line is not noted: give an image")
    moments, ran_s = outcome.printed_at, outcome.ran_s
    if ran_s < TOLD_APART_S or len(moments) < 2:
        raise Unjudged(
            f"{len(moments)} lines in {ran_s:.1f} s tell nothing: "
            f"give data or hyperparameters that keep train busy for {TOLD_APART_S:g} s"
        )
    if max(moments) - min(moments) < AT_ONCE_S and ran_s - min(moments) < 0.2 * ran_s:
        raise Violated(f"all {len(moments)} lines came at the end, after {min(moments):.1f} of {ran_s:.1f} s")
    return f"the first of {len(moments)} lines came after {min(moments):.1f} of {ran_s:.1f} s"


def writes_where_it_may(subject: Subject) -> str:
    """Judge whether nothing is written but below /opt/ml and /tmp."""
    if not isinstance(subject.platform, Containers):
        raise Unjudged("what a source tree writes on this machine is not noted: give an image")
    changed = subject.trained[1].changed
    own = [path for path in changed if not OURS.match(path) and not _is_folder_of_another(path, changed)]
    if own:
        raise Violated(f"train wrote outside /opt/ml and /tmp: {', '.join(own[:5])}" + (" and more" if len(own) > 5 else ""))
    return "train wrote to /opt/ml and /tmp alone"


def _does_not_need(subject: Subject, need: Need) -> str:
    """Say that a job ended well without something, or that it fails for the lack of it."""
    try:
        _, outcome = subject.trained
    except Violated:
        raise Blocked("T-1") from None
    if not outcome.exit_code:
        return f"train ended well without {need.what}"
    found = _needed(subject)
    if not found and was_cut(outcome, subject.train_s):
        raise Unjudged(why(outcome, subject.train_s))
    if found is need:
        raise Violated(f"{why(outcome, subject.train_s)}\nWhat it lacks: {need.what}")
    raise Blocked(found.number if found else "T-1")


def _needed(subject: Subject) -> Need | None:
    """Return what a job that fails would need in order to end well, if it is one thing."""

    def make() -> Need | None:
        cut = was_cut(subject.trained[1], subject.train_s)  # what waits, waits for a network
        contained = isinstance(subject.platform, Containers)
        foreign = contained and not starts_as_root(subject)
        for need in NEEDS:
            if {NETWORK: contained, ROOT: foreign and not cut}.get(need, not cut):
                job = need.given(subject.job("needs"))
                if ended_well(job, job.run(limit_s=min(VARIED_S, subject.train_s))):
                    return need
        return NETWORK if contained and _says_it_is_unconnected(subject.trained[1]) else None

    return subject.once("needed", make)


def _says_it_is_unconnected(outcome: Outcome) -> bool:
    """Say whether a job tells of a lacking network: what it looks for may not be there from this machine either."""
    return bool(UNCONNECTED.search(outcome.failure) or UNCONNECTED.search(outcome.output))


def _with_other_name(job: TrainingJob) -> TrainingJob:
    def copy(base: Path) -> None:
        config = base / "input" / "config"
        shutil.copyfile(config / "resourceconfig.json", config / "resourceConfig.json")

    return replace(job, prepare=(copy,))


def _with_sm_variables(job: TrainingJob) -> TrainingJob:
    """Return a job with the variables that the training toolkit would set (T-17)."""
    root = "/opt/ml" if isinstance(job.platform, Containers) else str(job.base)
    variables = {
        "SM_MODEL_DIR": f"{root}/model",
        "SM_OUTPUT_DIR": f"{root}/output",
        "SM_OUTPUT_DATA_DIR": f"{root}/output/data",
        "SM_INPUT_DIR": f"{root}/input",
        "SM_INPUT_CONFIG_DIR": f"{root}/input/config",
        "SM_CHANNELS": json.dumps(list(job.channels)),
        "SM_HPS": json.dumps(dict(job.hyperparameters)),
        "SM_HOSTS": json.dumps(list(job.hosts)),
        "SM_CURRENT_HOST": job.host,
        "SM_NUM_CPUS": "2",
        "SM_NUM_GPUS": "0",
        "SM_NUM_NEURONS": "0",
        "SM_NETWORK_INTERFACE_NAME": "eth0",
        "SM_LOG_LEVEL": "20",
        "SM_USER_ARGS": "[]",
        **{f"SM_CHANNEL_{name.upper()}": f"{root}/input/data/{name}" for name in job.channels},
        **{f"SM_HP_{name.upper()}": value for name, value in job.hyperparameters.items()},
    }
    return replace(job, environ={**job.environ, **variables})


def _is_folder_of_another(path: str, paths: tuple[str, ...]) -> bool:
    return any(other.startswith(f"{path}/") for other in (*paths, "/opt/ml", "/var/tmp"))  # noqa: S108


def _with_all_config(job: TrainingJob) -> TrainingJob:
    return replace(job, config=documents(job))


RESOURCE_CONFIG = Need("T-9", "a resourceConfig.json, which no platform writes", _with_other_name)
MORE_CONFIG = Need("T-11", "config files that SDK local mode does not write", _with_all_config)
SM_VARIABLES = Need("T-17", "SM_* variables", _with_sm_variables)
NETWORK = Need("T-32", "a network", partial(replace, network="bridge"))
ROOT = Need("H-3", "the rights of root, whom /opt/ml belongs to", partial(replace, container=("--user", "0")))
STARTED = ("train_is_a_program", "entrypoint_takes_the_word")
NEEDS = (ROOT, RESOURCE_CONFIG, MORE_CONFIG, SM_VARIABLES, NETWORK)
RULES = (
    Rule(
        "T-9",
        "train reads resourceconfig.json, all in lower case",
        Severity.SAGEMAKER,
        "Open /opt/ml/input/config/resourceconfig.json; no platform writes the `resourceConfig.json` of some guides.",
        reads_resourceconfig,
        STARTED,
    ),
    Rule(
        "T-11",
        "train needs no more config files than local mode writes",
        Severity.ELSEWHERE,
        "Take hyperparameters.json, inputdataconfig.json and resourceconfig.json; any other file may be missing.",
        trains_with_three_config_files,
        STARTED,
    ),
    Rule(
        "T-17",
        "train needs no SM_* variables",
        Severity.SAGEMAKER,
        "Read /opt/ml/input/config and use the fixed paths: the platform sets no SM_* variables, the training toolkit does.",
        needs_no_sm_variables,
        STARTED,
    ),
    Rule(
        "T-32",
        "train needs no network",
        Severity.MARKETPLACE,
        "Put all that train downloads into the image or into a channel: isolated jobs have no network and no credentials.",
        trains_without_a_network,
        STARTED,
    ),
    Rule(
        "T-1",
        "train trains: exit code 0 and a model in /opt/ml/model",
        Severity.SAGEMAKER,
        "Run `docker run -v DIR:/opt/ml IMAGE train` over a job laid out by `make train` or by hand, and read what it prints.",
        trains,
        STARTED,
    ),
    Rule(
        "H-4",
        "the model is made of plain files",
        Severity.SAGEMAKER,
        "Copy what links point to: an archive with links is refused where it is unpacked.",
        leaves_plain_files,
        ("trains",),
    ),
    Rule(
        "T-39",
        "train prints what it does",
        Severity.WASTEFUL,
        "Log to stdout or stderr, not to files: nobody sees a file of a job that failed.",
        says_what_it_does,
        ("trains",),
    ),
    Rule(
        "T-37",
        "lines come as they are printed",
        Severity.WASTEFUL,
        "Set PYTHONUNBUFFERED=1 in the image, or flush after every line: metrics and logs are read while the job goes on.",
        prints_at_once,
        ("says_what_it_does",),
    ),
    Rule(
        "H-4",
        "train writes to /opt/ml and /tmp alone",
        Severity.WASTEFUL,
        "Point caches and scratch files to /tmp, such as by HOME=/tmp: other places may be read-only, small or slow.",
        writes_where_it_may,
        ("trains",),
    ),
)
