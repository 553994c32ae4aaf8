"""The names of the media types that are read and written."""

CSV, JSON, JSONLINES, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
PARQUET = ("application/x-parquet", "application/vnd.apache.parquet")
JSONLINES_ALIASES = ("application/x-jsonlines", "application/x-ndjson")
