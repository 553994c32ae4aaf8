"""The shapes in which JSON holds rows: lists, objects, columns by name, pandas' split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contract.errors import SchemaMismatch, UnreadableBody
from serving.cells import Matrix
from serving.schema import Schema, no_rows


def is_row(document: Mapping[str, Any], schema: Schema) -> bool:
    """Say whether an object is one row: `{"features": [..]}`, or names to plain values."""
    return bool(document) and (
        "features" in document or "data" in document or not any(isinstance(value, (dict, list)) for value in document.values())
    )


def from_rows(rows: Sequence[Any], schema: Schema, first_row: int = 1) -> Matrix:
    """Return the matrix of rows, each a list or an object; a row number in an error counts from `first_row`."""
    if not rows:
        raise no_rows()
    types = set(map(type, rows))
    if types == {list}:
        return schema.from_values(rows, first_row)
    if types == {dict} and all("features" not in row and "data" not in row for row in rows):
        return schema.from_records(rows, first_row)
    return schema.from_values([_cells(row, number, schema) for number, row in enumerate(rows, first_row)], first_row)


def _cells(row: Any, number: int, schema: Schema) -> Sequence[Any]:
    """Return one row's values in the features' order."""
    if isinstance(row, dict):
        inner = row.get("data", row)
        if isinstance(inner, dict) and "features" in inner:
            row = inner["features"]
        else:
            order = schema.positions(list(row))
            values = list(row.values())
            return [values[index] for index in order]
    if not isinstance(row, list):
        raise UnreadableBody(f"Row {number} is {kind(row)}; a list of values or an object of names was expected.", row=number)
    return row


def from_columns(document: Mapping[str, Any], schema: Schema) -> Matrix:
    """Read columns by name: `{"RM": [..]}`, or pandas' `{"RM": {"0": ..}}`."""
    schema.positions(list(document))
    labels: list[str] | None = None
    columns = []
    for name in schema.names:
        column = document[name]
        if isinstance(column, dict):
            labels = list(column) if labels is None else labels
            if set(column) != set(labels):
                raise SchemaMismatch(f"Column {name} has other row labels than the columns before it.", column=name)
            column = [column[label] for label in labels]
        if not isinstance(column, list):
            raise UnreadableBody(f"Column {name} is {kind(column)}; a list or an object of rows was expected.", column=name)
        columns.append(column)
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in zip(schema.names, columns, strict=True))
        raise SchemaMismatch(f"Columns have different lengths: {lengths}.")
    if not columns[0]:
        raise no_rows()
    return schema.from_values(list(zip(*columns, strict=True)))


def from_split(split: Any, schema: Schema) -> Matrix:
    """Read pandas' `{"columns": [..], "data": [..]}`."""
    if not isinstance(split, dict) or not isinstance(split.get("columns"), list) or not isinstance(split.get("data"), list):
        raise UnreadableBody('dataframe_split takes {"columns": [names], "data": [[values], ..]}.')
    if not all(isinstance(name, str) for name in split["columns"]):
        raise UnreadableBody("dataframe_split's columns are names: a list of texts was expected.")
    order = schema.positions(split["columns"])
    if not split["data"]:
        raise no_rows()
    for number, row in enumerate(split["data"], 1):
        if not isinstance(row, list):
            raise UnreadableBody(f"Row {number} of dataframe_split is {kind(row)}; a list was expected.", row=number)
    return schema.from_values(arranged(split["data"], order, schema))


def kind(value: Any) -> str:
    """Return what JSON calls a value's type."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def arranged(rows: Sequence[Sequence[str]], order: list[int] | None, schema: Schema) -> Sequence[Sequence[str]]:
    """Return rows in the features' order, given where each feature stands in them."""
    width = len(schema.names)
    if order is None or order == list(range(width)):
        return rows
    return [[row[index] for index in order] if len(row) == width else row for row in rows]
