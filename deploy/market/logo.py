"""A logo to hold the place of the seller's: a few bars in a frame, drawn from one table as SVG and as PNG."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

SIZE = 240
"""Pixels, both ways."""
BACK, FRAME, BAR = (255, 255, 255), (34, 52, 70), (38, 128, 194)


class Box(NamedTuple):
    """A filled rectangle; later ones lie on earlier ones."""

    left: int
    top: int
    width: int
    height: int
    color: tuple[int, int, int]


BOXES = (
    Box(0, 0, SIZE, SIZE, FRAME),
    Box(10, 10, SIZE - 20, SIZE - 20, BACK),
    *(Box(40 + 44 * index, 200 - height, 28, height, BAR) for index, height in enumerate((60, 96, 84, 148))),
    Box(30, 200, 180, 6, FRAME),
)


def svg() -> str:
    """Return the drawing as SVG."""
    boxes = "".join(
        f'  <rect x="{box.left}" y="{box.top}" width="{box.width}" height="{box.height}" fill="rgb{box.color}"/>\n'
        for box in BOXES
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" viewBox="0 0 {SIZE} {SIZE}" role="img">'
    return f"{head}\n  <title>Placeholder: put your logo here</title>\n{boxes}</svg>\n"


def png() -> bytes:
    """Return the drawing as PNG: 8 bits a color, three colors a pixel."""
    rows = [b"".join(bytes(_color(x, y)) for x in range(SIZE)) for y in range(SIZE)]
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _color(x: int, y: int) -> tuple[int, int, int]:
    return next(
        box.color for box in reversed(BOXES) if box.left <= x < box.left + box.width and box.top <= y < box.top + box.height
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
