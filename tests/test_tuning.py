"""What a model declares of its tuning and its metrics: told by `train`, and taken by SageMaker's own model of its calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator
from conftest import ROOT
from sklearn.linear_model import LogisticRegression, Ridge

from contract.declaration import AUTO, Declaration, Hyperparameter, check
from contract.errors import BadChannel, BadDeclaration
from contract.hyperparameters import parse_hyperparameters
from contract.job import Channel, read_job
from contract.media import Format
from contract.metrics import metric_names
from contract.paths import Paths
from contract.tuning import parameter_ranges, supported_hyperparameters, text
from model import DECLARATION
from model.metrics import CLASSIFICATION, REGRESSION, measure, metrics_of
from model.pipeline import ESTIMATORS
from training.command import description, table
from training.sources import content_format

METRICS = metrics_of(DECLARATION.target)
TRAIN = ROOT / "container" / "train"

# The declaration

RATE = Hyperparameter("rate", "how fast", "continuous", 0.5, (0.0, 1.0), tunable=True)
KIND = Hyperparameter("kind", "which", "categorical", "a", choices=("a", "b"), tunable=True)


def _with(*knobs: Hyperparameter) -> Declaration:
    return replace(DECLARATION, hyperparameters=knobs)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        pytest.param(replace(RATE, scale="logarithmic"), "a logarithmic scale begins above 0, not at 0", id="logarithm of 0"),
        pytest.param(
            replace(RATE, scale="reverse_logarithmic"), "takes a continuous number from 0 to below 1", id="1 in reverse"
        ),
        pytest.param(
            replace(RATE, kind="integer", default=0, range=(0, 9), search=(0, 0.9), scale="reverse_logarithmic"),
            "takes a continuous number from 0 to below 1",
            id="a whole number in reverse",
        ),
        pytest.param(replace(RATE, scale="square"), "scale 'square' is not one of linear", id="scale"),  # type: ignore[arg-type]
        pytest.param(
            replace(RATE, search=(0.5, 1.5)), "search (0.5, 1.5) is no growing part of its range", id="beyond the range"
        ),
        pytest.param(replace(RATE, search=(0.5, 0.5)), "search (0.5, 0.5) is no growing part of its range", id="a point"),
        pytest.param(replace(RATE, tunable=False, search=(0.1, 0.5)), "isn't tunable; set tunable=True", id="not tunable"),
        pytest.param(replace(KIND, scale="logarithmic"), "only a number has a scale", id="scale of a category"),
        pytest.param(
            Hyperparameter("keep", "whether", "boolean", False, tunable=True, search=(0, 1)),
            "only a number has a scale and a range to search; a boolean is searched by its values",
            id="search of a boolean",
        ),
        pytest.param(
            replace(KIND, choices=("a", *map(str, range(30)))), "31 choices declared; the platform takes 30", id="choices"
        ),
    ],
)
def test_what_cannot_be_searched_is_a_fault_of_the_declaration(knob: Hyperparameter, message: str) -> None:
    with pytest.raises(BadDeclaration) as caught:
        check(_with(knob))
    assert len(caught.value.message.splitlines()) == 2
    assert message in caught.value.message


def test_more_knobs_than_the_platform_takes_are_a_fault() -> None:
    knobs = [replace(RATE, name=f"rate{number}") for number in range(101)]
    assert check(_with(*knobs[:100]))
    with pytest.raises(BadDeclaration, match="101 declared; the platform takes 100"):
        check(_with(*knobs))


def test_every_estimator_has_something_to_tune_and_none_is_left_out() -> None:
    assert set(DECLARATION.estimators) == set(ESTIMATORS)
    assert [name for name in DECLARATION.estimators if not DECLARATION.tunable(name)] == []


# What SageMaker takes

SERVICE = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
SPECIFICATION = description(DECLARATION, METRICS)["TrainingSpecification"]


def _beyond(shape: Shape, value: Any, where: str = "") -> Iterator[str]:
    """Yield where a value passes a bound of the service's model that botocore's validator leaves to the service."""
    most = shape.metadata.get("max")
    if most is not None and isinstance(value, (str, list)) and len(value) > most:
        yield f"{where}: {len(value)} of {most}"
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield f"{where}: {value}"
    if isinstance(shape, StructureShape):
        for name, part in value.items():
            yield from _beyond(shape.members[name], part, f"{where}.{name}")
    elif isinstance(shape, ListShape):
        for part in value:
            yield from _beyond(shape.member, part, f"{where}[]")


def _taken(operation: str, request: dict[str, Any]) -> bool:
    shape = SERVICE.operation_model(operation).input_shape
    assert shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    assert list(_beyond(shape, request)) == []
    return True


def test_the_description_is_what_create_algorithm_takes() -> None:
    told = {
        "TrainingImage": "111122223333.dkr.ecr.us-east-1.amazonaws.com/berth:1",
        "SupportedTrainingInstanceTypes": ["ml.m5.large"],
    }
    assert _taken("CreateAlgorithm", {"AlgorithmName": "berth", "TrainingSpecification": {**SPECIFICATION, **told}})


@pytest.mark.parametrize("estimator", DECLARATION.estimators)
def test_the_description_is_what_a_tuning_job_takes(estimator: str) -> None:
    job = description(DECLARATION, METRICS)["HyperParameterTuningJobs"][estimator]
    definition = {
        "RoleArn": "arn:aws:iam::111122223333:role/berth",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        **job["TrainingJobDefinition"],
    }
    definition["AlgorithmSpecification"] = {
        **definition["AlgorithmSpecification"],
        "TrainingImage": "111122223333.dkr.ecr.us-east-1.amazonaws.com/berth:1",
        "TrainingInputMode": "File",
    }
    assert _taken(
        "CreateHyperParameterTuningJob", {"HyperParameterTuningJobName": "berth", **job, "TrainingJobDefinition": definition}
    )
    objective = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    assert objective in SPECIFICATION["SupportedTuningJobObjectiveMetrics"]


def test_a_knob_that_is_required_has_no_default_and_one_with_a_default_is_not_required() -> None:
    assert [
        knob["Name"] for knob in SPECIFICATION["SupportedHyperParameters"] if knob["IsRequired"] == ("DefaultValue" in knob)
    ] == []


def test_every_default_is_within_what_its_knob_is_said_to_take_and_is_read_back() -> None:
    for knob in supported_hyperparameters(DECLARATION):
        (bounds,) = knob["Range"].values()
        if "Values" in bounds:
            assert knob["DefaultValue"] in bounds["Values"]
        else:
            assert float(bounds["MinValue"]) <= float(knob["DefaultValue"]) <= float(bounds["MaxValue"])
        read = parse_hyperparameters({knob["Name"]: knob["DefaultValue"]}, DECLARATION.hyperparameters)
        assert read == parse_hyperparameters({}, DECLARATION.hyperparameters)


@pytest.mark.parametrize("estimator", DECLARATION.estimators)
def test_a_tuning_job_searches_the_knobs_of_its_estimator_alone_by_values_it_takes(estimator: str) -> None:
    ranges = parameter_ranges(DECLARATION, estimator)
    searched = {entry["Name"]: entry for entries in ranges.values() for entry in entries}
    assert set(searched) == {knob.name for knob in DECLARATION.tunable(estimator)}
    for name, entry in searched.items():
        for value in entry.get("Values") or [entry["MinValue"], entry["MaxValue"]]:
            assert parse_hyperparameters({name: value}, DECLARATION.hyperparameters)


def test_a_search_over_estimators_is_no_tuning_jobs_to_make() -> None:
    with pytest.raises(ValueError, match="estimator is 'auto'; one of hist_gradient_boosting, "):
        parameter_ranges(DECLARATION, AUTO)


def test_categories_are_searched_by_their_values_and_numbers_on_their_scale() -> None:
    estimator = Hyperparameter("estimator", "which", "categorical", "x", choices=("x", AUTO))
    keep = Hyperparameter("keep", "whether", "boolean", True, tunable=True)
    rate = replace(RATE, scale="reverse_logarithmic", range=(0.0, 0.999))
    assert parameter_ranges(check(_with(estimator, keep, KIND, rate)), "x") == {
        "IntegerParameterRanges": [],
        "ContinuousParameterRanges": [
            {"Name": "rate", "MinValue": "0", "MaxValue": "0.999", "ScalingType": "ReverseLogarithmic"}
        ],
        "CategoricalParameterRanges": [{"Name": "keep", "Values": ["true", "false"]}, {"Name": "kind", "Values": ["a", "b"]}],
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [(1e-6, "0.000001"), (1e6, "1000000"), (0.5, "0.5"), (2**31 - 1, "2147483647"), (True, "true"), ("ridge", "ridge")],
)
def test_a_value_is_written_without_an_exponent_or_separators(value: Any, written: str) -> None:
    assert text(value) == written


@pytest.mark.parametrize("mode", ["File", "FastFile", "Pipe", "Stream"])
def test_a_channels_modes_are_those_that_a_job_is_let_through_with(tmp_path: Path, mode: str) -> None:
    paths = Paths(tmp_path)
    paths.config.mkdir(parents=True)
    (paths.config / "inputdataconfig.json").write_text(json.dumps({"training": {"TrainingInputMode": mode}}))
    (taken,) = {tuple(channel["SupportedInputModes"]) for channel in SPECIFICATION["TrainingChannels"]}
    with nullcontext() if mode in taken else pytest.raises(BadChannel):
        read_job(paths, {})


def test_the_description_says_what_is_read_and_on_how_many_hosts() -> None:  # T-36
    for channel in SPECIFICATION["TrainingChannels"]:
        formats = {content_format(Channel("training", ROOT, told)) for told in channel["SupportedContentTypes"]}
        assert formats == set(get_args(Format))
        assert channel["SupportedInputModes"] == ["File", "FastFile", "Pipe"]
        assert channel["SupportedCompressionTypes"] == ["None", "Gzip"]  # read in test_inputs.py
    assert SPECIFICATION["SupportsDistributedTraining"] is True  # done in test_distributed.py


# Metrics


def _measured(target: str) -> dict[str, float]:
    matrix = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    actual = np.where(matrix[:, 0] > 0.5, "yes", "no") if target == "class" else matrix[:, 0] * 2
    return measure((LogisticRegression() if target == "class" else Ridge()).fit(matrix, actual), matrix, actual)


@pytest.mark.parametrize(("target", "declared"), [("number", REGRESSION), ("class", CLASSIFICATION)], ids=["number", "class"])
def test_what_is_measured_is_what_is_declared_in_its_order(target: str, declared) -> None:
    assert list(_measured(target)) == [metric.name for metric in declared]


def test_a_job_reports_the_metrics_that_are_declared_and_no_others(manifest: dict) -> None:
    names = [entry["Name"] for entry in SPECIFICATION["MetricDefinitions"]]
    assert names == metric_names(METRICS)
    assert list(manifest["metrics"]) == [name for name in names if not name.startswith(("cv:", "data:"))]


@pytest.mark.parametrize("metric", [*REGRESSION, *CLASSIFICATION], ids=lambda metric: metric.name)
def test_a_metrics_goal_is_the_way_that_a_better_model_takes_it(metric) -> None:
    is_class = metric in CLASSIFICATION
    actual = np.array(["no", "yes"] * 10) if is_class else np.arange(20.0)
    matrix = np.arange(20, dtype=np.float32)[:, None] % (2 if is_class else 20)
    kind = LogisticRegression if is_class else Ridge
    good = measure(kind().fit(matrix, actual), matrix, actual)[metric.name]
    bad = measure(kind().fit(matrix, actual[::-1]), matrix, actual)[metric.name]
    assert (good > bad) == (metric.goal == "Maximize")


# The program


def _call(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TRAIN, *words], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def help_() -> str:
    """What `train --help` prints."""
    done = _call("--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("knob", DECLARATION.hyperparameters, ids=lambda knob: knob.name)
def test_help_says_of_every_knob_what_it_is_what_it_takes_and_what_of_it_is_tuned(help_: str, knob: Hyperparameter) -> None:
    told = re.search(rf"^  {knob.name}\s+(.*(?:\n {{22}}.*)+)", help_, re.MULTILINE)
    assert told
    words = " ".join(told[1].split())
    assert words.startswith(knob.meaning)
    assert f"default {text(knob.default)}" in words
    assert ("tuning: " in words) == knob.tunable


def test_help_fits_a_terminal_and_names_every_metric(help_: str) -> None:
    assert max(map(len, help_.splitlines())) <= 110
    assert [metric.name for metric in METRICS if f"\n  {metric.name} " not in help_] == []


def test_describe_prints_json_touches_no_job_and_loads_no_scikit_learn(tmp_path: Path) -> None:
    base = tmp_path / "ml"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from training.train import main; code = main(['--describe'])\n"
    code += "print([name for name in ('sklearn', 'pandas', 'scipy') if name in sys.modules], file=sys.stderr); sys.exit(code)"
    environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(base)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == description(DECLARATION, METRICS)
    assert done.stderr == "[]\n"
    assert not base.exists()


@pytest.mark.parametrize("words", [["--epochs", "3"], ["train"], ["--desc"], ["--"]], ids=" ".join)
def test_an_argument_that_is_unknown_exits_2_with_the_usage_and_touches_no_job(tmp_path: Path, words: list[str]) -> None:
    done = _call(*words, SAGEMAKER_BASE_DIR=str(tmp_path / "ml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: train [--help | --describe | --markdown]\n")
    assert words[0] in done.stderr
    assert not (tmp_path / "ml").exists()


def test_a_declaration_at_fault_is_named_and_no_traceback_is_shown(tmp_path: Path) -> None:
    for name in ("contract", "model", "training", "container"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    features = tmp_path / "model" / "features.py"
    features.write_text(features.read_text().replace('"CHAS"', '"RM"'))
    done = subprocess.run(
        [sys.executable, tmp_path / "container" / "train", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("train: model/ has 1 fault(s) in its declaration:\n")
    assert "Traceback" not in done.stderr


def test_the_table_of_hyperparameters_is_in_step_with_the_declaration() -> None:
    assert (ROOT / "docs" / "hyperparameters.md").read_text() == table(DECLARATION) + "\n", "run `make hyperparameters`"
