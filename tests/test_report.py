"""training/ after the fit: what is measured, bounded, drawn and written, by models that are fitted here in a second."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import jsonschema
import numpy as np
import pytest
from conftest import SAMPLE, lacking
from playwright.sync_api import sync_playwright

from contract.declaration import Declaration, Feature, Target
from contract.errors import ExportFailed
from contract.hyperparameters import parse_hyperparameters
from contract.job import Channel
from contract.manifest import Manifest, read_manifest
from contract.metrics import INTERVAL_COVERAGE
from model import DECLARATION
from model.metrics import REGRESSION, score, score_columns
from model.pipeline import build_pipeline
from training import evaluate
from training.alone import Done
from training.artifacts import Trained, write
from training.drawing import Drawer
from training.export import _convert
from training.facts import described
from training.fit import Fitted
from training.intervals import calibrate, rows_needed
from training.read import Table, read_channel
from training.report import CARD, PAGE, QUALITY, figure
from training.split import Data

# As in test_model.py.
pytestmark = pytest.mark.filterwarnings("ignore:Field onnx.AttributeProto.ints:DeprecationWarning")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ORIGIN = {
    "training_job_name": "mine-1",
    "training_job_arn": "arn:aws:x",
    "image_version": "1.2.3",
    "started": "2026-01-01",
    "stopped_early": False,
    "resumed_after_rounds": 0,
}
HOSTILE = "</svg><script>alert(1)</script> $x$ & \"'"
TREES = Declaration(
    "trees",
    "Trees",
    "Which tree it is.",
    (
        Feature("HEIGHT", "how high", unit="m"),
        Feature("GIRTH", "how thick", nullable=True),
        Feature("SOIL", "what below", kind="category", choices=("clay", "sand"), nullable=True),
        Feature(HOSTILE, HOSTILE),
    ),
    Target("SPECIES", "Which tree", "class", labels=("ash", "elm", "<oak>")),
    DECLARATION.hyperparameters,
)


@dataclass(frozen=True)
class Made:
    """A model that was fitted here, and its directory."""

    folder: Path
    trained: Trained
    manifest: Manifest

    @property
    def page(self) -> str:
        return (self.folder / PAGE).read_text(encoding="utf-8")

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def _trained(declaration: Declaration, data: Data, origin: dict[str, Any], **raw: str) -> Trained:
    values = parse_hyperparameters({"max_iter": "30", **raw}, declaration.hyperparameters)
    model = build_pipeline(declaration, values).fit(data.train.matrix, data.train.target)
    done = Done(described(data, declaration), values, Fitted(model, False, 0))
    return Trained(declaration, done, evaluate.evaluate(declaration, model, done.data, values), origin)


def _make(folder: Path, trained: Trained) -> Made:
    write(folder, trained, Drawer())
    return Made(folder, trained, read_manifest(folder))


def _halves(table: Table, held_out: int) -> Data:
    rows = np.random.default_rng(0).permutation(len(table))
    return Data(table.take(rows[held_out:]), table.take(rows[:held_out]), table)


@pytest.fixture(scope="module")
def housing(tmp_path_factory: pytest.TempPathFactory) -> Made:
    table = read_channel(Channel("training", SAMPLE, ""), DECLARATION)
    return _make(tmp_path_factory.mktemp("housing") / "model", _trained(DECLARATION, _halves(table, 102), ORIGIN))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Classes, a category, missing values and names that try to leave their place."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, 400)
    matrix = np.column_stack(
        [random.normal(10 + kind, 1), random.normal(50 + 30 * kind, 15), random.integers(0, 2, 400), random.normal(0, 1, 400)]
    ).astype(np.float32)
    matrix[::7, 1], matrix[::5, 2] = np.nan, np.nan
    table = Table(matrix, np.array(TREES.target.labels)[kind])
    origin = {**ORIGIN, "stopped_early": True, "resumed_after_rounds": 20}
    return _make(tmp_path_factory.mktemp("trees") / "model", _trained(TREES, _halves(table, 150), origin))


@pytest.fixture(params=["housing", "trees"])
def made(request: pytest.FixtureRequest) -> Made:
    return request.getfixturevalue(request.param)


# Metrics and their bounds


def test_every_metric_is_of_the_answers_that_will_be_served(made: Made) -> None:
    part = made.trained.evaluation.held_out
    served = made.trained.evaluation.predict(part.table.matrix)
    labels = made.manifest.labels
    again = score(part.table.target, served.values, served.probabilities, labels)
    assert {f"validation:{name}": value for name, value in again.items()} == {
        name: value
        for name, value in made.manifest.metrics.items()
        if name.startswith("validation:") and name != INTERVAL_COVERAGE
    }


def test_every_validation_metric_lies_within_its_bounds(made: Made) -> None:
    held_out = {name: value for name, value in made.manifest.metrics.items() if name.startswith("validation:")}
    assert held_out.keys() == made.manifest.confidence.keys()
    for name, value in held_out.items():
        bounds = made.manifest.confidence[name]
        assert bounds["low"] <= value <= bounds["high"]
        assert bounds["low"] < bounds["high"]
        assert 0 < bounds["standard_deviation"] < (bounds["high"] - bounds["low"])


@pytest.mark.parametrize("rows", [400, 20_000])
def test_the_bounds_of_a_mean_error_are_those_that_statistics_know(rows: int) -> None:
    random = np.random.default_rng(1)
    actual = random.normal(0, 10, rows)
    predicted = actual + random.normal(0, 2, rows)
    part = evaluate.Part(Table(np.zeros((rows, 1), np.float32), actual), evaluate.Answers(predicted))
    found = evaluate._confidence(part, (), score(actual, predicted), 0)["mae"]
    deviation = np.abs(actual - predicted).std() / rows**0.5
    assert found["standard_deviation"] == pytest.approx(deviation, rel=0.2)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.3)


def test_the_bounds_are_the_same_for_the_same_seed(housing: Made) -> None:
    trained = housing.trained
    again = evaluate.evaluate(DECLARATION, trained.done.fitted.model, trained.done.data, trained.done.values)
    assert again.confidence == trained.evaluation.confidence


def test_the_metrics_of_numbers_take_many_samples_at_once() -> None:
    actual, predicted = np.random.default_rng(0).normal(size=(2, 50, 7))
    columns = score_columns(actual, predicted)
    assert set(columns) == {metric.name for metric in REGRESSION}
    one_by_one = [score(actual[:, i], predicted[:, i]) for i in range(7)]
    for name, values in columns.items():
        assert values.tolist() == pytest.approx([scores[name] for scores in one_by_one])


class _Counting:
    """A pipeline that counts the rows it is asked for."""

    def __init__(self, model: Any) -> None:
        self.model, self.rows = model, 0
        self.steps = model.steps

    def predict(self, matrix: Any) -> Any:
        self.rows += len(matrix)
        return self.model.predict(matrix)


def _many(rows: int) -> Table:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(rows, 6)).astype(np.float32)
    return Table(matrix, matrix[:, 0].astype(np.float64) + random.normal(size=rows))


@pytest.mark.parametrize(
    ("stopped", "compared"), [pytest.param(False, 20_000, id="whole"), pytest.param(True, 10_000, id="stopped")]
)
def test_of_many_rows_scikit_learn_is_asked_for_some_and_all_held_out_ones_count(
    monkeypatch, stopped: bool, compared: int
) -> None:
    data = Data(_many(150_000), _many(60_000), _many(10))
    values = parse_hyperparameters({"estimator": "ridge"}, DECLARATION.hyperparameters)
    counting = _Counting(build_pipeline(DECLARATION, values).fit(data.train.matrix, data.train.target))
    monkeypatch.setattr("training.export._convert", lambda model, width: _convert(model.model, width))
    found = evaluate.evaluate(DECLARATION, counting, described(data, DECLARATION), values, stopped)  # type: ignore[arg-type]
    assert (counting.rows, found.parity["rows"]) == (compared, compared)
    assert (len(found.train), len(found.held_out)) == (10_000, 60_000)


# Prediction intervals


def test_the_half_width_is_the_residual_of_its_rank(housing: Made) -> None:
    part = housing.trained.evaluation.held_out
    residuals = np.sort(np.abs(part.table.target.astype(float) - part.answers.values))
    rank = int(np.ceil((len(residuals) + 1) * 0.9))
    assert housing.manifest.intervals == {
        "level": 0.9,
        "half_width": pytest.approx(residuals[rank - 1]),
        "rows": 102,
        "method": "split-conformal",
    }


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_new_rows_lie_within_as_often_as_the_level_says(level: float) -> None:
    random = np.random.default_rng(2)
    found = calibrate(random.standard_t(3, 4_000), np.zeros(4_000), level, 0)
    assert found is not None
    new = np.abs(random.standard_t(3, 100_000))
    assert np.mean(new <= found.half_width) == pytest.approx(level, abs=0.02)
    assert found.coverage[level] == pytest.approx(level, abs=0.04)
    assert list(found.coverage.values()) == sorted(found.coverage.values())


@pytest.mark.parametrize(("level", "rows"), [(0.5, 1), (0.9, 10), (0.95, 19), (0.99, 99)])
def test_a_level_that_the_rows_cannot_vouch_for_gives_no_interval(level: float, rows: int) -> None:
    assert rows_needed(level) == rows
    assert calibrate(np.zeros(rows - 1), np.ones(rows - 1), level, 0) is None
    enough = calibrate(np.zeros(rows), np.ones(rows), level, 0)
    assert enough is not None
    assert enough.half_width == 1


def test_a_job_without_intervals_says_why(housing: Made, tmp_path: Path, capsys) -> None:
    made = _make(
        tmp_path / "m", _trained(DECLARATION, housing.trained.done.data, ORIGIN, estimator="ridge", interval_level="0.99")
    )
    assert made.manifest.intervals is not None
    few = Data(
        housing.trained.done.data.train,
        housing.trained.done.data.validation.take(np.arange(50)),
        housing.trained.done.data.head,
    )
    made = _make(tmp_path / "m", _trained(DECLARATION, few, ORIGIN, estimator="ridge", interval_level="0.99"))
    assert made.manifest.intervals is None
    assert INTERVAL_COVERAGE not in made.manifest.metrics
    assert "intervals: none at level 0.99: 50 rows are held out, 99 are needed" in capsys.readouterr().out
    assert "None: too few rows are held out" in made.page


def test_classes_have_no_intervals(trees: Made) -> None:
    assert trees.manifest.intervals is None
    assert "Prediction intervals" not in trees.page


# The page

VOID = {"meta", "link", "br", "img", "hr", "input"}


class _Page(HTMLParser):
    """Checks that what is opened is closed, and collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in {"td", "th", "dd", "p", "h1"}:
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_page_stands_alone(made: Made) -> None:
    page = _Page(made.page)
    assert page.open == []
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "form"}
    loaded = [value for _, name, value in page.attributes if name in {"src", "href", "xlink:href", "srcset", "action"}]
    assert [value for value in loaded if not value.startswith("#")] == []
    assert not re.search(r"url\((?!#)|@import|https?://|\bon\w+=", made.page)
    assert b'<meta charset="utf-8">' in made.page.encode()[:1024]
    assert made.page.startswith("<!doctype html>\n<html lang=")


def test_every_id_is_one_and_every_reference_has_its_id(made: Made) -> None:
    ids = Counter(value for _, name, value in _Page(made.page).attributes if name == "id")
    assert [name for name, count in ids.items() if count > 1] == []
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", made.page)) <= ids.keys()


def test_every_drawing_has_a_text_and_the_pages_colors(made: Made) -> None:
    page = _Page(made.page)
    texts = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(texts) == page.tags["svg"] >= 6
    assert min(map(len, texts)) > 20
    assert not re.search(r"(fill|stroke): #", made.page)


def test_the_figures_are_the_manifests(made: Made) -> None:
    text = " ".join(_Page(made.page).cells)
    shown = [*made.manifest.metrics.values(), *(made.manifest.intervals or {}).values()]
    shown += [bound[end] for bound in made.manifest.confidence.values() for end in ("low", "high")]
    shown += [value for seen in made.manifest.ranges.values() for value in seen.values() if not isinstance(value, dict)]
    told = {figure(value) for value in shown if isinstance(value, float)}
    assert [number for number in told if number not in text] == []
    assert made.manifest.data["sha256"] in text
    assert f"{made.manifest.data['validation_rows']:,} held-out rows" in text


def test_it_tells_what_the_model_is_and_where_it_comes_from(housing: Made) -> None:
    text = " ".join(" ".join(_Page(housing.page).cells).split())
    for part in (DECLARATION.title, DECLARATION.about, DECLARATION.intended_use, DECLARATION.limits, "mine-1", "arn:aws:x"):
        assert part in text
    assert "scikit-learn 1." in text
    assert "Stopped early" not in text
    assert "Resumed" not in text


def test_a_job_that_was_stopped_or_resumed_says_so(trees: Made) -> None:
    assert "Stopped early." in trees.page
    assert "after 20 rounds" in trees.page


def test_another_model_says_nothing_of_houses(trees: Made) -> None:
    whole = trees.page + json.dumps(trees.json(CARD)) + json.dumps(trees.json(QUALITY))
    assert [word for word in ("housing", "MEDV", "LSTAT", "Boston", "homes") if word.lower() in whole.lower()] == []
    assert "Intended use" not in trees.page


def test_the_confusion_matrix_counts_every_held_out_row(trees: Made) -> None:
    part = trees.trained.evaluation.held_out
    matrix = trees.json(QUALITY)["multiclass_classification_metrics"]["confusion_matrix"]
    pairs = Counter(zip(part.table.target.tolist(), part.answers.values.tolist(), strict=True))
    assert {(actual, told): count for actual, row in matrix.items() for told, count in row.items() if count} == pairs
    assert sum(pairs.values()) == 150


def test_the_feature_that_decides_is_the_most_important_and_noise_is_none(trees: Made) -> None:
    (group,) = [g for g in trees.json(CARD)["evaluation_details"][0]["metric_groups"] if g["name"] == "permutation importance"]
    (bars,) = group["metric_data"]
    importance = dict(zip(bars["x_axis_name"], bars["value"], strict=True))
    assert next(iter(importance)) == "GIRTH"
    assert abs(importance[HOSTILE[:63]]) < 0.05 < importance["GIRTH"]


def test_the_report_stays_small_whatever_the_rows(tmp_path: Path) -> None:
    data = Data(_many(1_000), _many(20_000), _many(1_000))
    trained = _trained(DECLARATION, data, ORIGIN, estimator="ridge")
    made = _make(tmp_path / "m", trained)
    assert "500 rows of 20,000 are drawn" in made.page
    assert sum((made.folder / name).stat().st_size for name in (PAGE, CARD, QUALITY)) < 300_000


# For a model registry

TEXT, NUMBER = {"type": "string", "minLength": 1, "maxLength": 2048}, {"type": "number"}
AXIS = {"anyOf": [{"type": "string", "maxLength": 63}, {"type": "array", "items": {"type": "string", "maxLength": 63}}]}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": properties}


def _list(items: Any, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": most}


def _pairs(value: Any) -> dict[str, Any]:
    return _object("name value", name={"type": "string", "pattern": "^.{1,255}$"}, value=value, notes=TEXT)


def _metric(kind: str, value: Any) -> dict[str, Any]:
    name = {"type": "string", "pattern": "^.{1,255}$"}
    axes = {"x_axis_name": AXIS, "y_axis_name": AXIS}
    return _object("name type value", name=name, type={"const": kind}, value=value, notes=TEXT, **axes)


METRICS = [
    _metric("number", NUMBER),
    _metric("bar_chart", {**_list(NUMBER, 1_000), "minItems": 1}),
    _metric("linear_graph", {**_list({**_list(NUMBER, 2), "minItems": 2}, 1_000), "minItems": 1}),
    _metric("matrix", {**_list({**_list(NUMBER, 20), "minItems": 1}, 20), "minItems": 1}),
]
NAME = {"type": "string", "pattern": "^.{1,63}$"}
# What "Model package model card schema" of the SageMaker guide's model-registry-details page allows, in our own words.
CARD_SCHEMA = _object(
    model_overview=_object(model_creator=TEXT, model_artifact=_list(TEXT, 15)),
    intended_uses=_object(
        purpose_of_model=TEXT,
        intended_uses=TEXT,
        factors_affecting_model_efficiency=TEXT,
        risk_rating={"enum": ["High", "Medium", "Low", "Unknown"]},
        explanations_for_risk_rating=TEXT,
    ),
    training_details=_object(
        training_observations={**TEXT, "maxLength": 1024},
        training_job_details=_object(
            training_arn={**TEXT, "maxLength": 1024},
            user_provided_training_metrics=_list(_pairs(NUMBER), 50),
            user_provided_hyper_parameters=_list(_pairs({"type": "string", "pattern": "^.{1,255}$"}), 100),
        ),
    ),
    evaluation_details=_list(
        _object(
            "name",
            name=NAME,
            evaluation_observation=TEXT,
            metric_groups=_list(_object("name metric_data", name=NAME, metric_data=_list({"anyOf": METRICS}, 50)), 20),
        ),
        10,
    ),
    additional_information=_object(
        ethical_considerations=TEXT,
        caveats_and_recommendations=TEXT,
        custom_details={"type": "object", "additionalProperties": {**TEXT, "maxLength": 1024}},
    ),
)


def test_the_card_is_what_the_registrys_schema_allows(made: Made) -> None:
    jsonschema.validate(made.json(CARD), CARD_SCHEMA)


def test_endless_texts_and_many_knobs_still_make_a_card(housing: Made, tmp_path: Path) -> None:
    knobs = tuple(replace(DECLARATION.hyperparameters[-1], name=f"knob{i}") for i in range(150))
    long = replace(DECLARATION, about="a" * 9_000, limits="b" * 9_000, hyperparameters=(*DECLARATION.hyperparameters, *knobs))
    values = {**housing.trained.done.values, **{knob.name: 1.5 for knob in knobs}}
    made = _make(tmp_path / "m", replace(housing.trained, declaration=long, done=replace(housing.trained.done, values=values)))
    jsonschema.validate(made.json(CARD), CARD_SCHEMA)
    assert len((made.folder / CARD).read_text()) < 100_000


def test_create_model_package_takes_card_and_metrics(made: Made) -> None:
    card = (made.folder / CARD).read_text(encoding="utf-8")
    loader = botocore.loaders.Loader()
    service = botocore.model.ServiceModel(loader.load_service_model("sagemaker", "service-2"), "sagemaker")
    shape: Any = service.operation_model("CreateModelPackage").input_shape
    assert len(card) <= shape.members["ModelCard"].members["ModelCardContent"].metadata["max"] == 100_000
    source = {"ContentType": "application/json", "S3Uri": f"s3://bucket/model/{QUALITY}"}
    asked = {
        "ModelPackageGroupName": made.manifest.declaration.name,
        "ModelCard": {"ModelCardContent": card, "ModelCardStatus": "Draft"},
        "ModelMetrics": {"ModelQuality": {"Statistics": source}},
    }
    found = botocore.validate.ParamValidator().validate(asked, shape)
    assert found.generate_report() == ""


def test_quality_metrics_have_model_monitors_shape(housing: Made) -> None:
    document = housing.json(QUALITY)
    measured = document["regression_metrics"]
    assert {"mae", "rmse", "r2"} <= measured.keys()
    for name, entry in measured.items():
        assert entry == {
            "value": housing.manifest.metrics[f"validation:{name}"],
            "standard_deviation": housing.manifest.confidence[f"validation:{name}"]["standard_deviation"],
        }
    assert document["dataset"]["item_count"] == 102


# What can go wrong


def test_a_report_that_cannot_be_drawn_costs_the_report_alone(housing: Made, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "model"
    shutil.copytree(housing.folder, folder)
    monkeypatch.setattr("training.plots.curve", lambda *_: 1 / 0)
    made = _make(folder, housing.trained)
    assert made.manifest.report == {"drawn": False, "why": "ZeroDivisionError: division by zero"}
    assert set(made.manifest.files) == {"model.joblib", "model.onnx"}
    assert not (folder / PAGE).exists()
    assert "report: NOT DRAWN: ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("lost", [False, True], ids=["drawn in a process of its own", "that process was killed"])
def test_the_report_is_the_same_wherever_its_figures_are_drawn(made: Made, lost: bool, tmp_path: Path) -> None:
    ended, drawer = r"\d\d:\d\d:\d\d\+00:00", Drawer()
    drawer.start()
    (process,) = [child for child in multiprocessing.active_children() if child.pid]
    try:
        if lost:
            process.kill()
            process.join()
        write(tmp_path / "m", made.trained, drawer)
        assert re.sub(ended, "", (tmp_path / "m" / PAGE).read_text(encoding="utf-8")) == re.sub(ended, "", made.page)
        assert process.is_alive() is not lost
    finally:
        process.kill()
        process.join()


def test_a_figure_that_a_process_of_its_own_cannot_draw_is_told() -> None:
    drawer = Drawer()
    drawer.start()
    drawer.ask([("coverage", ({},)), ("curve", (1, 2))])
    with pytest.raises(RuntimeError, match=r"^TypeError: curve\(\) missing 3 required positional arguments"):
        drawer.figures()


def test_a_report_that_is_drawn_is_said_to_be(made: Made) -> None:
    assert made.manifest.report == {"drawn": True}
    assert {PAGE, CARD, QUALITY} < set(made.manifest.files)


def test_a_model_that_onnx_cannot_express_is_evaluated_by_scikit_learn(housing: Made, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> bytes:
        raise ExportFailed("ONNX can't express <this>")

    monkeypatch.setattr("training.export._convert", refuse)
    made = _make(
        tmp_path / "m", _trained(DECLARATION, housing.trained.done.data, ORIGIN, estimator="ridge", allow_sklearn="true")
    )
    part = made.trained.evaluation.held_out
    assert part.answers.values.tolist() == made.trained.done.fitted.model.predict(part.table.matrix).tolist()
    assert "ONNX can&#39;t express &lt;this&gt;" in made.page
    assert made.manifest.parity == {"onnx": False, "why": "ONNX can't express <this>"}


@pytest.mark.parametrize("rows", [2, 12])
def test_the_fewest_rows_that_train_takes_are_enough_for_a_report(housing: Made, tmp_path: Path, rows: int) -> None:
    few = Data(
        housing.trained.done.data.train,
        housing.trained.done.data.validation.take(np.arange(rows)),
        housing.trained.done.data.head,
    )
    made = _make(tmp_path / "m", _trained(DECLARATION, few, ORIGIN, estimator="ridge"))
    assert made.manifest.report == {"drawn": True}


def test_a_constant_column_and_target_are_drawn_too(tmp_path: Path) -> None:
    table = Table(np.ones((40, 6), np.float32), np.full(40, 3.0))
    made = _make(tmp_path / "m", _trained(DECLARATION, _halves(table, 20), ORIGIN, estimator="ridge"))
    assert made.manifest.report == {"drawn": True}


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        lacking(f"there is no browser: {', '.join(BROWSERS)}")
    flags = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=flags.split())
        yield started
        started.close()


def _lightness(color: str) -> int:
    return sum(map(int, re.findall(r"\d+", color)[:3]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_by_day_and_by_night(browser, made: Made, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme=scheme)
    page, faults, asked = context.new_page(), [], []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((made.folder / PAGE).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper, ink = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    label = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert (_lightness(paper) > 600) == (scheme == "light")
    assert min(abs(_lightness(paper) - _lightness(color)) for color in (ink, label)) > 200
    heights = page.evaluate("[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)")
    assert min(heights) >= 8
    if os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{made.folder.parent.name}-{scheme}.png", full_page=True)
    context.close()
    assert faults == []
    assert [url for url in asked if not url.startswith("file:")] == []
