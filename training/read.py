"""Channels to tables: CSV, Parquet and `.npy`, streamed batch by batch into one matrix; faults by file, row, column."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Declaration
from contract.errors import BadChannel
from contract.job import Channel
from training import arrays, parquet
from training.blocks import cut, without_header
from training.columns import Batch
from training.layout import Layout
from training.pipe import read_pipe, unframed
from training.rows import FileFaults, Rows
from training.sources import Source, describe_files, read_file, sources_of
from training.text import first_row, looks_like_data, read_block

FINGERPRINT_ROWS = 100_000

Batches = Generator[Batch, None, None]


@dataclass(frozen=True)
class Table:
    """Rows ready for a pipeline."""

    matrix: NDArray[np.float32]
    """(n_rows, n_features), in the declaration's order; a category is the index of its choice, a missing value NaN."""
    target: NDArray[np.generic]
    """(n_rows,) float64, or labels as text."""
    dropped: int = 0
    """Rows that had a fault and were left out."""
    out_of_range: int = 0
    """Rows whose target is outside the range declared for it; they are in the table."""

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: NDArray[np.intp | np.bool_]) -> Table:
        """Return the rows of the given indexes, or of a mask."""
        return Table(self.matrix[rows], self.target[rows])

    def release(self, *, target: bool = True) -> None:
        """Give the rows' memory back: nobody may look at them again, through a view of them neither."""
        self.matrix.resize((0, self.matrix.shape[1]), refcheck=False)
        if target:
            self.target.resize(0, refcheck=False)

    def fingerprint(self) -> str:
        """Return a sha256 of the values, whatever files they came in."""
        digest = hashlib.sha256(np.ascontiguousarray(self.matrix).data)
        if self.target.dtype.kind == "f":
            digest.update(np.ascontiguousarray(self.target).data)
        else:
            for start in range(0, len(self), FINGERPRINT_ROWS):
                digest.update(("\n".join(self.target[start : start + FINGERPRINT_ROWS].tolist()) + "\n").encode())
        return digest.hexdigest()


def concatenate(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables as one, a copy."""
    return Table(np.concatenate([table.matrix for table in tables]), np.concatenate([table.target for table in tables]))


def read_channel(channel: Channel, declaration: Declaration, *, drop: bool = False, hosts: int = 1) -> Table:
    """Return all rows of a channel, folders within it included, in the order of their paths.

    Args:
        channel: where the data are.
        declaration: which columns they have.
        drop: whether to leave rows with a fault out; without it the first file with one is an error.
        hosts: of the job; among several, one may have no file of a sharded channel (T-23) and gets an empty table.

    Raises:
        BadChannel: there is no file that can be read.
        SchemaMismatch: a file lacks a declared column, has one twice, or of a type that can't mean it.
        BadData: a value can't be used; the first ten faults are named.
    """
    rows = Rows(declaration, drop=drop)
    for name, batches in _files(channel, declaration, hosts):
        file = FileFaults(name)
        with closing(batches):  # at once, as an error's traceback would keep a FIFO or a child
            for batch in batches:
                rows.add(batch, file)
        rows.finish_file(file)
    matrix, target = rows.finish()
    if rows.out_of_range:
        low, high = declaration.target.range or (0, 0)
        what = f"{declaration.target.name} outside the declared range {low:g} to {high:g}; they are kept"
        print(f"data: channel {channel.name}: {rows.out_of_range:,} rows have {what}", flush=True)
    return Table(matrix, target, rows.dropped, rows.out_of_range)


def _files(channel: Channel, declaration: Declaration, hosts: int) -> Iterator[tuple[str, Batches]]:
    """Yield each file's name and batches.

    Raises:
        BadChannel: there is none, and no other host has them.
    """
    if channel.mode == "Pipe":
        chunks = read_pipe(channel)
        yield f"{channel.name}_0", read_text(chunks, f"{channel.name}_0", channel, declaration, repeats=True)
        return
    sources = sources_of(channel)
    if not sources and not (hosts > 1 and channel.is_sharded):
        if not channel.path.is_dir():
            raise BadChannel(f"Channel {channel.name!r} has no folder {channel.path}. Give the job data for it.")
        raise BadChannel(
            f"Channel {channel.name!r} holds {describe_files(channel)}; at least one CSV file with rows was expected, or "
            "Parquet, .csv.gz or .npy."
        )
    if not sources:
        print(f"data: channel {channel.name}: this host has no file of it; others have", flush=True)
    for source in sources:
        yield source.name, _batches(source, channel, declaration)


def _batches(source: Source, channel: Channel, declaration: Declaration) -> Batches:
    if source.format == "parquet":
        return parquet.read_batches(source, declaration)
    if source.format == "npy":
        return arrays.read_batches(source, declaration)
    return read_text(unframed(read_file(source.path), source.name), source.name, channel, declaration)


def read_text(
    chunks: Generator[bytes, None, None], name: str, channel: Channel, declaration: Declaration, *, repeats: bool = False
) -> Batches:
    """Yield the batches of a stream of CSV.

    Args:
        chunks: its bytes.
        name: for messages.
        channel: its content type may say whether there is a header.
        declaration: which columns there are.
        repeats: whether the header may stand again further down, as in objects that were concatenated.
    """
    with closing(chunks):
        yield from _read_blocks(cut(chunks), name, channel, declaration, repeats=repeats)


def _read_blocks(
    blocks: Iterator[bytes], name: str, channel: Channel, declaration: Declaration, *, repeats: bool
) -> Iterator[Batch]:
    first = next(blocks, None)
    if not first:
        return
    cells, line = first_row(first, name)
    layout = _layout(cells, name, channel, declaration)
    lines_before = 0
    if layout.has_header:
        first, lines_before = first[len(line) :], line.count(b"\n") or 1
    header = line.strip()
    for block in chain([first], blocks):
        rows = without_header(block, header) if repeats and layout.has_header else block
        if rows:
            yield from read_block(rows, layout, name, lines_before)
        lines_before += block.count(b"\n")


def _layout(cells: list[str], name: str, channel: Channel, declaration: Declaration) -> Layout:
    """Return where a file's columns stand: by its header, or in SageMaker's order where there is none."""
    absent = channel.header == "absent" or (channel.header != "present" and looks_like_data(cells, declaration))
    if not absent:
        return Layout.from_header(cells, declaration, name)
    if channel.header != "absent":
        order = ", ".join([declaration.target.name, *declaration.feature_names])
        print(f"data: {name}: no header, by the look of its first row; read as {order}", flush=True)
    return Layout.without_header(declaration)
