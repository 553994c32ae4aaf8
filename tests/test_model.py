"""model/ and the export of what it fits: every estimator, on every kind of data, says in ONNX what it says in scikit-learn."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
from conftest import SAMPLE
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from contract.declaration import AUTO, Declaration, Feature, Target, check
from contract.errors import ExportFailed
from contract.hyperparameters import parse_hyperparameters
from contract.job import Channel
from model import DECLARATION
from model.metrics import measure
from model.pipeline import ESTIMATORS, build_pipeline
from training.export import export
from training.read import read_channel

# onnx 1.23 gives protobuf booleans for integers, which protobuf 7 refuses: hence the pin in pyproject.toml.
pytestmark = pytest.mark.filterwarnings("ignore:Field onnx.AttributeProto.ints:DeprecationWarning")

ROWS = 240
PLAIN = tuple(Feature(name, "a number") for name in "ABC")
MIXED = (
    *PLAIN,
    Feature("D", "a number that may be missing", nullable=True),
    Feature("E", "a category", kind="category", choices=("x", "y", "z")),
    Feature("F", "a category that may be missing", kind="category", choices=("u", "v"), nullable=True),
)
NUMBER = Target("T", "a number")
TARGETS = {
    "number": NUMBER,
    "two classes": Target("T", "one of two", kind="class", labels=("no", "yes")),
    "three classes": Target("T", "one of three", kind="class", labels=("10", "9", "a b")),
}
SMALL = {"max_iter": "20", "n_estimators": "20", "epochs": "20"}


def _matrix(features: tuple[Feature, ...], rows: int = ROWS) -> np.ndarray:
    """Return made-up rows: numbers round about 50, a fifth of what may be missing missing."""
    random = np.random.default_rng(0)
    matrix = random.normal(50, 20, (rows, len(features)))
    for index, feature in enumerate(features):
        if feature.kind == "category":
            matrix[:, index] = random.integers(len(feature.choices), size=rows)
        if feature.nullable:
            matrix[random.random(rows) < 0.2, index] = np.nan
    return matrix.astype(np.float32)


def _target(matrix: np.ndarray, target: Target) -> np.ndarray:
    """Return something that can be learnt: a sum of the columns, in equal parts where it is a class."""
    total = np.nan_to_num(matrix.astype(np.float64)).sum(axis=1)
    if target.kind == "number":
        return total
    ranks = np.argsort(np.argsort(total)) * len(target.labels) // len(total)
    return np.array(target.labels)[ranks]


@lru_cache
def _fitted(estimator: str, target: str, mixed: bool) -> tuple[Any, np.ndarray, np.ndarray]:
    features = MIXED if mixed else PLAIN
    declaration = check(replace(DECLARATION, features=features, target=TARGETS[target]))
    matrix = _matrix(features)
    actual = _target(matrix, declaration.target)
    return _pipeline(declaration, estimator).fit(matrix, actual), matrix, actual


def _pipeline(declaration: Declaration, estimator: str, **knobs: str) -> Any:
    values = parse_hyperparameters({**SMALL, "estimator": estimator, **knobs}, declaration.hyperparameters)
    return build_pipeline(declaration, values)


every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
every_target = pytest.mark.parametrize("target", TARGETS)
every_table = pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@quiet
@every_estimator
@every_target
@every_table
def test_onnx_says_what_scikit_learn_says(estimator: str, target: str, mixed: bool) -> None:
    model, matrix, actual = _fitted(estimator, target, mixed)
    exported = export(model, matrix, float(np.std(actual)) if target == "number" else 0.0)
    assert exported.parity["onnx"] is True
    assert exported.parity["rows"] == ROWS
    assert exported.parity["difference"] <= exported.parity["bound"]


@quiet
@every_estimator
@every_target
def test_onnx_answers_one_row_as_it_answers_many(estimator: str, target: str) -> None:
    model, matrix, actual = _fitted(estimator, target, True)
    session = onnxruntime.InferenceSession(export(model, matrix, float(np.std(actual)) if target == "number" else 0.0).onnx)
    outputs = session.run(None, {"features": matrix[:20]})
    assert [output.shape for output in outputs] == ([(20, 1)] if target == "number" else [(20,), (20, len(model.classes_))])
    for row in range(20):
        alone = session.run(None, {"features": matrix[row : row + 1]})
        np.testing.assert_allclose(alone[-1][0], outputs[-1][row], rtol=1e-6, atol=1e-7)


@quiet
@every_estimator
@every_target
def test_an_estimator_learns_and_is_measured(estimator: str, target: str) -> None:
    declaration = replace(DECLARATION, features=MIXED, target=TARGETS[target])
    matrix = _matrix(MIXED)
    actual = _target(matrix, declaration.target)
    scores = measure(_pipeline(declaration, estimator, epochs="400").fit(matrix, actual), matrix, actual)
    assert set(scores) == ({"rmse", "mae", "r2"} if target == "number" else {"accuracy", "f1", "log_loss"})
    assert scores.get("r2", scores.get("accuracy")) > 0.5


@quiet
@pytest.mark.parametrize("estimator", ["random_forest", "ridge", "mlp"])  # boosting fails: reading refuses such a column
def test_a_column_that_is_always_missing_still_fits(estimator: str) -> None:
    declaration = replace(DECLARATION, features=MIXED, target=NUMBER)
    matrix = _matrix(MIXED)
    actual = _target(matrix, NUMBER)
    matrix[:, [3, 5]] = np.nan
    model = _pipeline(declaration, estimator).fit(matrix, actual)
    assert export(model, matrix, float(np.std(actual))).parity["onnx"]


@quiet
@every_estimator
@pytest.mark.parametrize("constant", [0.0, 0.1, 22.5, -1e6])
def test_a_constant_target_is_learnt_and_exported(estimator: str, constant: float) -> None:
    matrix = _matrix(PLAIN, 50)
    actual = np.full(50, constant)
    model = _pipeline(replace(DECLARATION, features=PLAIN, target=NUMBER), estimator).fit(matrix, actual)
    assert export(model, matrix, float(np.std(actual))).parity["onnx"]


def test_trees_see_raw_values() -> None:
    assert [name for name, _ in _pipeline(replace(DECLARATION, features=MIXED), "hist_gradient_boosting").steps] == [
        "estimator"
    ]
    forest = _pipeline(replace(DECLARATION, features=MIXED), "random_forest")
    assert "Scaler" not in repr(forest)


def _housing() -> tuple[np.ndarray, np.ndarray]:
    table = read_channel(Channel("training", SAMPLE, ""), DECLARATION)
    return table.matrix, table.target


def test_a_scaler_before_trees_breaks_parity_and_the_message_says_so() -> None:
    matrix, actual = _housing()
    model = make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=100, random_state=0)).fit(
        matrix.astype(np.float64), actual
    )
    with pytest.raises(ExportFailed, match=r"in front of trees a scaler does this.*allow_sklearn=true") as caught:
        export(model, matrix, float(np.std(actual)))
    row = caught.value.facts["row"]
    assert f"in row {row}," in caught.value.message
    assert caught.value.facts["difference"] > caught.value.facts["bound"]


class Doubled(TransformerMixin, BaseEstimator):
    """A transformer that skl2onnx has never heard of."""

    def fit(self, matrix, actual=None):
        self.n_features_in_ = matrix.shape[1]
        return self

    def transform(self, matrix):
        return matrix * 2


def test_a_pipeline_onnx_has_no_words_for_is_refused_with_advice() -> None:
    matrix = _matrix(PLAIN)
    model = make_pipeline(Doubled(), Ridge()).fit(matrix, _target(matrix, NUMBER))
    with pytest.raises(ExportFailed, match=r"(?s)^ONNX can't express this pipeline: .*Doubled.* set allow_sklearn=true"):
        export(model, matrix, 1.0)


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "random_forest", "lightgbm"])
def test_a_huge_offset_of_the_target_is_named_as_the_cause(estimator: str) -> None:
    matrix = _matrix(PLAIN)
    actual = 1e7 + np.random.default_rng(0).normal(0, 1, ROWS)
    model = _pipeline(replace(DECLARATION, features=PLAIN, target=NUMBER), estimator).fit(matrix, actual)
    with pytest.raises(ExportFailed, match="float32, in which ONNX answers, has steps of 1 at this size: rescale or shift"):
        export(model, matrix, float(np.std(actual)))


class NotANumber:
    """A model whose answer to the second row is not what ONNX says: NaN."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        answers = self.model.predict(matrix)
        answers[1] = np.nan
        return answers


def test_an_answer_that_is_no_number_is_no_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    model, matrix, actual = _fitted("ridge", "number", False)
    onnx = export(model, matrix, float(np.std(actual))).onnx
    monkeypatch.setattr("training.export._convert", lambda *_: onnx)
    with pytest.raises(ExportFailed, match="in row 2,"):
        export(NotANumber(model), matrix, float(np.std(actual)))  # type: ignore[arg-type]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("estimator", "parameter"), [("hist_gradient_boosting", "max_iter"), ("random_forest", "n_estimators")]
)
def test_a_fit_carried_on_in_rounds_is_the_fit_in_one_go(estimator: str, parameter: str, target: str) -> None:
    whole, matrix, actual = _fitted(estimator, target, True)
    rounds = _pipeline(replace(DECLARATION, features=MIXED, target=TARGETS[target]), estimator)
    for done in (2, 9, 20):
        rounds.set_params(**{f"estimator__{parameter}": done, "estimator__warm_start": True}).fit(matrix, actual)
    answers = [getattr(model, "predict_proba", model.predict)(matrix) for model in (whole, rounds)]
    np.testing.assert_array_equal(*answers)


@quiet
@every_estimator
def test_the_same_seed_gives_the_same_bytes(estimator: str) -> None:
    model, matrix, actual = _fitted(estimator, "three classes", True)
    again = _pipeline(replace(DECLARATION, features=MIXED, target=TARGETS["three classes"]), estimator).fit(matrix, actual)
    assert export(model, matrix, 0.0).onnx == export(again, matrix, 0.0).onnx


@pytest.mark.parametrize("target", TARGETS)
def test_lightgbm_sends_what_is_missing_the_same_way_in_onnx_where_training_saw_none(target: str) -> None:
    """LightGBM then reads a missing value as 0, which is on either side of a threshold."""
    declaration = replace(DECLARATION, features=MIXED, target=TARGETS[target])
    matrix = np.nan_to_num(_matrix(MIXED)) - np.float32(50)
    actual = _target(matrix, declaration.target)
    model = _pipeline(declaration, "lightgbm").fit(matrix, actual)
    holes = _matrix(MIXED) - np.float32(50)
    holes[::3] = np.nan
    parity = export(model, np.concatenate([matrix, holes]), float(np.std(actual)) if target == "number" else 0.0).parity
    assert parity["difference"] <= parity["bound"]


def test_lightgbm_gives_the_same_trees_on_one_thread_and_on_two() -> None:
    matrix, actual = _housing()
    texts = []
    for threads in (1, 2):
        model = _pipeline(DECLARATION, "lightgbm", row_fraction="0.7", feature_fraction="0.7")
        model.set_params(estimator__n_jobs=threads).fit(matrix, actual)
        texts.append(model[-1].booster_.model_to_string().partition("parameters:")[0])
    assert texts[0] == texts[1]


@quiet
@pytest.mark.parametrize("estimator", ["random_forest", "mlp"])
def test_another_seed_gives_another_model(estimator: str) -> None:
    matrix, actual = _housing()
    answers = [_pipeline(DECLARATION, estimator, seed=seed).fit(matrix, actual).predict(matrix) for seed in ("0", "1")]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


@quiet
@every_estimator
def test_a_saved_pipeline_predicts_as_before(estimator: str, tmp_path) -> None:
    model, matrix, _ = _fitted(estimator, "number", True)
    joblib.dump(model, tmp_path / "m")
    np.testing.assert_array_equal(joblib.load(tmp_path / "m").predict(matrix), model.predict(matrix))


# What the model says of itself


def test_every_estimator_can_be_chosen_and_has_knobs_of_its_own() -> None:
    knobs = {knob.name: knob for knob in DECLARATION.hyperparameters}
    assert set(knobs["estimator"].choices) == {*ESTIMATORS, AUTO}
    assert {name for knob in knobs.values() for name in knob.estimators} == {*ESTIMATORS, AUTO}
    for estimator in ESTIMATORS.values():
        assert estimator.rounds is None or estimator.rounds[1] in knobs


@quiet
@every_estimator
def test_every_knob_of_an_estimator_reaches_it(estimator: str) -> None:
    declaration = replace(DECLARATION, features=PLAIN)
    base = repr(_pipeline(declaration, estimator).get_params())
    for knob in DECLARATION.hyperparameters:
        if estimator in knob.estimators:
            bound = next(bound for bound in reversed(knob.range or ()) if bound != knob.default)
            other = repr(_pipeline(declaration, estimator, **{knob.name: str(bound)}).get_params())
            assert other != base, knob.name


def test_a_default_lies_within_its_own_bounds() -> None:
    assert check(DECLARATION) is DECLARATION
    raw = {knob.name: str(knob.default) for knob in DECLARATION.hyperparameters}
    assert parse_hyperparameters(raw, DECLARATION.hyperparameters) == parse_hyperparameters({}, DECLARATION.hyperparameters)


# The sample


def _sample() -> list[dict[str, str]]:
    with (SAMPLE / "boston_house_prices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_sample_is_boston_housing_whole() -> None:
    rows = _sample()
    totals = {name: round(sum(float(row[name]) for row in rows), 3) for name in ("CHAS", "RM", "TAX", "LSTAT", "MEDV")}
    assert len(rows) == 506
    assert totals == {"CHAS": 35.0, "RM": 3180.025, "TAX": 206568.0, "LSTAT": 6402.45, "MEDV": 11401.6}


def test_the_samples_dictionary_describes_every_column() -> None:
    described = re.findall(r"^\| (\w+)( \*)? \| ([^|]+) \|", (SAMPLE / "README.md").read_text(), re.MULTILINE)
    read = {name for name, star, _ in described if star}
    assert [name for name, _, _ in described if name != "column"] == list(_sample()[0])
    assert all(meaning.strip() for _, _, meaning in described)
    assert read == {*DECLARATION.feature_names, DECLARATION.target.name}


def test_every_value_of_the_sample_is_within_its_declared_range() -> None:
    for feature in DECLARATION.features:
        values = [float(row[feature.name]) for row in _sample()]
        assert feature.range
        assert feature.range[0] <= min(values)
        assert max(values) <= feature.range[1]


def test_the_ethical_problem_is_named_where_people_look() -> None:
    assert "segregation" in DECLARATION.about
    assert "segregation" in (SAMPLE / "README.md").read_text()


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "random_forest", "lightgbm"])
def test_a_value_between_a_threshold_and_its_nearest_float32_goes_the_same_way_in_onnx(estimator):
    """45.8 and 46.0 have 45.89999961853027 between them, whose nearest float32 is 45.9 itself (met in the penguins)."""
    matrix = np.float32([[45.8]] * 40 + [[46.0]] * 40)
    target = np.float64([0.0] * 40 + [10.0] * 40)
    values = {knob.name: knob.default for knob in DECLARATION.hyperparameters} | {"estimator": estimator, "max_features": 1.0}
    declaration = replace(DECLARATION, features=(Feature("x", ""),))
    model = build_pipeline(declaration, values).fit(matrix, target)
    probe = np.vstack([matrix, np.float32([[45.9]])])
    before = model.predict(probe)
    assert export(model, probe, float(target.std())).parity["difference"] < 1e-4
    np.testing.assert_array_equal(model.predict(probe), before)
