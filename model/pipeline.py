"""What learns: preprocessing and estimator in one scikit-learn pipeline, from raw features to the prediction.

All preprocessing is fitted on training rows and saved with the model: a request is never scaled by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from contract.declaration import Declaration, Feature

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Estimator:
    """One algorithm: how to make it for a number and for a class, and what it wants done to the columns."""

    regressor: Callable[[Values], Any]
    classifier: Callable[[Values], Any]
    prepare: Callable[[tuple[Feature, ...]], ColumnTransformer | None]
    rounds: tuple[str, str] | None = None
    """The estimator's parameter that counts its rounds and the hyperparameter that sets it, where a fit can be carried on,
    with `warm_start` (and comes to the same however the calls are cut, as forests do) or in a way of `training/rounds.py`:
    training then stops, and keeps what it has, between rounds."""


def build_pipeline(declaration: Declaration, values: Values) -> Pipeline:
    """Return the unfitted pipeline that the hyperparameters ask for.

    It takes (n_rows, n_features) float32 in the declaration's order: a category is the index of its choice, a missing
    value NaN. It predicts numbers, or labels with `predict_proba`.
    """
    chosen = ESTIMATORS[values["estimator"]]
    make = chosen.classifier if declaration.target.kind == "class" else chosen.regressor
    prepare = chosen.prepare(declaration.features)
    return Pipeline([*([("prepare", prepare)] if prepare is not None else []), ("estimator", make(values))])


def leave_as_is(_: tuple[Feature, ...]) -> None:
    """Do nothing: trees split on raw values, missing ones too; scaling would move values across float32 thresholds."""


def fill(features: tuple[Feature, ...]) -> ColumnTransformer | None:
    """Fill missing numbers with the median and missing categories with an index of their own."""
    steps = [(feature.name, _filler(feature), [index]) for index, feature in enumerate(features) if feature.nullable]
    return ColumnTransformer(steps, remainder="passthrough") if steps else None


def fill_and_scale(features: tuple[Feature, ...]) -> ColumnTransformer:
    """Fill missing values, bring numbers to mean 0 and deviation 1, spread categories over 0-or-1 columns."""
    steps = []
    for index, feature in enumerate(features):
        if feature.kind == "category":
            indexes = [float(choice) for choice in range(len(feature.choices) + feature.nullable)]
            last = OneHotEncoder(categories=[indexes], sparse_output=False)
        else:
            last = StandardScaler()
        steps.append((feature.name, make_pipeline(_filler(feature), last) if feature.nullable else last, [index]))
    return ColumnTransformer(steps)


def _filler(feature: Feature) -> SimpleImputer:
    if feature.kind == "category":
        return SimpleImputer(strategy="constant", fill_value=float(len(feature.choices)), keep_empty_features=True)
    return SimpleImputer(strategy="median", keep_empty_features=True)


def _boosting(values: Values) -> Values:
    names = ("learning_rate", "max_iter", "max_leaf_nodes", "min_samples_leaf", "l2_regularization")
    return {**{name: values[name] for name in names}, "random_state": values["seed"], "early_stopping": False}


def _lightgbm(values: Values) -> Values:
    """Return LightGBM's own names for the knobs, and settings under which the same rows give the same trees."""
    return {
        "learning_rate": values["learning_rate"],
        "n_estimators": values["max_iter"],
        "num_leaves": values["max_leaf_nodes"],
        "min_child_samples": values["min_samples_leaf"],
        "reg_lambda": values["l2_regularization"],
        "subsample": values["row_fraction"],
        "subsample_freq": 1 if values["row_fraction"] < 1 else 0,
        "colsample_bytree": values["feature_fraction"],
        "random_state": values["seed"],
        "n_jobs": 0,  # as many as OpenMP would take: who fits decides by the rows, as for histogram boosting
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }


def _lightgbm_regressor(values: Values) -> Any:
    from lightgbm import LGBMRegressor  # with it comes Dask: a second that only who asks for it pays

    return LGBMRegressor(**_lightgbm(values))


def _lightgbm_classifier(values: Values) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(**_lightgbm(values))


def _forest(values: Values) -> Values:
    named = {name: values[name] for name in ("n_estimators", "max_features")}
    return {**named, "max_depth": values["max_depth"] or None, "random_state": values["seed"], "n_jobs": -1}


def _mlp(values: Values) -> Values:
    return {
        "hidden_layer_sizes": (values["hidden_units"], values["hidden_units"]),
        "learning_rate_init": values["learning_rate_init"],
        "alpha": values["weight_decay"],
        "max_iter": values["epochs"],
        "random_state": values["seed"],
    }


ESTIMATORS: dict[str, Estimator] = {
    "hist_gradient_boosting": Estimator(
        regressor=lambda values: HistGradientBoostingRegressor(**_boosting(values)),
        classifier=lambda values: HistGradientBoostingClassifier(**_boosting(values)),
        prepare=leave_as_is,
        rounds=("max_iter", "max_iter"),
    ),
    "random_forest": Estimator(
        regressor=lambda values: RandomForestRegressor(**_forest(values)),
        classifier=lambda values: RandomForestClassifier(**_forest(values)),
        prepare=fill,
        rounds=("n_estimators", "n_estimators"),
    ),
    "ridge": Estimator(
        regressor=lambda values: Ridge(alpha=values["alpha"]),
        # RidgeClassifier has no probabilities; logistic regression is its kin that has, C the inverse of alpha.
        classifier=lambda values: LogisticRegression(C=1 / values["alpha"], max_iter=1_000, random_state=values["seed"]),
        prepare=fill_and_scale,
    ),
    "mlp": Estimator(
        regressor=lambda values: MLPRegressor(**_mlp(values)),
        classifier=lambda values: MLPClassifier(**_mlp(values)),
        prepare=fill_and_scale,
        rounds=("max_iter", "epochs"),
    ),
    "lightgbm": Estimator(
        regressor=_lightgbm_regressor, classifier=_lightgbm_classifier, prepare=leave_as_is, rounds=("n_estimators", "max_iter")
    ),
}
