"""Arrow's columns as NumPy's."""

from __future__ import annotations

from typing import Any

import arro3.core as arrow
import numpy as np
from numpy.typing import NDArray

FLOAT = arrow.DataType.float64()
TEXTS = arrow.DataType.dictionary(arrow.DataType.int32(), arrow.DataType.utf8())


class Unclear(Exception):
    """The fast path can't tell what stands here."""


def numbers_of(array: arrow.Array) -> NDArray[np.float64]:
    """Return a float64 column, NaN where it is null."""
    if array.null_count:  # arro3 makes no NumPy array of nulls; a list's None becomes NaN
        return np.array(array.to_pylist(), dtype=np.float64)
    return np.asarray(array.to_numpy(), dtype=np.float64)


def codes_of(array: arrow.Array) -> tuple[NDArray[np.intp], list[str]]:
    """Return a column of texts, `TEXTS` by type, as indexes into its different texts, -1 where it is null."""
    indexes = arrow.dictionary_indices(array)
    numbers = numbers_of(indexes)
    codes = np.where(np.isnan(numbers), -1, numbers).astype(np.intp)
    names: Any = arrow.dictionary_dictionary(array).to_pylist()
    return codes, names
