"""A stream of CSV bytes in blocks that end where a row ends, so that each can be read by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

BLOCK_BYTES = 2 << 20
BOM = b"\xef\xbb\xbf"


def cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes in blocks of about 2 MiB that end with a row, the byte order mark taken off.

    A line end counts as a row's where the quotes before it are even in number: a cell in quotes may hold line ends. Files
    of carriage returns alone get line feeds for them.
    """
    pieces: list[bytes] = []
    size, first, returns_alone = 0, True, False
    for chunk in chunks:
        if first:
            chunk = chunk.removeprefix(BOM)
            returns_alone = b"\n" not in chunk and b"\r" in chunk[:-1]
            first = False
        pieces.append(chunk.replace(b"\r", b"\n") if returns_alone else chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            block, rest = _split(b"".join(pieces))
            pieces, size = [rest] if rest else [], len(rest)
            if block:
                yield block
    if pieces:
        yield b"".join(pieces)


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the whole rows and what follows the last line end outside quotes; no rows where there is none."""
    end = data.rfind(b"\n") + 1
    if data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, data.rfind(b'"', 0, end)) + 1
        if data.count(b'"', 0, end) % 2:
            return b"", data
    return data[:end], data[end:]


def without_header(block: bytes, header: bytes) -> bytes:
    """Return a block without the lines that repeat the header: objects that were concatenated each begin with one.

    An object that didn't end its last line has the header right behind its last cell.
    """
    return block.replace(BOM + header, b"\n").replace(header, b"\n") if header in block else block
