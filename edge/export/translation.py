"""The model's own ONNX graph as a Core ML program: operator by operator by a table, trees walked all at once, a level a step.

A missing value is MISSING from end to end, since Core ML's arithmetic need not know NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.libraries import library

MISSING = -3e38
"""What stands for a missing value: fast arithmetic on a GPU need not know NaN."""
BELOW_ALL = np.float32(-1e38)


class Untranslatable(Exception):
    """The model has something that can't be said in Core ML here; the message says what."""


class Graph:
    """An ONNX graph that is being translated: what is known by name so far, and what makes operations."""

    def __init__(self, content: bytes, builder: Any) -> None:
        self.onnx = library("onnx")
        self.graph = self.onnx.load_from_string(content).graph
        self.builder = builder
        self.known: dict[str, Any] = {each.name: self.onnx.numpy_helper.to_array(each) for each in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def value(self, name: str) -> Any:
        """Return a constant as an array, or what computes it.

        Raises:
            Untranslatable: an operator that isn't known here is needed for it.
        """
        if name not in self.known:
            node = self.makers[name]
            translate = OPERATORS.get(node.op_type)
            if translate is None:
                raise Untranslatable(f"the operator {node.op_type} can't be said in Core ML here")
            given = {each.name: self.onnx.helper.get_attribute_value(each) for each in node.attribute}
            self.known[name] = translate(self.builder, [self.value(each) for each in node.input], given)
        return self.known[name]


def translate(content: bytes, features: Any, builder: Any) -> Any:
    """Return what computes an ONNX model's last output: numbers, or probabilities.

    Args:
        content: the model's bytes; its input is named features.
        features: (1, n_features) float32, what stands for it.
        builder: coremltools' maker of operations.

    Raises:
        Untranslatable: it has something that can't be said.
    """
    graph = Graph(content, builder)
    graph.known["features"] = features
    return graph.value(graph.graph.output[-1].name)


def row(values: Any) -> NDArray[np.float32]:
    """Return a constant, (1, n_values)."""
    return np.array([values], dtype=np.float32)


def columns(builder: Any, x: Any, indexes: Any) -> Any:
    """Return what picks columns of (1, n)."""
    return builder.gather(x=x, indices=np.asarray(indexes, dtype=np.int32).reshape(-1), axis=1)


def equals(builder: Any, x: Any, wanted: Any) -> Any:
    """Return what is 1 where indexes are those that are wanted, else 0."""
    apart = builder.abs(x=builder.sub(x=x, y=row(wanted)))
    return builder.cast(x=builder.less(x=apart, y=np.float32(0.5)), dtype="fp32")


def filled(builder: Any, x: Any, fills: Any) -> Any:
    """Return what puts a value in the place of each missing one."""
    return builder.select(cond=builder.less(x=x, y=BELOW_ALL), a=row(fills), b=x)


def _pick(builder: Any, inputs: list[Any], _given: Mapping[str, Any]) -> Any:
    return columns(builder, *inputs)


def _impute(builder: Any, inputs: list[Any], given: Mapping[str, Any]) -> Any:
    return filled(builder, inputs[0], given["imputed_value_floats"])


def _scale(builder: Any, inputs: list[Any], given: Mapping[str, Any]) -> Any:
    return builder.mul(x=builder.sub(x=inputs[0], y=row(given["offset"])), y=row(given["scale"]))


def _one_hot(builder: Any, inputs: list[Any], given: Mapping[str, Any]) -> Any:
    return equals(builder, inputs[0], given["cats_int64s"])


def _regress(builder: Any, inputs: list[Any], given: Mapping[str, Any]) -> Any:
    intercepts = np.array(given["intercepts"], dtype=np.float32)
    weights = np.array(given["coefficients"], dtype=np.float32).reshape(len(intercepts), -1)
    return builder.linear(x=inputs[0], weight=weights, bias=intercepts)


def _classify(builder: Any, inputs: list[Any], given: Mapping[str, Any]) -> Any:
    return _post(builder, _regress(builder, inputs, given), given)


def _multiply(builder: Any, inputs: list[Any], _given: Mapping[str, Any]) -> Any:
    weights = np.asarray(inputs[1], dtype=np.float32)
    return builder.linear(x=inputs[0], weight=weights.T.copy(), bias=np.zeros(weights.shape[1], dtype=np.float32))


def _add(builder: Any, inputs: list[Any], _given: Mapping[str, Any]) -> Any:
    return builder.add(x=inputs[0], y=np.asarray(inputs[1], dtype=np.float32).reshape(1, -1))


def _subtract(builder: Any, inputs: list[Any], _given: Mapping[str, Any]) -> Any:
    one, other = (row(each.reshape(-1)) if isinstance(each, np.ndarray) else each for each in inputs)
    return builder.sub(x=one, y=other)


def _normalize(builder: Any, inputs: list[Any], _given: Mapping[str, Any]) -> Any:
    whole = builder.reduce_sum(x=builder.abs(x=inputs[0]), axes=[1], keep_dims=True)
    return builder.real_div(x=inputs[0], y=whole)


def _post(builder: Any, scores: Any, given: Mapping[str, Any]) -> Any:
    how = given.get("post_transform", b"NONE")
    if how == b"NONE":
        return scores
    if how == b"SOFTMAX":
        return builder.softmax(x=scores, axis=-1)
    if how == b"LOGISTIC":
        return builder.sigmoid(x=scores)
    raise Untranslatable(f"{how.decode()} of the scores can't be said in Core ML here")


def _trees(builder: Any, inputs: list[Any], given: Mapping[str, Any]) -> Any:
    """Walk all trees at once: a node each, and with each step its child, until all are at leaves."""
    forest, features = Forest(given), inputs[0]
    node: Any = forest.roots.reshape(1, -1)
    for _ in range(forest.depth):
        feature = builder.gather(x=forest.features, indices=node, axis=0)
        value = builder.gather_along_axis(x=features, indices=feature, axis=1)
        below = builder.less_equal(x=value, y=builder.gather(x=forest.thresholds, indices=node, axis=0))
        follows = builder.greater(x=builder.gather(x=forest.missing, indices=node, axis=0), y=np.float32(0.5))
        below = builder.select(cond=builder.less(x=value, y=BELOW_ALL), a=follows, b=below)
        lower, upper = (builder.gather(x=each, indices=node, axis=0) for each in (forest.lower, forest.upper))
        node = builder.select(cond=below, a=lower, b=upper)
    parts = [
        builder.reduce_sum(x=builder.gather(x=each, indices=node, axis=0), axes=[1], keep_dims=True) for each in forest.leaves.T
    ]
    whole = builder.concat(values=parts, axis=1) if len(parts) > 1 else parts[0]
    found = _post(builder, builder.add(x=whole, y=forest.base) if forest.base.any() else whole, given)
    if not forest.is_binary:
        return found
    # Of two classes the score is the second's.
    return builder.concat(values=[builder.sub(x=row([1.0]), y=found), found], axis=1)


class Forest:
    """The trees of an ONNX ensemble as arrays over all their nodes; a leaf is its own child."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        places = {key: at for at, key in enumerate(zip(given["nodes_treeids"], given["nodes_nodeids"], strict=True))}
        modes = np.array(given["nodes_modes"])
        unknown = set(modes.tolist()) - {b"LEAF", b"BRANCH_LEQ"}
        if unknown or given.get("aggregate_function", b"SUM") not in {b"SUM"}:
            raise Untranslatable("its trees decide in a way that can't be said in Core ML here")
        is_leaf, own, trees = modes == b"LEAF", np.arange(len(modes)), given["nodes_treeids"]

        def children(name: str) -> NDArray[np.int32]:
            found = [places.get(key, 0) for key in zip(trees, given[name], strict=True)]
            return np.where(is_leaf, own, found).astype(np.int32)

        self.lower, self.upper = children("nodes_truenodeids"), children("nodes_falsenodeids")
        self.features = np.where(is_leaf, 0, given["nodes_featureids"]).astype(np.int32)
        self.thresholds = np.array(given["nodes_values"], dtype=np.float32)
        self.missing = np.array(given.get("nodes_missing_value_tracks_true") or [0] * len(modes), dtype=np.float32)
        self.roots = np.unique(np.array(trees), return_index=True)[1].astype(np.int32)
        self.depth = self._depth()
        kind = "class" if "class_ids" in given else "target"
        ids = given[f"{kind}_ids"]
        count = len(given.get("classlabels_strings", ())) if kind == "class" else 1
        self.is_binary = kind == "class" and count == 2 and len(set(ids)) == 1
        self.leaves = np.zeros((len(modes), 1 if self.is_binary else count), dtype=np.float32)
        for tree, node, index, weight in zip(
            given[f"{kind}_treeids"], given[f"{kind}_nodeids"], ids, given[f"{kind}_weights"], strict=True
        ):
            self.leaves[places[tree, node], 0 if self.is_binary else index] += weight
        self.base = np.array(given.get("base_values") or [0.0] * self.leaves.shape[1], dtype=np.float32).reshape(1, -1)

    def _depth(self) -> int:
        """Return how many steps lead from the roots to the furthest leaf."""
        node, steps = self.roots, 0
        while len(node):
            node = np.unique(np.concatenate([self.lower[node], self.upper[node]]))
            node = node[(self.lower[node] != node)]
            steps += 1
        return steps


def _same(_builder: Any, inputs: list[Any], _given: Mapping[str, Any]) -> Any:
    return inputs[0]


OPERATORS: Mapping[str, Callable[[Any, list[Any], Mapping[str, Any]], Any]] = {
    "Add": _add,
    "ArrayFeatureExtractor": _pick,
    "Cast": _same,
    "Concat": lambda builder, inputs, _: builder.concat(values=inputs, axis=1),
    "Gather": _pick,
    "Identity": _same,
    "Imputer": _impute,
    "LinearClassifier": _classify,
    "LinearRegressor": _regress,
    "MatMul": _multiply,
    "Normalizer": _normalize,
    "OneHotEncoder": _one_hot,
    "Relu": lambda builder, inputs, _: builder.relu(x=inputs[0]),
    "Reshape": _same,
    "Scaler": _scale,
    "Sigmoid": lambda builder, inputs, _: builder.sigmoid(x=inputs[0]),
    "Softmax": lambda builder, inputs, _: builder.softmax(x=inputs[0], axis=-1),
    "Sub": _subtract,
    "TreeEnsembleClassifier": _trees,
    "TreeEnsembleRegressor": _trees,
}
