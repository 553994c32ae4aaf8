"""A program that calls the model's ONNX session on a ready matrix, and nothing else: what serving it can't be faster than.

It first says its predictions. Then it runs for as many seconds as each line of its input names, and says what it did.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as `serve` does, before the import

import numpy as np
import onnxruntime


def main() -> int:
    """Measure what the two arguments name, a model's folder and a matrix of NumPy's, until the input ends."""
    folder, matrix = Path(sys.argv[1]), np.load(sys.argv[2], allow_pickle=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as `serve` has it
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def predict() -> Any:
        return session.run(None, {"features": matrix})[0]

    print(json.dumps(predict().ravel().tolist()), flush=True)
    for line in sys.stdin:
        print(json.dumps(repeat(predict, float(line))), flush=True)
    return 0


def repeat(work: Callable[[], Any], seconds: float) -> tuple[int, float, float]:
    """Return how often something was done within some seconds, how many they were in the end, and how many of the CPU."""
    began, cpu_began, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return count, time.perf_counter() - began, time.process_time() - cpu_began


if __name__ == "__main__":
    sys.exit(main())
