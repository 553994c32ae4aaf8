"""What is sold: the requests of an algorithm and a model package, the rules they are held against, and their versions."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
import types
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import ROOT
from moto import mock_aws
from verbs import Ran, berth

from contract.declaration import Declaration, Hyperparameter, check
from contract.metrics import metric_line, metric_names
from deploy.market.product import INSTANCES, METERING, Offer, algorithm_request, columns_of, described, package_request
from deploy.market.published import differences
from deploy.market.rules import RULES, judge
from deploy.market.versions import compare, seen
from model import DECLARATION
from model.hyperparameters import HYPERPARAMETERS
from model.metrics import metrics_of

GOLDEN = ROOT / "tests" / "golden"
ACCOUNT, REGION, BUCKET = "123456789012", "us-east-1", "sagemaker-us-east-1-123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
OFFER = Offer(
    product="berth",
    release="0.1.0",
    image=f"{HOST}/berth:0.1.0-0123456789ab",
    digest=f"sha256:{'a' * 64}",
    role=f"arn:aws:iam::{ACCOUNT}:role/berth",
    data=f"s3://{BUCKET}/berth/market/training-0123456789/",
    records=f"s3://{BUCKET}/berth/market/records-0123456789/",
    outputs=f"s3://{BUCKET}/berth/market/validation",
)
MODEL = f"s3://{BUCKET}/berth/models/berth-0123456789/output/model.tar.gz"


@cache
def declaration_of(name: str) -> Declaration:
    """The housing model as it stands in model/, or README's other data set."""
    if name == DECLARATION.name:
        return DECLARATION
    (edit,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    told = types.ModuleType("features")
    exec(edit, told.__dict__)
    return check(Declaration(told.NAME, told.TITLE, told.ABOUT, told.FEATURES, told.TARGET, HYPERPARAMETERS))


def algorithm(declaration: Declaration = DECLARATION, offer: Offer = OFFER) -> dict[str, Any]:
    return algorithm_request(declaration, metrics_of(declaration.target), offer)


def package(declaration: Declaration = DECLARATION, offer: Offer = OFFER) -> dict[str, Any]:
    return package_request(declaration, offer, MODEL)


MAKERS = {"algorithm": algorithm, "package": package}
LINES = [metric_line(name, 0.5) for name in metric_names(metrics_of(DECLARATION.target))]


def golden(name: str, found: Any) -> None:
    """Hold a document against its file, byte for byte; GOLDEN=1 writes the file."""
    path, written = GOLDEN / f"{name}.json", json.dumps(found, indent=2) + "\n"
    if os.environ.get("GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(written)
    assert path.read_text() == written


# The requests


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["boston-housing", "penguins"])
def test_a_request_is_byte_stable_and_breaks_no_rule(name: str, kind: str) -> None:
    declaration = declaration_of(name)
    request = MAKERS[kind](declaration, replace(OFFER, product=name))
    golden(f"{kind}-{name}", request)
    lines = [metric_line(one, 0.5) for one in metric_names(metrics_of(declaration.target))]
    assert judge(request, ACCOUNT, REGION, lines) == []


def test_another_data_set_is_sold_with_its_own_words_and_metrics() -> None:
    text = json.dumps(algorithm(declaration_of("penguins"), replace(OFFER, product="penguins")))
    assert "Palmer penguins" in text
    assert "validation:accuracy" in text
    assert "rmse" not in text
    assert "Boston" not in text


def test_a_version_is_called_by_product_and_release_without_dots() -> None:
    assert replace(OFFER, release="1.2.0-rc.1").name == "berth-1-2-0-rc-1"


def test_a_long_text_about_a_model_is_cut_to_what_a_description_takes() -> None:
    told = described(replace(DECLARATION, about="much\n to say " * 200))
    assert len(told) <= 1024
    assert told.startswith("Boston housing prices. much to say much")
    assert told.endswith("...")


def test_answered_rows_are_counted_where_a_dimension_is_set() -> None:
    (container,) = algorithm(offer=replace(OFFER, metering="inference.count"))["InferenceSpecification"]["Containers"]
    assert container["Environment"] == {METERING: "inference.count"}
    assert METERING in (ROOT / "serving" / "settings.py").read_text()
    assert "Environment" not in algorithm()["InferenceSpecification"]["Containers"][0]


def test_only_what_a_buyers_program_depends_on_makes_other_columns() -> None:
    told = columns_of(DECLARATION)
    assert told["answer"] == {"name": "MEDV", "kind": "number", "unit": "thousand dollars", "labels": []}
    said = replace(DECLARATION.features[0], meaning="said otherwise", range=(0, 2))
    assert columns_of(replace(DECLARATION, features=(said, *DECLARATION.features[1:]))) == told


@pytest.mark.parametrize("name", ["boston-housing", "penguins"])
def test_moto_takes_the_package_as_it_is_in_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "none")
    request = json.loads((GOLDEN / f"package-{name}.json").read_text())
    with mock_aws():
        sagemaker = boto3.client("sagemaker", region_name=REGION)
        arn = sagemaker.create_model_package(**request)["ModelPackageArn"]
        told = sagemaker.describe_model_package(ModelPackageName=arn)
    assert told["InferenceSpecification"] == request["InferenceSpecification"]
    assert told["CertifyForMarketplace"] is True


@pytest.mark.parametrize("name", ["boston-housing", "penguins"])
def test_the_cloud_takes_the_algorithm_as_it_is_in_its_file_and_tells_it_again(aws, name: str) -> None:
    request = json.loads((GOLDEN / f"algorithm-{name}.json").read_text())
    aws.client("sagemaker").create_algorithm(**request)
    told = aws.client("sagemaker").describe_algorithm(AlgorithmName=request["AlgorithmName"])
    tags = {one["Key"]: one["Value"] for one in request["Tags"]}
    assert differences(request, told, tags) == []
    told["AlgorithmDescription"] = "in AWS's own words"
    assert differences(request, told, tags) == []
    request["TrainingSpecification"]["SupportedHyperParameters"][0]["DefaultValue"] = "ridge"
    told["AlgorithmDescription"] = request["AlgorithmDescription"]
    where = ["TrainingSpecification.SupportedHyperParameters[0].DefaultValue", "the model's columns"]
    assert differences(request, told, {}) == where


def test_channels_of_the_request_are_those_that_train_describes() -> None:
    done = subprocess.run([ROOT / "container" / "train", "--describe"], capture_output=True, text=True, check=True)
    described = json.loads(done.stdout)["TrainingSpecification"]
    assert described == {key: train(algorithm())[key] for key in described}


# The rules: one fault each, in a request that breaks none otherwise

Edit = Callable[[dict[str, Any]], Any]


def knob(request: dict[str, Any], name: str = "seed") -> dict[str, Any]:
    return next(one for one in request["TrainingSpecification"]["SupportedHyperParameters"] if one["Name"] == name)


def bounds(request: dict[str, Any], name: str = "seed") -> dict[str, Any]:
    return next(iter(knob(request, name)["Range"].values()))


def profile(request: dict[str, Any]) -> dict[str, Any]:
    return request["ValidationSpecification"]["ValidationProfiles"][0]


def job(request: dict[str, Any]) -> dict[str, Any]:
    return profile(request)["TrainingJobDefinition"]


def transform(request: dict[str, Any]) -> dict[str, Any]:
    return profile(request)["TransformJobDefinition"]


def train(request: dict[str, Any]) -> dict[str, Any]:
    return request["TrainingSpecification"]


def infer(request: dict[str, Any]) -> dict[str, Any]:
    return request["InferenceSpecification"]


def image(request: dict[str, Any], reference: str) -> None:
    train(request)["TrainingImage"] = infer(request)["Containers"][0]["Image"] = reference


FAULTS: dict[str, tuple[str, str, Edit]] = {
    "no inference": ("M-1", "There is no InferenceSpecification", lambda r: r.pop("InferenceSpecification")),
    "no validation": ("M-1", "There is no ValidationSpecification", lambda r: r.pop("ValidationSpecification")),
    "not certified": ("M-1", "CertifyForMarketplace is not true", lambda r: r.update(CertifyForMarketplace=False)),
    "a dot in the name": ("API", "does not match", lambda r: r.update(AlgorithmName="berth-0.1")),
    "a long name": ("API", "64 characters; 63 is the most", lambda r: r.update(AlgorithmName="a" * 64)),
    "an unknown member": ("API", 'Unknown parameter in input: "Colour"', lambda r: r.update(Colour="red")),
    "no channel": ("M-2", "No channel is required", lambda r: train(r).update(TrainingChannels=[])),
    "no required channel": (
        "M-2",
        "No channel is required",
        lambda r: train(r)["TrainingChannels"][0].update(IsRequired=False),
    ),
    "a channel twice": (
        "M-2",
        "Channel training is declared twice",
        lambda r: train(r)["TrainingChannels"].append(train(r)["TrainingChannels"][0]),
    ),
    "nine channels": (
        "API",
        "9 entries; 8 is the most",
        lambda r: train(r)["TrainingChannels"].extend(
            {**train(r)["TrainingChannels"][1], "Name": f"more{number}"} for number in range(7)
        ),
    ),
    "an expression that matches nothing": (
        "M-2",
        "matches no line of the job's",
        lambda r: train(r)["MetricDefinitions"][0].update(Regex="rmse: ([0-9]+)"),
    ),
    "an expression without a group": (
        "M-2",
        "has 0 groups",
        lambda r: train(r)["MetricDefinitions"][0].update(Regex="metric train:rmse=[0-9.]+;"),
    ),
    "an expression that is none": ("M-2", "is none", lambda r: train(r)["MetricDefinitions"][0].update(Regex="(")),
    "an expression that reads a word": (
        "M-2",
        "reads 'train:rmse'",
        lambda r: train(r)["MetricDefinitions"][0].update(Regex="metric (train:rmse)="),
    ),
    "an objective that is no metric": (
        "M-2",
        "Objective validation:loss is none of the metrics",
        lambda r: train(r)["SupportedTuningJobObjectiveMetrics"][0].update(MetricName="validation:loss"),
    ),
    "nothing to tune by": (
        "M-2",
        "there is no objective",
        lambda r: train(r).update(SupportedTuningJobObjectiveMetrics=[]),
    ),
    "required with a default": ("M-3", "is required and has a default", lambda r: knob(r).update(IsRequired=True)),
    "a bound as a number": ("M-3", "which is no text", lambda r: bounds(r).update(MinValue=0)),
    "a bound of another type": ("M-3", "is Integer with the bound 0.5", lambda r: bounds(r).update(MinValue="0.5")),
    "bounds the wrong way round": (
        "M-3",
        "goes from 9 to 3",
        lambda r: (bounds(r).update(MinValue="9", MaxValue="3"), knob(r).pop("DefaultValue")),
    ),
    "a range of another type": ("M-3", "is Continuous with Integer", lambda r: knob(r).update(Type="Continuous")),
    "a default outside": ("M-3", "outside of 1 to 2147483647", lambda r: bounds(r).update(MinValue="1")),
    "a default that is no choice": ("M-3", "none of fail, drop", lambda r: knob(r, "bad_rows").update(DefaultValue="keep")),
    "31 categories": (
        "M-3",
        "has 31 values",
        lambda r: bounds(r, "bad_rows").update(Values=["fail", *(f"v{number}" for number in range(30))]),
    ),
    "a platform's name": ("M-3", "begins as the platform's own do", lambda r: knob(r).update(Name="sagemaker_seed")),
    "tunable text": (
        "M-3",
        "is text and tunable",
        lambda r: (knob(r, "alpha").update(Type="FreeText"), knob(r, "alpha").pop("Range")),
    ),
    "a hyperparameter twice": (
        "M-3",
        "seed is declared twice",
        lambda r: train(r)["SupportedHyperParameters"].append(knob(r)),
    ),
    "no real-time instances": (
        "M-4",
        "SupportedRealtimeInferenceInstanceTypes is empty",
        lambda r: infer(r).pop("SupportedRealtimeInferenceInstanceTypes"),
    ),
    "an instance type that there is not": (
        "API",
        "is 'ml.m5.huge'",
        lambda r: train(r)["SupportedTrainingInstanceTypes"].append("ml.m5.huge"),
    ),
    "no profile": (
        "M-5",
        "There are 0 validation profiles",
        lambda r: r["ValidationSpecification"].update(ValidationProfiles=[]),
    ),
    "two profiles": (
        "M-5",
        "There are 2 validation profiles",
        lambda r: r["ValidationSpecification"]["ValidationProfiles"].append(profile(r)),
    ),
    "no transform job": ("M-5", "has no transform job", lambda r: profile(r).pop("TransformJobDefinition")),
    "a required channel left out": (
        "M-5",
        "lacks the channel training",
        lambda r: job(r)["InputDataConfig"][0].update(ChannelName="validation"),
    ),
    "an undeclared channel": (
        "M-5",
        "has the channel test, which is not declared",
        lambda r: job(r)["InputDataConfig"].append({**job(r)["InputDataConfig"][0], "ChannelName": "test"}),
    ),
    "undeclared content": (
        "M-5",
        "uses text/plain",
        lambda r: job(r)["InputDataConfig"][0].update(ContentType="text/plain"),
    ),
    "an undeclared hyperparameter": (
        "M-5",
        "sets hyperparameter depth, which is not declared",
        lambda r: job(r).update(HyperParameters={"depth": "1"}),
    ),
    "a hyperparameter outside": (
        "M-5",
        "sets hyperparameter max_iter to 0, outside of 1 to 10000",
        lambda r: job(r).update(HyperParameters={"max_iter": "0"}),
    ),
    "undeclared instances": (
        "M-5",
        "trains on ml.p3.2xlarge",
        lambda r: job(r)["ResourceConfig"].update(InstanceType="ml.p3.2xlarge"),
    ),
    "an undeclared answer": (
        "M-5",
        "uses application/x-parquet",
        lambda r: transform(r)["TransformOutput"].update(Accept="application/x-parquet"),
    ),
    "lines split and not joined": (
        "M-5",
        "splits lines and does not join them",
        lambda r: transform(r)["TransformOutput"].update(AssembleWith="None"),
    ),
    "an image of another registry": ("M-8", "is not in ECR", lambda r: image(r, "docker.io/someone/berth:1")),
    "an image of another account": (
        "M-8",
        "is of account 210987654321",
        lambda r: image(r, OFFER.image.replace(ACCOUNT, "210987654321")),
    ),
    "an image of another Region": ("M-8", "is in eu-west-1", lambda r: image(r, OFFER.image.replace(REGION, "eu-west-1"))),
    "an image without a tag": (
        "M-8",
        "has no tag",
        lambda r: image(r, f"{OFFER.image.rpartition(':')[0]}@{OFFER.digest}"),
    ),
    "too much at a time": (
        "M-11",
        "4 mini-batches of 50 MB at a time are 200 MB",
        lambda r: transform(r).update(MaxPayloadInMB=50, MaxConcurrentTransforms=4),
    ),
    "Arm": (
        "T-7",
        "ml.c7g.large have Arm",
        lambda r: infer(r)["SupportedRealtimeInferenceInstanceTypes"].append("ml.c7g.large"),
    ),
    "several instances": (
        "T-36",
        "trains on 2 instances",
        lambda r: (
            train(r).update(SupportsDistributedTraining=False),
            job(r)["ResourceConfig"].update(InstanceCount=2),
        ),
    ),
}
PACKAGES: dict[str, tuple[str, str, Edit]] = {
    "a version of a group": (
        "M-6",
        "a version of a group",
        lambda r: (r.pop("ModelPackageName"), r.update(ModelPackageGroupName="berth")),
    ),
    "no model": ("M-6", "ModelDataUrl is missing", lambda r: infer(r)["Containers"][0].pop("ModelDataUrl")),
    "a model of another kind": (
        "M-6",
        "ModelDataUrl is s3://bucket/model.zip",
        lambda r: infer(r)["Containers"][0].update(ModelDataUrl="s3://bucket/model.zip"),
    ),
    "two profiles of a package": FAULTS["two profiles"],
    "a package that is not certified": FAULTS["not certified"],
}
CASES = [*((algorithm, *case) for case in FAULTS.values()), *((package, *case) for case in PACKAGES.values())]


@pytest.mark.parametrize(("make", "rule", "found", "edit"), CASES, ids=[*FAULTS, *PACKAGES])
def test_a_product_with_one_fault_is_told_the_rule_it_breaks_and_the_fix(make, rule: str, found: str, edit: Edit) -> None:
    request = copy.deepcopy(make())
    edit(request)
    broken = judge(request, ACCOUNT, REGION, LINES)
    told = [one for one in broken if one.rule == rule and found in one.found]
    assert told, broken
    assert all(one.fix for one in broken)
    assert str(told[0]).startswith(f"{rule}: ")


def test_a_region_that_accounts_opt_in_to_is_none_to_publish_from() -> None:
    request = json.loads(json.dumps(algorithm()).replace(REGION, "af-south-1"))
    assert [one.rule for one in judge(request, ACCOUNT, "af-south-1", LINES)] == ["M-8"]


def test_every_rule_of_the_table_is_broken_by_a_fault_above() -> None:
    assert {rule.number for rule in RULES} <= {rule for _, rule, _, _ in CASES}


def test_a_request_that_is_no_request_is_judged_by_its_shape_alone() -> None:
    broken = judge({"AlgorithmName": "berth", "TrainingSpecification": {"TrainingChannels": "training"}}, ACCOUNT, REGION)
    assert {one.rule for one in broken} == {"API"}


def test_instance_types_are_those_that_run_the_image() -> None:
    assert not [kind for kind in INSTANCES if not re.fullmatch(r"ml\.[cm]\d[a-z]?\.\d?x?large", kind)]


# Versions: one change each, and whether it breaks buyers

Changed = Callable[[Declaration], Declaration]


def with_knob(called: str, /, **changed: Any) -> Changed:
    def edit(declaration: Declaration) -> Declaration:
        knobs = tuple(replace(one, **changed) if one.name == called else one for one in declaration.hyperparameters)
        return replace(declaration, hyperparameters=knobs)

    return edit


def without_knob(name: str) -> Changed:
    return lambda declaration: replace(
        declaration, hyperparameters=tuple(one for one in declaration.hyperparameters if one.name != name)
    )


def with_feature(name: str, **changed: Any) -> Changed:
    return lambda declaration: replace(
        declaration, features=tuple(replace(one, **changed) if one.name == name else one for one in declaration.features)
    )


def with_target(**changed: Any) -> Changed:
    return lambda declaration: replace(declaration, target=replace(declaration.target, **changed))


def reordered(declaration: Declaration) -> Declaration:
    return replace(declaration, features=declaration.features[::-1])


MORE = Hyperparameter("more", "Another knob", "integer", 1, (0, 9))
CHANGES: dict[str, tuple[Changed, str, bool]] = {
    "a removed hyperparameter": (without_knob("alpha"), "hyperparameter alpha is removed, or renamed", True),
    "a renamed hyperparameter": (with_knob("alpha", name="penalty"), "hyperparameter alpha is removed, or renamed", True),
    "another type": (
        with_knob("alpha", kind="integer", default=1, range=(1, 9), search=(1, 9)),
        "hyperparameter alpha is Integer, no longer Continuous",
        True,
    ),
    "a narrower range": (
        with_knob("seed", range=(0, 100)),
        "hyperparameter seed takes 0 to 100, no longer 0 to 2147483647",
        True,
    ),
    "a wider range": (with_knob("cv_folds", range=(0, 50)), "hyperparameter cv_folds takes 0 to 50, no longer 0 to 20", False),
    "a removed category": (with_knob("bad_rows", choices=("fail",)), "hyperparameter bad_rows, values: drop removed", True),
    "a new category": (
        with_knob("bad_rows", choices=("fail", "drop", "mend")),
        "hyperparameter bad_rows, values: mend added",
        False,
    ),
    "another default": (with_knob("seed", default=7), "hyperparameter seed has the default 7, no longer 0", False),
    "not tunable any more": (
        with_knob("alpha", tunable=False, search=None),
        "hyperparameter alpha can't be tuned any more",
        True,
    ),
    "a new hyperparameter": (
        lambda declaration: replace(declaration, hyperparameters=(*declaration.hyperparameters, MORE)),
        "hyperparameter more is new",
        False,
    ),
    "columns in another order": (reordered, "the columns are sex, body_mass_g", True),
    "a column of another unit": (
        with_feature("body_mass_g", unit="kg"),
        "column body_mass_g has the unit kg, no longer g",
        True,
    ),
    "a column that can't be empty": (with_feature("sex", nullable=False), "column sex can't be empty any more", True),
    "a choice less": (
        with_feature("island", choices=("Biscoe", "Dream")),
        "column island, choices: Torgersen removed",
        True,
    ),
    "a choice more": (
        with_feature("sex", choices=("female", "male", "unknown")),
        "column sex, choices: unknown added",
        False,
    ),
    "a choice more, before others": (
        with_feature("sex", choices=("unknown", "female", "male")),
        "column sex has its choices in another order",
        True,
    ),
    "a label more": (
        with_target(labels=("Adelie", "Chinstrap", "Gentoo", "King")),
        "the answer's labels is Adelie, Chinstrap, Gentoo, King, no longer Adelie, Chinstrap, Gentoo",
        True,
    ),
    "a number for a class": (with_target(kind="number", labels=()), "the answer's kind is number, no longer class", True),
}


def views(change: Changed) -> tuple[dict[str, Any], dict[str, Any]]:
    before = declaration_of("penguins")
    after = check(change(before))
    return seen(algorithm(before), columns_of(before)), seen(algorithm(after), columns_of(after))


@pytest.mark.parametrize(("change", "what", "breaks"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_told_and_said_to_break_buyers_or_not(change: Changed, what: str, breaks: bool) -> None:
    changes = compare(*views(change))
    assert [one.breaks for one in changes if one.what.startswith(what)] == [breaks], changes
    assert breaks or not any(one.breaks for one in changes)


EDITS: dict[str, tuple[Edit, str, bool]] = {
    "a removed channel": (lambda r: train(r)["TrainingChannels"].pop(), "channel validation is removed, or renamed", True),
    "a channel that is required now": (
        lambda r: train(r)["TrainingChannels"][1].update(IsRequired=True),
        "channel validation is now required",
        True,
    ),
    "a channel's type": (
        lambda r: train(r)["TrainingChannels"][0].update(SupportedContentTypes=["text/csv"]),
        "channel training, content types: application/csv, ",
        True,
    ),
    "an input mode": (
        lambda r: train(r)["TrainingChannels"][0].update(SupportedInputModes=["File", "FastFile"]),
        "channel training, input modes: Pipe removed",
        True,
    ),
    "a hyperparameter that is required now": (
        lambda r: (knob(r).update(IsRequired=True), knob(r).pop("DefaultValue")),
        "hyperparameter seed is now required",
        True,
    ),
    "a metric": (lambda r: train(r)["MetricDefinitions"].pop(0), "metrics: train:rmse removed", True),
    "an objective": (
        lambda r: train(r)["SupportedTuningJobObjectiveMetrics"].pop(0),
        "objectives: Minimize validation:rmse removed",
        True,
    ),
    "several instances": (
        lambda r: train(r).update(SupportsDistributedTraining=False),
        "Several instances are no longer trained on",
        True,
    ),
    "a content type": (
        lambda r: infer(r)["SupportedContentTypes"].remove("application/x-npy"),
        "content types: application/x-npy removed",
        True,
    ),
    "a response type": (
        lambda r: infer(r)["SupportedResponseMIMETypes"].remove("application/json"),
        "response types: application/json removed",
        True,
    ),
    "instances less": (
        lambda r: infer(r)["SupportedRealtimeInferenceInstanceTypes"].remove("ml.m5.large"),
        "real-time instances: ml.m5.large removed",
        True,
    ),
    "instances more": (
        lambda r: infer(r)["SupportedTransformInstanceTypes"].append("ml.m4.xlarge"),
        "transform instances: ml.m4.xlarge added",
        False,
    ),
    "metering": (
        lambda r: infer(r)["Containers"][0].update(Environment={METERING: "inference.count"}),
        "Rows are counted as inference.count, no longer as nothing",
        True,
    ),
}


@pytest.mark.parametrize(("edit", "what", "breaks"), EDITS.values(), ids=EDITS)
def test_a_change_of_the_request_is_told_too(edit: Edit, what: str, breaks: bool) -> None:
    after = copy.deepcopy(algorithm())
    edit(after)
    (change,) = compare(seen(algorithm(), None), seen(after, None))
    assert change.what.startswith(what)
    assert change.breaks is breaks


def test_the_same_is_no_change_and_what_breaks_is_told_first() -> None:
    assert compare(*views(lambda declaration: declaration)) == []
    both = compare(*views(lambda declaration: without_knob("alpha")(with_knob("seed", default=7)(declaration))))
    assert [change.breaks for change in both] == [True, False]


# Publishing, to an AWS that stands in

ROLES = ("--role", OFFER.role)
ALGORITHM, PACKAGE = ("publish", "algorithm", *ROLES), ("publish", "model", *ROLES, "--sold-model", MODEL)


@pytest.fixture
def seller(aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cloud whose ECR has a tagged image, and a folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BERTH_IMAGE_URI", put_image(aws, "0.1.0-0123456789ab"))
    return aws


def put_image(aws, tag: str, content: str = "first") -> str:
    """Put an image into ECR, and return it as push prints it."""
    ecr = aws.client("ecr")
    if not ecr.describe_repositories()["repositories"]:
        ecr.create_repository(repositoryName="berth")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": digest(content)},
        "layers": [],
    }
    named = {"imageDigest": digest(content), **({"imageTag": tag} if tag else {})}
    put = ecr.put_image(repositoryName="berth", imageManifest=json.dumps(manifest), **named)
    return f"{HOST}/berth@{put['image']['imageId']['imageDigest']}"


def digest(content: str) -> str:
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def made(aws, operation: str) -> list[dict[str, Any]]:
    return [call.request for call in aws.calls if call.operation == operation]


def done(ran: Ran) -> str:
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_an_algorithm_is_published_validated_and_written_down(seller) -> None:
    said = done(berth(*ALGORITHM))
    (request,) = made(seller, "CreateAlgorithm")
    assert request["AlgorithmName"] == "berth-0-1-0"
    assert "berth-0-1-0 is the first version of berth." in said
    assert "Algorithm berth-0-1-0: InProgress, scan of the image InProgress, validation InProgress" in said
    assert "Algorithm berth-0-1-0: Completed" in said
    assert f"Published: arn:aws:sagemaker:{REGION}:{ACCOUNT}:algorithm/berth-0-1-0" in said
    assert json.loads(Path("docs/releases/algorithm-berth-0-1-0.json").read_text())["columns"] == columns_of(DECLARATION)


def test_the_verb_sends_the_golden_request_but_for_what_the_image_and_the_data_are_called(seller) -> None:
    done(berth(*ALGORITHM, "--product", DECLARATION.name))
    (request,) = made(seller, "CreateAlgorithm")
    told = json.dumps(request, sort_keys=True)
    image = train(request)
    for found, expected in (
        (image["TrainingImage"], OFFER.image),
        (image["TrainingImageDigest"], OFFER.digest),
        (job(request)["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"], OFFER.data),
        (transform(request)["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"], OFFER.records),
    ):
        told = told.replace(found, expected)
    told = json.loads(told.replace("berth-market/", "berth/market/"))
    expected = json.loads((GOLDEN / "algorithm-boston-housing.json").read_text())
    assert {**told, "Tags": told["Tags"][:2]} == {**expected, "Tags": expected["Tags"][:2]}


def test_the_sample_is_copied_once_by_its_content_and_beside_what_delete_removes(seller) -> None:
    done(berth(*ALGORITHM, "--no-wait"))
    request = made(seller, "CreateAlgorithm")[0]
    s3 = seller.client("s3")
    keys = {item["Key"]: item["Size"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    data = job(request)["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"].removeprefix(f"s3://{BUCKET}/")
    records = transform(request)["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"].removeprefix(f"s3://{BUCKET}/")
    assert set(keys) == {f"{data}boston_house_prices.csv", f"{records}records.csv"}
    assert all(re.match(r"berth-market/(training|records)-[0-9a-f]{10}/", key) for key in keys)
    rows = s3.get_object(Bucket=BUCKET, Key=f"{records}records.csv")["Body"].read().decode().splitlines()
    assert len(rows) == 100
    assert {len(row.split(",")) for row in rows} == {len(DECLARATION.features)}
    assert not set("".join(rows)) & set("RMTAX")


def test_a_second_run_makes_nothing_and_waits_again(seller) -> None:
    done(berth(*ALGORITHM, "--no-wait"))
    before = len(seller.calls)
    said = done(berth(*ALGORITHM))
    assert not [call.operation for call in seller.calls[before:] if call.operation.startswith(("Create", "Put"))]
    assert "Publish algorithm berth-0-1-0: it is there." in said
    assert "Completed" in said


def test_dry_run_prints_the_request_and_makes_nothing(seller) -> None:
    ran = berth(*ALGORITHM, "--dry-run")
    done(ran)
    assert [one["operation"] for one in ran.requests][-1] == "CreateAlgorithm"
    assert not [
        call.operation for call in seller.calls if call.operation.startswith(("Create", "Put")) and call.service != "ecr"
    ]


def test_an_answer_that_was_lost_makes_no_second_version(seller) -> None:
    seller.fail(1, "lost", operation="CreateAlgorithm")
    berth(*ALGORITHM)
    done(berth(*ALGORITHM))
    assert len(seller.client("sagemaker").list_algorithms()["AlgorithmSummaryList"]) == 1


def test_the_same_version_with_other_content_is_refused(seller) -> None:
    done(berth(*ALGORITHM))
    ran = berth(*ALGORITHM, "--training-types", "ml.m5.large")
    assert ran.exit_code == 1
    assert "differs in TrainingSpecification.SupportedTrainingInstanceTypes. A version never changes" in ran.output
    assert len(made(seller, "CreateAlgorithm")) == 1


def test_a_second_version_keeps_the_first_and_says_what_buyers_see(seller) -> None:
    done(berth(*ALGORITHM))
    said = done(berth(*ALGORITHM, "--release", "0.2.0", "--transform-types", "ml.m4.xlarge", *each("--transform-types")))
    assert "Since berth-0-1-0: 1 change(s) that buyers see.\n  to be told: transform instances: ml.m4.xlarge added" in said
    names = {one["AlgorithmName"] for one in seller.client("sagemaker").list_algorithms()["AlgorithmSummaryList"]}
    assert names == {"berth-0-1-0", "berth-0-2-0"}


def each(flag: str) -> list[str]:
    return [word for kind in INSTANCES for word in (flag, kind)]


def test_what_breaks_buyers_is_refused_unless_it_is_meant(seller) -> None:
    done(berth(*ALGORITHM))
    second = (*ALGORITHM, "--release", "1.0.0", "--training-types", "ml.m5.large")
    ran = berth(*second)
    assert ran.exit_code == 1
    assert "breaks buyers: training instances: ml.m5.xlarge, ml.m5.2xlarge" in ran.output
    assert "--breaking" in ran.output
    assert len(made(seller, "CreateAlgorithm")) == 1
    done(berth(*second, "--breaking"))


def test_another_answer_is_found_by_what_was_written_down_and_where_that_is_lost_nothing_is_taken_for_granted(
    seller, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(berth(*ALGORITHM))
    target = replace(DECLARATION.target, unit="dollars")
    monkeypatch.setattr("deploy.market.publish.DECLARATION", replace(DECLARATION, target=target))
    ran = berth(*ALGORITHM, "--release", "0.2.0")
    assert "breaks buyers: the answer's unit is dollars, no longer thousand dollars" in ran.output
    assert berth(*ALGORITHM).output.count("differs in the model's columns") == 1
    Path("docs/releases/algorithm-berth-0-1-0.json").unlink()
    ran = berth(*ALGORITHM, "--release", "0.2.0")
    assert ran.exit_code == 1
    assert "breaks buyers: what the model takes and answers is another, and what it was is not known" in ran.output


def test_a_failed_validation_is_said_in_words_and_is_no_version(seller) -> None:
    seller.script("algorithm", "*", outcome="failed", reason="The transform job answered 500.")
    for _ in range(2):
        ran = berth(*ALGORITHM)
        assert ran.exit_code == 1
        assert "validation: The transform job answered 500." in ran.output
        assert "aws sagemaker delete-algorithm --algorithm-name berth-0-1-0" in ran.output
    assert not Path("docs/releases").exists()
    assert "is the first version of berth" in berth(*ALGORITHM, "--release", "0.2.0").output


def test_another_products_versions_are_not_this_ones(seller) -> None:
    done(berth(*ALGORITHM, "--product", "berth-2", "--release", "0.1.0"))
    assert "is the first version of berth." in done(berth(*ALGORITHM))


def test_a_model_package_is_published_apart_from_the_registry(seller) -> None:
    said = done(berth(*PACKAGE))
    (request,) = made(seller, "CreateModelPackage")
    assert request["CertifyForMarketplace"] is True
    assert "ModelPackageGroupName" not in request
    assert "Model package berth-0-1-0: Completed" in said
    done(berth(*PACKAGE))
    assert len(made(seller, "CreateModelPackage")) == 1
    assert "Since berth-0-1-0: 0 change(s)" in done(berth(*PACKAGE, "--release", "0.2.0"))


def test_delete_leaves_what_is_sold(seller) -> None:
    done(berth(*ALGORITHM))
    done(berth(*PACKAGE))
    done(berth("delete", "--yes", "--models", "--jobs", "--data", "--images"))
    sagemaker = seller.client("sagemaker")
    assert sagemaker.describe_algorithm(AlgorithmName="berth-0-1-0")["AlgorithmStatus"] == "Completed"
    assert len(sagemaker.list_model_packages(ModelPackageType="Unversioned")["ModelPackageSummaryList"]) == 1
    assert seller.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        pytest.param(("--release", "1" * 70), "is no name that SageMaker takes", id="a long name"),
        pytest.param(("--sample", "nowhere"), "The sample nowhere is not here", id="no sample"),
        pytest.param(("--uri", f"docker.io/a/berth@{OFFER.digest}"), "not in this account's ECR", id="another registry"),
        pytest.param(("--uri", f"{HOST}/berth@{OFFER.digest}"), "Run `python -m deploy push` first", id="no such image"),
        pytest.param(("--validation-type", "ml.p3.2xlarge"), "M-5: The validation trains on ml.p3.2xlarge", id="a rule"),
    ],
)
def test_what_cannot_be_published_is_refused_before_it_is_made(seller, words: tuple[str, ...], why: str) -> None:
    ran = berth(*ALGORITHM, *words)
    assert ran.exit_code in {1, 2}
    assert why in ran.output
    assert not made(seller, "CreateAlgorithm")


def test_an_image_without_a_tag_is_told_how_to_get_one(seller) -> None:
    ran = berth(*ALGORITHM, "--uri", put_image(seller, "", "second"))
    assert "has no tag, and an image without one is not scanned (M-8)" in ran.output


def test_a_tag_that_is_added_later_makes_no_other_request(seller) -> None:
    done(berth(*ALGORITHM))
    put_image(seller, "0-newest")
    assert "it is there" in done(berth(*ALGORITHM))


def test_a_version_that_cannot_be_told_is_asked_for(seller) -> None:
    ran = berth(*ALGORITHM, "--uri", put_image(seller, "newest", "second"))
    assert ran.exit_code == 2
    assert "Say what buyers are to see: --release 1.0.0." in ran.output


def test_the_settings_file_reaches_the_words_of_publish(seller) -> None:
    Path("deploy.toml").write_text('[listing]\nrelease = "3.0.0"\n')
    done(berth(*ALGORITHM, "--no-wait"))
    assert made(seller, "CreateAlgorithm")[0]["AlgorithmName"] == "berth-3-0-0"
