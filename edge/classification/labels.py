"""The names of a classifier's outputs: of a file, or of the list that a model carries with it."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path

from contract.errors import BadData

INDEXED = re.compile(r"\s*(\d+)(?::\s*|\s+)(\S.*)")
"""Coral's form of a line: `12  name`."""


def read_labels(path: Path, outputs: int) -> list[str]:
    """Return a file's labels, one for each output: one a line, or each line with its output's number in front.

    Raises:
        BadData: there is no such file, it is no text, or it names more or fewer outputs than there are, or one twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadData(f"{path} can't be read: {error.strerror}. Give a file with one label a line.", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is no UTF-8 text. Give a file with one label a line.", file=str(path)) from error
    return _checked(_labels(text, str(path)), outputs, str(path))


def labels_within(model: Path, outputs: int) -> list[str] | None:
    """Return the labels that TensorFlow's metadata tools put behind a model, as a zip archive's text file; None without."""
    try:
        with zipfile.ZipFile(model) as archive:
            texts = [archive.read(name) for name in archive.namelist() if name.endswith(".txt")]
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError):  # there is none, or it can't be read
        return None
    source = f"the list in {model}"
    return _checked(_labels(texts[0].decode(errors="replace"), source), outputs, source) if texts else None


def _labels(text: str, source: str) -> dict[int, str]:
    lines = text.rstrip("\n").split("\n") if text.strip() else []
    numbered = [INDEXED.fullmatch(line) for line in lines if line.strip()]
    if numbered and all(numbered):
        (number, count), *_ = Counter(int(match[1]) for match in numbered if match).most_common(1)
        if count > 1:
            raise BadData(f"{source} has the number {number} {count} times. Give each output one label.", file=source)
        return {int(match[1]): match[2].strip() for match in numbered if match}
    return {number: line.strip() for number, line in enumerate(lines)}


def _checked(labels: dict[int, str], outputs: int, source: str) -> list[str]:
    if set(labels) == set(range(outputs)):
        return [labels[number] for number in range(outputs)]
    found = f"{len(labels)} labels" + (f", numbered {min(labels)} to {max(labels)}" if labels else "")
    short = " Where the first output is the background, its label may be what is missing." if len(labels) == outputs - 1 else ""
    raise BadData(f"{source} has {found}; the model has {outputs} outputs. Give the labels of this model.{short}", file=source)
