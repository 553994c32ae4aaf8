"""One job over several hosts, in containers: objects dealt out, a network with the hosts' names, one model of all parts."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from local_test.emulator import Outcome
from local_test.emulator.jobs import TrainingJob
from local_test.runners import Containers


def shard(source: Path, folder: Path, hosts: int) -> list[Path]:
    """Deal a channel's objects out as `ShardedByS3Key` does, each to one host; a host gets none where there are fewer (T-23).

    Returns:
        A folder a host, below `folder`; keys keep their trees.
    """
    shards = [folder / f"shard-{number}" for number in range(1, hosts + 1)]
    for path in shards:
        path.mkdir(parents=True)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for number, path in enumerate(files):
        target = shards[number % hosts] / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return shards


def over_hosts(job: TrainingJob, hosts: int) -> list[TrainingJob]:
    """Return a job's part of each host, `algo-1` and on: its own /opt/ml, its shard of every channel that is sharded."""
    names = tuple(f"algo-{number}" for number in range(1, hosts + 1))
    channels: list[dict[str, Path]] = [dict(job.channels) for _ in names]
    for channel, source in job.channels.items():
        if job.options.get(channel, {}).get("S3DistributionType") == "ShardedByS3Key":
            for own, part in zip(channels, shard(source, job.folder / "shards" / channel, hosts), strict=True):
                own[channel] = part
    parts = zip(names, channels, strict=True)
    return [replace(job, folder=job.folder / name, channels=own, host=name, hosts=names) for name, own in parts]


def run_together(parts: Sequence[TrainingJob], limit_s: float | None = None) -> list[Outcome]:
    """Run the hosts' parts of a job at once, on a network of their own that leads nowhere else (T-32, T-33).

    Raises:
        TypeError: the platform is not containers; `local_test.hosts` plays hosts without an engine.
    """
    platform = parts[0].platform
    if not isinstance(platform, Containers):
        raise TypeError("Several hosts need containers here: give TrainingJob the platform Containers(IMAGE)")
    with _network(platform.docker) as network, ThreadPoolExecutor(len(parts)) as pool:
        connected = [
            replace(part, network=network, container=(*part.container, "--network-alias", part.host)) for part in parts
        ]
        return list(pool.map(lambda part: part.run(limit_s=limit_s), connected))


def clashes(models: Sequence[Path]) -> list[str]:
    """Return the files that several hosts left with different contents: one archive of all has one of them alone (T-34)."""
    contents: dict[str, set[bytes]] = {}
    for model in models:
        for path in model.rglob("*"):
            if path.is_file():
                contents.setdefault(path.relative_to(model).as_posix(), set()).add(path.read_bytes())
    return sorted(name for name, found in contents.items() if len(found) > 1)


@contextlib.contextmanager
def _network(docker: str) -> Iterator[str]:
    name = f"berth-hosts-{uuid.uuid4().hex[:8]}"
    subprocess.run([docker, "network", "create", "--internal", name], capture_output=True, check=True)
    try:
        yield name
    finally:
        subprocess.run([docker, "network", "rm", name], capture_output=True, check=False)
