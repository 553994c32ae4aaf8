"""What the validation's training job has to be: seen by `validate`, judged here. The table TRAINED has a function a rule.

Each returns what was seen; it raises Broken where that breaks the rule, and NotSeen where another breach hides it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from deploy.market.verdicts import Status, Verdict

Facts = Mapping[str, Any]
WANTS_NETWORK = re.compile(
    r"name or service not known|name resolution|network is unreachable|could(n't| not) resolve|getaddrinfo|no route to host"
    r"|could not connect to the endpoint url|failed to establish a new connection",
    re.IGNORECASE,
)
WRITABLE = ("/tmp", "/opt/ml")  # noqa: S108  # places in a container
COMPARED = {"SupportedHyperParameters": "hyperparameter", "TrainingChannels": "channel"}
SHOWN = 6
LONGEST_LINE, LONGEST_TEXT = 300, 1_000


class Broken(Exception):
    """The rule is broken; says what was found."""


class NotSeen(Exception):
    """What another rule finds hid it; says which."""


class Check(Protocol):
    """How a rule is judged."""

    def __call__(self, facts: Facts, request: Facts, /) -> str:
        """Return what was seen; raises Broken or NotSeen."""


@dataclass(frozen=True)
class Rule:
    """One thing that a certified product keeps."""

    number: str
    title: str
    fix: str
    check: Check


def judged(rules: Sequence[Rule], facts: Facts, request: Facts, part: str) -> list[Verdict]:
    """Return what each rule says of some facts; nothing of what another breach hid."""
    found = []
    for rule in rules:
        try:
            status, seen = Status.KEPT, rule.check(facts, request)
        except Broken as error:
            status, seen = Status.BROKEN, str(error)
        except NotSeen as error:
            status, seen = Status.UNJUDGED, str(error)
        found.append(Verdict(rule.number, rule.title, status, seen, rule.fix, part))
    return found


def needs_no_network(facts: Facts, _request: Facts) -> str:
    """Judge whether train asked for the network and failed without (M-7)."""
    job = facts["training"]
    line = network_sign(f"{job['output']}\n{job['failure']}")
    if job["exit_code"] != 0 and line:
        raise Broken(f"without a network it ended with {job['exit_code']}: {line}")
    return "it was run without a network"


def completes(facts: Facts, request: Facts) -> str:
    """Judge whether the job ends well and leaves a model in time."""
    job = facts["training"]
    limit_s = profile_of(request)["TrainingJobDefinition"].get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86_400)
    if job["exit_code"] != 0 and network_sign(f"{job['output']}\n{job['failure']}"):
        raise NotSeen("blocked by M-7: it wants the network")
    if job["exit_code"] is None:
        raise Broken(f"it could not be started: {job['failure']}"[:LONGEST_TEXT])
    if job["exit_code"] != 0:
        raise Broken(f"it ended with {job['exit_code']}: {job['failure'] or last_line(job['output'])}"[:LONGEST_TEXT])
    if job["seconds"] > limit_s:
        raise Broken(f"it took {job['seconds']} s here; the profile gives it {limit_s} s")
    if not job["model"]:
        raise Broken("it ended well and left nothing in /opt/ml/model")
    return f"it ended well after {job['seconds']} s and left {', '.join(job['model'][:SHOWN])}"


def writes_where_it_may(facts: Facts, _request: Facts) -> str:
    """Judge whether train wrote outside /opt/ml and /tmp."""
    return judge_places(facts["training"]["changed"])


def prints_its_metrics(facts: Facts, request: Facts) -> str:
    """Judge whether the declared expressions read what the job prints (T-37)."""
    _ended_well(facts)
    specification, lines = request["TrainingSpecification"], facts["training"]["output"].splitlines()
    read, faults = {}, []
    for definition in specification.get("MetricDefinitions", []):
        name, values = definition["Name"], _values(definition["Regex"], lines)
        if values:
            read[name] = values[-1]
            faults += [f"{name} reads {value!r}, which is no number" for value in values if not _is_number(value)][:1]
        elif any(name in line for line in lines):
            faults.append(f"{name} is printed and {definition['Regex']!r} matches no line")
    objectives = [one["MetricName"] for one in specification.get("SupportedTuningJobObjectiveMetrics", [])]
    if objectives and not set(objectives) & set(read):
        faults.append(f"no objective was read: {', '.join(objectives[:SHOWN])}")
    if faults:
        raise Broken("; ".join(faults))
    return f"{len(read)} of {len(specification.get('MetricDefinitions', []))} were read, such as {dict(list(read.items())[:2])}"


def takes_its_hyperparameters(facts: Facts, request: Facts) -> str:
    """Judge whether what is declared is what train says that it takes (M-3)."""
    described = facts["described"]
    if described is None:
        raise Broken("`train --describe` prints no JSON object, so that what it takes can't be compared")
    told = described["TrainingSpecification"]
    faults = []
    for key, kind in COMPARED.items():
        ours = {one["Name"]: one for one in told.get(key, [])}
        declared = {one["Name"]: one for one in request["TrainingSpecification"].get(key, [])}
        faults += [f"{kind} {name} is declared and train does not know it" for name in declared.keys() - ours.keys()]
        faults += [f"{kind} {name} is taken and not declared" for name in ours.keys() - declared.keys()]
        for name in declared.keys() & ours.keys():
            parts = [part for part in ours[name] if part != "Description" and ours[name][part] != declared[name].get(part)]
            faults += [
                f"{kind} {name}: {part} is declared {declared[name].get(part)!r}, train has {ours[name][part]!r}"
                for part in parts
            ]
    if faults:
        raise Broken("; ".join(sorted(faults)[:SHOWN]))
    return f"{', '.join(kind + 's' for kind in COMPARED.values())} agree"


def logs_no_rows(facts: Facts, _request: Facts) -> str:
    """Judge whether a value of the training data came into the log."""
    return judge_log(facts["mark"], f"{facts['training']['output']}\n{facts['training']['failure']}")


def judge_log(mark: str, log: str) -> str:
    """Return that a log holds no marked value; raises Broken with the line that does, its values hidden."""
    line = next((line for line in log.splitlines() if mark in line), "")
    if line:
        hidden = re.sub(rf"\S*{mark}\S*", "(a marked value)", line)[:LONGEST_LINE]
        raise Broken(f"a value of the data is in the log: {hidden}")
    return "no value that was marked in the data is in the log"


def judge_places(changed: Sequence[str]) -> str:
    """Return that only what may be written to was; raises Broken with the other places."""
    strange = [path for path in changed if not _is_writable(path)]
    files = [path for path in strange if not any(other.startswith(f"{path}/") for other in strange)]
    if files:
        raise Broken(f"it wrote {', '.join(files[:SHOWN])}")
    return "it wrote below /tmp and /opt/ml alone"


def network_sign(text: str) -> str:
    """Return the last line that shows that a network was wanted; empty where none does."""
    return next((line.strip()[:LONGEST_LINE] for line in reversed(text.splitlines()) if WANTS_NETWORK.search(line)), "")


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip()[:LONGEST_LINE] for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def profile_of(request: Facts) -> Facts:
    """Return a request's one profile (M-5)."""
    found: Facts = request["ValidationSpecification"]["ValidationProfiles"][0]
    return found


def _ended_well(facts: Facts) -> None:
    if facts["training"]["exit_code"] != 0:
        raise NotSeen("blocked by M-5: the training job did not end well")


def _is_writable(path: str) -> bool:
    """Say whether a change is below a place that may be written to, or is of a folder above one."""
    return any(path == place or path.startswith(f"{place}/") or place.startswith(f"{path}/") for place in WRITABLE)


def _values(regex: str, lines: Sequence[str]) -> list[str]:
    with suppress(re.error):
        pattern = re.compile(regex)
        return [match[1] for line in lines if pattern.groups and (match := pattern.search(line))]
    return []


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return float(text) == float(text)
    return False


TRAINED = (
    Rule("M-7", "train needs no network", "Fetch nothing: put packages and weights into the image.", needs_no_network),
    Rule(
        "M-5",
        "the validation's training job ends well",
        "Run it here with the same data and hyperparameters until it does; it may ask for no GPU on the profile's instance.",
        completes,
    ),
    Rule("M-14", "train writes below /tmp and /opt/ml alone", "Write scratch below /tmp.", writes_where_it_may),
    Rule(
        "T-37",
        "the declared metrics are read from the log",
        "Print one line a metric, as its Regex reads it.",
        prints_its_metrics,
    ),
    Rule(
        "M-3",
        "what is declared is what train takes",
        "Build the image and the request from the same declaration.",
        takes_its_hyperparameters,
    ),
    Rule("T-39", "train logs no data", "Print counts and names, never rows or their values.", logs_no_rows),
)
