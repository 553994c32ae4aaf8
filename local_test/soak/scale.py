"""What a job comes to and costs as its hosts grow: 1, 2 and 3 network namespaces, which share this machine's CPUs.

What holds on any machine is bytes; seconds of hosts that share CPUs show what more hosts add, not what they save.
`make soak SECTIONS=scale` writes both tables to docs/measured.md, `python -m local_test.soak.scale` prints that of the fits
for any number of hosts, and docs/scaling.md says what follows for more of them.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_test.hosts import finish, lay
from local_test.soak.growth import write_rows
from local_test.soak.measured import Table

HOSTS = (1, 2, 3)
FEW, MANY, RUNS = 20, 120, 3
"""Rounds of two jobs that are else alike: what the second sends more is what 100 rounds send. Seconds take several runs."""
HELD_OUT_ROWS = 10_000
SEARCH_S = 40


@dataclass(frozen=True)
class Cost:
    """What one job took and gave."""

    seconds: float
    """Of the fit alone, by the leader's log."""
    sent: tuple[int, ...]
    """Bytes sent by each host over its network, by its interface's counter; of one host none."""
    manifest: Mapping[str, Any]

    @property
    def rmse(self) -> float:
        """The model's error over the held-out rows, the same for each job."""
        value: float = self.manifest["metrics"]["validation:rmse"]
        return value


def over_hosts(sizes: Sequence[int], folder: Path) -> list[Table]:
    """Measure fits of each size, and a search on the first of them."""
    return [fits_over_hosts(sizes, HOSTS, RUNS, folder), searches_over_hosts(sizes[0], folder)]


def fits_over_hosts(sizes: Sequence[int], hosts: Sequence[int], runs: int, folder: Path) -> Table:
    """Measure LightGBM's fits of each size over each number of hosts."""
    title = f"LightGBM over several hosts: {MANY} rounds, 6 features, 15 leaves, {HELD_OUT_ROWS:,} rows held out"
    seconds = f"fit: s, median of {runs} (least to most)"
    columns = ["rows", "hosts", "validation:rmse", seconds, "sent by a host: MB", "a host and round: kB"]
    return title, "make soak SECTIONS=scale", columns, [_fits(rows, count, runs, folder) for rows in sizes for count in hosts]


def searches_over_hosts(rows: int, folder: Path) -> Table:
    """Measure a search for a given time over each number of hosts."""
    title = f"`estimator=auto` over several hosts: {rows:,} rows, {SEARCH_S} s"
    columns = ["hosts", "candidates", "validation:rmse", "chosen", "sent by the leader: MB"]
    return title, "make soak SECTIONS=scale", columns, [_search(rows, hosts, folder) for hosts in HOSTS]


def _fits(rows: int, hosts: int, runs: int, folder: Path) -> list[str]:
    few, *repeats = (
        _job(rows, hosts, folder, {"estimator": "lightgbm", "max_iter": str(rounds)}) for rounds in (FEW, *[MANY] * runs)
    )
    many, seconds = repeats[0], [job.seconds for job in repeats]
    per_round = [(more - fewer) / (MANY - FEW) for fewer, more in zip(few.sent, many.sent, strict=True)]
    return [
        f"{rows:,}",
        str(hosts),
        f"{many.rmse:.4f}",
        f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        ", ".join(f"{count / 1e6:.1f}" for count in many.sent) or "none",
        ", ".join(f"{count / 1e3:.0f}" for count in per_round) or "none",
    ]


def _search(rows: int, hosts: int, folder: Path) -> list[str]:
    cost = _job(rows, hosts, folder, {"estimator": "auto", "search_seconds": str(SEARCH_S)})
    searched = cost.manifest["trained_with"]
    sent = f"{cost.sent[0] / 1e6:.1f}" if cost.sent else "none"
    return [str(hosts), str(searched["searched"]["candidates"]), f"{cost.rmse:.4f}", str(searched["estimator"]), sent]


def _job(rows: int, hosts: int, folder: Path, knobs: Mapping[str, str]) -> Cost:
    """Run one job, all hosts of which have all rows.

    Raises:
        RuntimeError: a host failed; the message has the leader's log.
    """
    training, held_out = folder / f"training-{rows}", folder / "validation"
    for source, count, seed in ((training, rows, 0), (held_out, HELD_OUT_ROWS, 1)):
        if not source.exists():
            write_rows(source, count, seed)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        laid = lay(Path(own), [training] * hosts, knobs, held_out=held_out)
        codes = finish(laid, timeout_s=900)
        fitted = re.search(r"^fit: .* in ([\d.]+) s$", laid[0].log, re.MULTILINE)
        if any(codes) or not fitted:
            raise RuntimeError(f"{hosts} hosts ended with {codes}:\n{laid[0].log}")
        sent = tuple(host.traffic[0] for host in laid) if hosts > 1 else ()
        return Cost(float(fitted[1]), sent, laid[0].manifest())


def main() -> int:
    """Print the table of fits for the rows and hosts asked for."""
    parser = argparse.ArgumentParser(prog="python -m local_test.soak.scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--hosts", type=int, nargs="+", default=HOSTS)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="berth-scale-") as folder:
        _, _, columns, rows = fits_over_hosts(arguments.rows, arguments.hosts, arguments.runs, Path(folder))
    print("\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
