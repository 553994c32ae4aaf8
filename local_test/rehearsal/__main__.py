"""`python -m local_test.rehearsal`: all steps in order, a table with their times; ends at the first that fails."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from local_test.rehearsal.programs import StepFailed
from local_test.rehearsal.stage import Stage, stage
from local_test.rehearsal.steps import STEPS, Step

OPTIONAL = ("build", "scan", "conformance", "local-mode")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Done:
    """A step that was taken."""

    step: str
    right: bool
    seconds: float
    said: str


def main() -> int:
    """Rehearse; return the exit code."""
    options = _options()
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _stop)
    began, done = time.monotonic(), []
    try:
        with stage(options.image, frozenset(options.without)) as played:
            for name, step in STEPS:
                if name not in options.without:
                    print(f"{name} ..", file=sys.stderr, flush=True)
                    done.append(_taken(played, name, step))
                if done and not done[-1].right:
                    break
            for number in STOPS:
                signal.signal(number, signal.SIG_IGN)  # from here on all is stopped, undisturbed
    except (StepFailed, AssertionError) as error:  # no registry; or, at the end, an answer that AWS's model forbids
        done.append(Done("stage", right=False, seconds=0, said=str(error)))
    return _told(done, time.monotonic() - began, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_test.rehearsal", description=__doc__)
    parser.add_argument("--image", default="berth:rehearsal", help="what the image is called here; it is built first")
    parser.add_argument("--without", action="append", default=[], choices=OPTIONAL, help="leave it out; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table there")
    return parser.parse_args()


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Turn a signal into an exit, on whose way all is stopped."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    print("Stopping ..", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def _taken(played: Stage, name: str, step: Step) -> Done:
    began = time.monotonic()
    try:
        said, right = step(played), True
    except StepFailed as error:
        said, right = str(error), False
    except Exception as error:  # whatever the stand-in or a container raises is what the step came to
        said, right = f"{type(error).__name__}: {error}", False
    return Done(name, right, round(time.monotonic() - began, 1), said)


def _told(done: list[Done], seconds: float, file: Path | None) -> int:
    """Print the table, and what failed below it; return the exit code."""
    right = bool(done) and all(one.right for one in done)
    width = max(len(one.step) for one in done)
    for one in done:
        print(f"{one.seconds:7.1f} s  {one.step:<{width}}  {one.said if one.right else 'FAILED'}")
    print(f"{seconds:7.1f} s  in all")
    if file:
        told = {"right": right, "seconds": round(seconds, 1), "steps": [asdict(one) for one in done]}
        file.write_text(json.dumps(told, indent=2) + "\n")
    if not right:
        print(f"\n{done[-1].step}: {done[-1].said}", file=sys.stderr)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
