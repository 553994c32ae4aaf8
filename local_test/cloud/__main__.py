"""`python -m local_test.cloud`: print the variables to export, and serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys

from local_test.cloud import cloud


def main() -> int:
    """Serve; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local_test.cloud", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to serve; a free port unless given")
    parser.add_argument("--registry", default="", metavar="HOST:PORT", help="the registry behind ECR")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with cloud(arguments.registry, arguments.port) as aws:
            print("unset AWS_PROFILE AWS_SESSION_TOKEN")
            print("\n".join(f"export {name}={value}" for name, value in aws.environ().items()), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
