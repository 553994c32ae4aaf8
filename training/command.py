"""What `train` answers when it is called with words instead of by a platform: help and its description, before any job.

All of it is made from the declaration, and none of it imports scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from contract.declaration import Declaration, Hyperparameter
from contract.hyperparameters import describe
from contract.metrics import PARTS, Metric
from contract.tuning import text, training_specification, tuning_job

WIDTH = 100


def answer(arguments: Sequence[str]) -> int:
    """Print what the arguments ask for and return 0; an unknown one ends the program with 2 and a usage line."""
    from model import DECLARATION
    from model.metrics import metrics_of

    metrics = metrics_of(DECLARATION.target)
    parser = _parser(DECLARATION, metrics)
    chosen = parser.parse_args(arguments)
    if not (chosen.markdown or chosen.describe):
        parser.error(f"unrecognized arguments: {' '.join(arguments)}")
    print(table(DECLARATION) if chosen.markdown else json.dumps(description(DECLARATION, metrics), indent=2))
    return 0


def description(declaration: Declaration, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return what CreateAlgorithm and CreateHyperParameterTuningJob take of the model, ready to paste."""
    return {
        "TrainingSpecification": training_specification(declaration, metrics),
        "HyperParameterTuningJobs": {name: tuning_job(declaration, metrics, name) for name in declaration.estimators},
    }


def table(declaration: Declaration) -> str:
    """Return docs/hyperparameters.md."""
    rows = [
        f"| `{knob.name}` | {knob.meaning} | {describe(knob)} | {text(knob.default)} | {_searched(knob)} | {_owners(knob)} |"
        for knob in declaration.hyperparameters
    ]
    return "\n".join(
        [
            "# Hyperparameters",
            "",
            "Written by `make hyperparameters` from `model/hyperparameters.py`; `train --help` says the same. *Tuning* is",
            "what tuning jobs and `estimator=auto` search. A knob of another estimator than the chosen one is ignored.",
            "",
            "| name | meaning | takes | default | tuning | estimators |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _parser(declaration: Declaration, metrics: Sequence[Metric]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train",
        usage="train [--help | --describe | --markdown]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Train {declaration.title}: read /opt/ml/input, leave a model in /opt/ml/model. Hyperparameters are read\n"
        "from /opt/ml/input/config/hyperparameters.json; the words below only print and read no job.",
        epilog=_help(declaration, metrics),
        allow_abbrev=False,
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--describe", action="store_true", help="hyperparameters, metrics, channels, tuning ranges: JSON to paste"
    )
    words.add_argument("--markdown", action="store_true", help="the hyperparameters as the table of docs/hyperparameters.md")
    return parser


def _help(declaration: Declaration, metrics: Sequence[Metric]) -> str:
    groups = {"all": [knob for knob in declaration.hyperparameters if not knob.estimators]}
    for knob in declaration.hyperparameters:
        if knob.estimators:
            groups.setdefault(_owners(knob), []).append(knob)
    lines = []
    for owners, knobs in groups.items():
        lines += [f"hyperparameters of {owners} estimators:" if owners == "all" else f"hyperparameters of {owners}:"]
        lines += [line for knob in knobs for line in _paragraph(knob)] + [""]
    lines += [f"metrics, on {', '.join(PARTS)} (of cv where cv_folds is 2 or more):"]
    lines += [f"  {metric.name:<20}{metric.meaning}; {metric.goal.lower()}" for metric in metrics]
    return "\n".join(lines)


def _paragraph(knob: Hyperparameter) -> list[str]:
    tuning = f"; tuning: {_searched(knob)}" if knob.tunable else ""
    told = f"{describe(knob)}; default {text(knob.default)}{tuning}"
    first = f"  {knob.name:<20}{knob.meaning}" if len(knob.name) < 20 else f"  {knob.name}  {knob.meaning}"
    return [first, *textwrap.wrap(told, WIDTH, initial_indent=" " * 22, subsequent_indent=" " * 22)]


def _searched(knob: Hyperparameter) -> str:
    if not knob.tunable:
        return "no"
    if knob.kind not in {"integer", "continuous"}:
        return "any of its values"
    low, high = (text(int(bound) if knob.kind == "integer" else bound) for bound in knob.bounds)
    return f"{low} to {high}, {knob.scale.replace('_', ' ')}"


def _owners(knob: Hyperparameter) -> str:
    return ", ".join(knob.estimators) or "all"
