"""A .tflite file out of LiteRT's schema classes, its buffers aligned, which the generated ones are not."""

from __future__ import annotations

from typing import Any

from edge.libraries import library

ALIGNMENT = 16
"""Of each buffer in the file, as the schema asks: a device's kernels may read no other."""


def packed(model: Any, size_bytes: int = 4096) -> bytes:
    """Return the bytes of a ModelT; the size is what to begin with, and grows."""
    builder = library("flatbuffers").Builder(size_bytes)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def buffer_of(schema: Any, content: bytes) -> Any:
    """Return a BufferT that packs its bytes aligned."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802  # its name there
            if not content:
                return super().Pack(builder)
            builder.StartVector(1, len(content), ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            data = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    return Aligned()
