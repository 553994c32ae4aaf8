"""`.npy` files to columns: numbers alone, the target first; a pickle in one would run code and is never loaded."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Declaration
from contract.errors import BadData, SchemaMismatch
from training.columns import Batch, Column, Declared, choices_of, declared_columns, number_column
from training.sources import Source

BATCH_ROWS = 65_536


def read_batches(source: Source, declaration: Declaration) -> Generator[Batch, None, None]:
    """Yield the columns of an array (n_rows, 1 + n_features): target, then features; a choice or label is its index.

    Raises:
        BadData: the file is no array of numbers, or is damaged.
        SchemaMismatch: it has another shape.
    """
    try:
        array = np.load(source.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise BadData(f"{source.name} is no .npy array that can be read: {str(error)[:200]}.", file=source.name) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise BadData(
            f"{source.name} holds {getattr(array, 'dtype', 'several arrays')}; numbers were expected.", file=source.name
        )
    columns = declared_columns(declaration)
    if array.ndim != 2 or array.shape[1] != len(columns):
        order = ", ".join([declaration.target.name, *declaration.feature_names])
        raise SchemaMismatch(f"{source.name} has shape {array.shape}; (rows, {len(columns)}) was expected: {order}.")
    order_of_file = [*range(1, len(columns)), 0]
    for start in range(0, len(array), BATCH_ROWS):
        rows = np.asarray(array[start : start + BATCH_ROWS], dtype=np.float64)
        yield [_column(rows[:, index], column) for index, column in zip(order_of_file, columns, strict=True)]


def _column(values: NDArray[np.float64], declared: Declared) -> Column:
    if declared.kind == "number":
        return number_column(values)
    is_index = (values >= 0) & (values < len(choices_of(declared))) & (values == np.floor(values))
    return number_column(values, wrong=~is_index & ~np.isnan(values))
