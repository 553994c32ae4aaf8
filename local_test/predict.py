#!/usr/bin/env python3
"""The book's client: send a payload to `POST /predict` and print the answer. Needs Python alone.

    python local_test/predict.py [--url http://localhost:8080] [FILE]

Without FILE it sends the model's first stored sample in the book's shape, a column a key; with one, that file as it is
(`-` for standard input): CSV when its name ends in .csv, JSON Lines for .jsonl, else JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".npy": "application/x-npy",
    ".parquet": "application/x-parquet",
}
TIMEOUT_S = 60


def main() -> int:
    """Send one payload; return 0, or 1 with the server's message on standard error."""
    parser = argparse.ArgumentParser(description="Send a payload to POST /predict and print the answer.")
    parser.add_argument("--url", default="http://localhost:8080", help="where the server is (default: %(default)s)")
    parser.add_argument("file", nargs="?", metavar="FILE", help="a payload; - for standard input; default: the book's shape")
    arguments = parser.parse_args()
    url = arguments.url.rstrip("/")
    try:
        body, media_type = _payload(arguments.file, url)
        print(_call(urllib.request.Request(f"{url}/predict", body, {"Content-Type": media_type})))
    except urllib.error.HTTPError as error:
        print(_message(error), file=sys.stderr)
        return 1
    except urllib.error.URLError as error:
        print(f"{url}: {error.reason}. `make serve` starts a server on port 8080.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{arguments.file}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def _payload(file: str | None, url: str) -> tuple[bytes, str]:
    if file == "-":
        return sys.stdin.buffer.read(), ""
    if file:
        return Path(file).read_bytes(), MEDIA_TYPES.get(Path(file).suffix.lower(), "application/json")
    row = json.loads(_call(urllib.request.Request(f"{url}/metadata")))["samples"][0]["row"]
    return json.dumps({name: {"0": value} for name, value in row.items()}).encode(), "application/json"


def _call(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return str(response.read().decode())


def _message(error: urllib.error.HTTPError) -> str:
    """Return the server's own words, or what is to be had of another server's."""
    with error:
        body = error.read().decode("utf-8", "replace")
    try:
        return f"{error.code}: {json.loads(body)['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}: {body[:500]}"


if __name__ == "__main__":
    sys.exit(main())
