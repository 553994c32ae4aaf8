"""The listing's sample notebook: a template of cells, filled from the declaration, the same bytes each time.

A buyer runs it as it is (M-12): train, tune, model, endpoint, batch, clean up, without anything to fill in or to upload.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parent / "templates" / "notebook.txt"
MARK = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
"""Where a cell begins, as editors write notebooks in percent format."""
PLACE = re.compile(r"@(\w+)@")
NOTEBOOK = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook(values: Mapping[str, Any]) -> str:
    """Return the notebook (nbformat 4.5) as text.

    Args:
        values: what stands for each `@name@` of the template; in code what is no text is written as a literal.

    Raises:
        KeyError: the template names something that is not among them.
    """
    cells = [_cell(number, kind, text) for number, (kind, text) in enumerate(_cells(filled(TEMPLATE, values)), 1)]
    return json.dumps({"cells": cells, "metadata": NOTEBOOK, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def filled(template: Path, values: Mapping[str, Any]) -> str:
    """Return a template's text with its places filled, as `notebook` fills them."""
    return PLACE.sub(lambda found: _written(values[found[1]]), template.read_text())


def _cells(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each cell."""
    parts = MARK.split(text)[1:]
    for marked, body in zip(parts[::2], parts[1::2], strict=True):
        if marked:
            yield "markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()
        else:
            yield "code", body.strip()


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    source = text.splitlines(keepends=True)
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number:02}", "metadata": {}, "source": source}
    return {**cell, "execution_count": None, "outputs": []} if kind == "code" else cell


def _written(value: Any) -> str:
    """Return a text as it is, anything else as JSON, which Python reads alike: texts, numbers, lists and objects of these."""
    return value if isinstance(value, str) else json.dumps(value, indent=4)
