"""The names of the media types that are read and written."""

CSV, JSON, JSONLINES, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
JSONLINES_ALIASES = ("application/x-jsonlines", "application/x-ndjson")
