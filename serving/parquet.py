"""Parquet to the matrix, in a process of its own, so that no body can crash the server, fill its memory or hold it up.

The process (serving/arrow.py) starts with the first such body and is kept: a start takes as long as decoding a million cells.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGKILL, SIGXCPU
from typing import Any

import numpy as np
import orjson

from contract.errors import BadData, BerthError, Overloaded, PayloadTooLarge, SchemaMismatch, UnreadableBody
from serving.cells import Matrix
from serving.schema import Schema

MAGIC = b"PAR1"
CPU_S, BYTES_PER_S = 5, 5 * 2**20
"""What decoding may take of a CPU: a fixed part, and a second for so many bytes of the payload limit. A matrix as large as that
takes an eighth of it."""
WALL_TIMES = 3
"""When a body that waits for a CPU is given up, in such times."""
MEMORY_BYTES, MEMORY_TIMES = 2**27, 8
"""What decoding may take of memory: a fixed part, and so many payload limits. A matrix as large as that takes half of it."""
MAX_ANSWER_BYTES = 2**16
ERRORS = {error.code: error for error in (UnreadableBody, SchemaMismatch, BadData, PayloadTooLarge)}


class Decoder:
    """The process that decodes, one body at a time; a body that ends it is refused, and the next one starts another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection

    def decode(self, body: bytes, schema: Schema, limit: int) -> Matrix:
        """Return the matrix of a Parquet file.

        Args:
            body: the whole file.
            schema: the model's columns.
            limit: the payload limit in bytes; the matrix takes at most as much.

        Raises:
            UnreadableBody: it is damaged, or takes more time or memory than any body of the limit should.
            SchemaMismatch, BadData, PayloadTooLarge: see serving/arrow.py.
            Overloaded: the machine has no time or memory for it now.
        """
        asked = {
            "features": schema.features,
            "rows": limit // 4 // len(schema.names),
            "memory_bytes": MEMORY_BYTES + MEMORY_TIMES * limit,
            "cpu_s": CPU_S + limit // BYTES_PER_S,
        }
        with self._lock:
            try:
                told, matrix = self._exchange(asked, body)
            except BaseException as error:
                code = self.stop()
                if isinstance(error, (EOFError, OSError)):
                    raise _end(code, asked) from None
                raise
        if matrix is None:
            raise ERRORS[told["error"]](told["message"], **told["facts"])
        return matrix

    def stop(self) -> int:
        """End the process; return its exit code, or the signal that ended it, below zero."""
        process, self._process = self._process, None
        if process is None:
            return -SIGKILL
        self._channel.close()
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _exchange(self, asked: Mapping[str, Any], body: bytes) -> tuple[Any, Matrix | None]:
        process = self._process = self._process or self._start()
        patience = threading.Timer(WALL_TIMES * asked["cpu_s"], process.kill)
        patience.daemon = True
        patience.start()
        try:
            self._channel.send_bytes(orjson.dumps(asked))
            self._channel.send_bytes(body)
            told = orjson.loads(self._channel.recv_bytes(MAX_ANSWER_BYTES))
            if "rows" not in told:
                return told, None
            matrix = np.empty((told["rows"], len(asked["features"])), dtype=np.float32)
            self._channel.recv_bytes_into(matrix.data.cast("B"))
            return told, matrix
        finally:
            patience.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        self._channel, theirs = Pipe()
        with theirs:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "serving.arrow", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).resolve().parent.parent,
                start_new_session=True,  # Ctrl-C is for the server, which ends this one
            )


DECODER = Decoder()
atexit.register(DECODER.stop)


def read_parquet(body: bytes, schema: Schema, limit: int) -> Matrix:
    """Return the matrix of a Parquet file; arguments and errors as `Decoder.decode`."""
    if len(body) < 12 or (body[:4], body[-4:]) != (MAGIC, MAGIC):
        raise UnreadableBody("The body is no whole Parquet file: PAR1 stands not at both its ends.")
    return DECODER.decode(body, schema, limit)


def _end(code: int, asked: Mapping[str, Any]) -> BerthError | RuntimeError:
    """Return the error of a body that ended the process: the same one would again, but where the machine was short."""
    if code == -SIGKILL:  # by our patience, or by the kernel's where memory ended
        return Overloaded("There was no time or memory to decode the Parquet. Try again later.", retry_after_s=1)
    if code == -SIGXCPU:
        return UnreadableBody(f"The Parquet takes more than {asked['cpu_s']} s to decode. Send fewer rows, or shorter texts.")
    if code < 0:
        return UnreadableBody(
            "The body can't be read as Parquet: its decoder crashed, on damaged pages or on pages that unpack to more than "
            f"{asked['memory_bytes'] >> 20} MiB. Write it again, or send fewer rows."
        )
    return RuntimeError(f"the decoder of Parquet ended with exit code {code}")
