"""The names of the media types that `train` and `serve` read and write; each has its decoder or encoder in a table there."""

from __future__ import annotations

from typing import Literal

Format = Literal["csv", "parquet", "npy"]

CSV, JSON, JSONLINES, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
PARQUET = ("application/x-parquet", "application/vnd.apache.parquet")
JSONLINES_ALIASES = ("application/x-jsonlines", "application/x-ndjson")

TRAINED: dict[str, Format] = {
    "": "csv",
    CSV: "csv",
    "application/csv": "csv",
    **dict.fromkeys((*PARQUET, "application/parquet"), "parquet"),
    NPY: "npy",
}
"""What a training channel's content type may be, and the format it stands for."""
ANSWERED = (CSV, JSON, JSONLINES, *JSONLINES_ALIASES, NPY)
"""What `serve` answers in."""
SERVED = (*ANSWERED, *PARQUET)
"""What `serve` reads."""
