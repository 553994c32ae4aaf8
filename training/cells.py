"""Rows of CSV text to columns with pandas, cell by cell where need be: for the blocks that Arrow found something odd in."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from contract.cells import MISSING_WORDS, is_missing, read_number
from contract.errors import BadData
from training.columns import LARGEST, Batch, Column, Declared, choice_column, number_column
from training.layout import Layout

MISSING = sorted({spelling for word in MISSING_WORDS for spelling in (word, word.upper(), word.title(), "NaN")})
NOT_CSV = (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError)


def read_cells(block: bytes, layout: Layout, file: str, lines_before: int) -> Batch:
    """Return the declared columns of whole rows.

    Args:
        block: the rows, without a header.
        layout: where the columns stand.
        file: its name, for an error.
        lines_before: how many lines of the file came before the block.

    Raises:
        BadData: the bytes are no CSV of the layout's width.
    """
    numbers = [index for index, column in zip(layout.positions, layout.declared, strict=True) if column.kind == "number"]
    try:
        frame = _read_quickly(block, layout, numbers)
    except NOT_CSV as error:
        raise _no_csv(file, error, lines_before) from error
    return [_cells(frame[index], column) for index, column in zip(layout.positions, layout.declared, strict=True)]


def _no_csv(file: str, error: Exception, lines_before: int) -> BadData:
    """Return the error of what is no CSV; pandas counts lines from the block's header, which stands for the line before."""
    told = str(error).strip()
    told = re.sub(r"(?<=\bline )\d+", lambda line: str(int(line[0]) - 1 + lines_before), told)
    told = re.sub(r"(?<=\brow )\d+", lambda row: str(int(row[0]) + lines_before), told)
    return BadData(f"{file} is not CSV: {told}.", file=file)


def _read_quickly(block: bytes, layout: Layout, numbers: Sequence[int]) -> pd.DataFrame:
    """Return numbers as float64 where all of them are; else they are text, to be read one by one."""
    try:
        return _read_frame(block, layout, numbers)
    except NOT_CSV:
        raise
    except ValueError:
        return _read_frame(block, layout, [])


def _read_frame(block: bytes, layout: Layout, numbers: Sequence[int]) -> pd.DataFrame:
    """Return all columns, `numbers` as float64 and other declared ones as text. All are read: only then pandas counts cells."""
    header = ",".join(map(str, range(layout.width))).encode() + b"\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(header + block),
            header=0,
            names=list(range(layout.width)),
            index_col=False,
            dtype=dict.fromkeys(layout.positions, "str") | dict.fromkeys(numbers, np.float64),
            na_values=dict.fromkeys(numbers, MISSING),
            keep_default_na=False,
            skipinitialspace=True,
            low_memory=False,
            encoding="utf-8",
        )


def _cells(values: pd.Series, declared: Declared) -> Column:
    if values.dtype.kind == "f" and declared.kind == "number":
        return number_column(values.to_numpy(dtype=np.float64))
    codes, names = pd.factorize(values.str.strip())
    if declared.kind != "number":
        return choice_column(codes, list(names), declared)
    read = [np.nan if is_missing(name) else _finite(name) for name in names]
    numbers = np.array([*read, np.nan])[codes]
    return number_column(numbers, lambda row: names[codes[row]])


def _finite(cell: str) -> float:
    """Return the number that a cell spells; infinity where it spells none, which no column takes."""
    number = read_number(cell)
    return number if number is not None and abs(number) <= LARGEST else np.inf
