"""What `sdk3` and `sdk2` share: a clean process for the SageMaker SDK, checks of its answers, nothing left behind.

The SDK runs in a child process with an empty home and no credentials; this side waits, and whatever happens there it
removes the containers, the network and the files. Standard library only: it runs in the SDKs' environments.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO, TypeAlias

from local_test import payloads

TIMEOUT_S = 900
LOG_LINES = 40
NETWORK = "sagemaker-local"  # both generations give this name to the one network they use
REGION = "us-east-1"  # L-2: the SDK wants a Region, no credentials
ROLE = "arn:aws:iam::111122223333:role/local"  # L-3: a full ARN; a bare name would be looked up in IAM
CHANNEL = "training"
OPT_OUT = "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"  # L-10
COLORS = re.compile(r"\x1b\[[0-9;]*m")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1", socket.gethostname()}

Untyped: TypeAlias = Any
"""What JSON holds, or an object of the SDK's, which has no types worth naming."""


class LocalModeError(Exception):
    """Something is not as the contract says; the message says what was found and what was expected."""


@dataclass
class Account:
    """What was done, step by step: printed as it happens, and kept for `--json`."""

    out: TextIO
    steps: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time one step; what the caller puts into the yielded dict is printed below it."""
        facts: dict[str, Any] = {}
        self.steps.append({"step": name, "right": False})
        start = time.monotonic()
        yield facts
        self.steps[-1].update(right=True, seconds=round(time.monotonic() - start, 2), **facts)
        print(f"{self.steps[-1]['seconds']:7.2f} s  {name}", file=self.out)
        for fact, value in facts.items():
            print(textwrap.indent(f"{fact}: {value}".rstrip(), " " * 11), file=self.out)


@dataclass
class Job:
    """What a rehearsal works on."""

    image: str
    data: Path
    """A copy: local mode mounts channels writable (L-5)."""
    root: Path
    """Everything the SDK and the containers write is below it."""
    hyperparameters: dict[str, str]
    port: int
    account: Account

    def folder(self, name: str) -> Path:
        """Return a fresh folder below the root."""
        path = self.root / name
        path.mkdir()
        return path

    def local_config(self) -> dict[str, Any]:
        """Return what goes into `LocalSession.config` (L-4)."""
        containers = str(self.folder("containers"))
        return {"local": {"serving_port": self.port, "container_root": containers, "region_name": REGION}}


# --- what both generations send and expect -------------------------------------------------------------------------


def csv_predictions(body: str) -> list[Any]:
    """Return the first cell of each line, as text; a class's probabilities follow it."""
    return [row[0] for row in csv.reader(io.StringIO(body))]


def json_predictions(body: str) -> list[Any]:
    """Return the predictions of a JSON answer."""
    return [prediction_of(value) for value in json.loads(body)["predictions"]]


def jsonlines_predictions(body: str) -> list[Any]:
    """Return the predictions of a JSON Lines answer."""
    return [prediction_of(json.loads(line)["prediction"]) for line in body.splitlines()]


FORMATS: Mapping[str, tuple[Callable[[dict[str, Any]], bytes], Callable[[str], list[Any]]]] = {
    "text/csv": (payloads.csv_body, csv_predictions),
    "application/json": (payloads.json_body, json_predictions),
    "application/jsonlines": (payloads.jsonlines_body, jsonlines_predictions),
}


def prediction_of(value: Untyped) -> Untyped:
    """Return a number or a label, whichever the target is answered as."""
    return value["label"] if isinstance(value, dict) else value


def invoke_with_each_format(job: Job, manifest: dict[str, Any], invoke: Callable[[bytes, str], bytes]) -> None:
    """Send the manifest's three rows as CSV, JSON and JSON Lines; every answer must be the manifest's own."""
    for media_type, (encode, decode) in FORMATS.items():
        with job.account.step(f"invoke with {media_type}") as facts:
            answer = invoke(encode(manifest), media_type).decode()
            facts["answer"] = answer if len(answer) < 200 else f"{answer[:200]}.."
            check_predictions(predictions(answer, decode), expected_predictions(manifest), media_type)


def predictions(answer: str, decode: Callable[[str], list[Any]]) -> list[Any]:
    """Return an answer's predictions; raises LocalModeError with the answer where it can't be read."""
    try:
        return decode(answer)
    except (ValueError, LookupError, TypeError) as error:
        raise LocalModeError(f"The answer can't be read ({error!r}): {answer[:500]}") from error


def expected_predictions(manifest: Mapping[str, Any]) -> list[Any]:
    """Return what the manifest says of its own rows."""
    return [prediction_of(sample["prediction"]) for sample in manifest["samples"]]


def check_predictions(found: Sequence[Any], expected: Sequence[Any], where: str) -> None:
    """Compare one by one: labels equal, numbers to 1e-4 of the largest."""
    if len(found) != len(expected):
        raise LocalModeError(f"{where}: {len(found)} predictions came back for {len(expected)} rows.")
    tolerance = 1e-4 * max((abs(value) for value in expected if not isinstance(value, str)), default=0)
    for row, (left, right) in enumerate(zip(found, expected, strict=True), start=1):
        if left != right if isinstance(right, str) else not is_near(left, right, tolerance):
            raise LocalModeError(f"{where}: row {row} is {left!r}; the manifest says {right!r}.")


def is_near(found: str | float, expected: float, tolerance: float) -> bool:
    """Say whether a number, or a CSV cell, is within the tolerance; text and NaN are not."""
    try:
        return abs(float(found) - expected) <= tolerance
    except (TypeError, ValueError):
        return False


def read_manifest(model: Path) -> dict[str, Any]:
    """Return the manifest inside a `model.tar.gz`."""
    with tarfile.open(model) as archive:
        names = archive.getnames()
        if "manifest.json" not in names:
            raise LocalModeError(f"model.tar.gz has no manifest.json; it has: {', '.join(names)}. Did `train` end well?")
        file = archive.extractfile("manifest.json")
        manifest: dict[str, Any] = json.load(file)  # type: ignore[arg-type]
        return manifest


def write_batch(job: Job, manifest: dict[str, Any], copies: int = 7) -> tuple[Path, list[Any]]:
    """Write a headerless CSV file for a transform job; return its folder and what the job must answer, in order."""
    folder = job.folder("batch-input")
    rows = [sample["row"] for sample in manifest["samples"]] * copies
    (folder / "rows.csv").write_bytes(payloads.csv_body(manifest, rows).rstrip(b"\n") + b"\n")
    return folder, expected_predictions(manifest) * copies


def check_batch(folder: Path, expected: Sequence[Any]) -> str:
    """Check a transform job's output: one record an input record, in order, no blank line (H-29, H-31); say so."""
    path = folder / "rows.csv.out"
    if not path.exists():
        raise LocalModeError(f"The transform job left no {path.name}, only {sorted(p.name for p in folder.iterdir())}.")
    lines = path.read_text().removesuffix("\n").split("\n")
    if "" in lines:
        where = f"{path.name}: line {lines.index('') + 1} of {len(lines)} is blank."
        raise LocalModeError(f"{where} AssembleWith=Line puts a newline after each answer: end it without one (H-31).")
    # The SDK writes whatever came back, an error's body too, and calls the job Completed.
    check_predictions(predictions("\n".join(lines), csv_predictions), expected, path.name)
    return f"{len(lines)} for {len(expected)} rows, in order, no blank line"


# --- the process the SDK runs in -----------------------------------------------------------------------------------


def run(rehearse: Callable[[Job], None], description: str | None) -> NoReturn:
    """Parse the command line, let `rehearse` run in a child process, clear up, and exit with what came of it."""
    options = parse_options(description)
    check_machine(options.image)
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, stop)
    account = supervise(rehearse, options)
    if options.json:
        options.json.write_text(json.dumps(account, indent=2) + "\n")
    if account["right"]:
        sys.exit(0)
    sys.exit(f"Local mode is not right. {account['message']}")


def parse_options(description: str | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--image", required=True, help="the image to train and serve, as `docker images` names it")
    parser.add_argument("--data", required=True, type=Path, help="a folder of CSV files")
    parser.add_argument("--hyperparameter", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the account there")
    options = parser.parse_args()
    if not any(options.data.glob("*.csv")):
        parser.error(f"--data {options.data} holds no CSV file")
    if not all("=" in pair for pair in options.hyperparameter):
        parser.error("--hyperparameter takes NAME=VALUE")
    options.hyperparameter = dict(pair.split("=", 1) for pair in options.hyperparameter)
    return options


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Turn a signal into an exit, so that everything is cleared up."""
    sys.exit(128 + number)


def check_machine(image: str) -> None:
    """Exit with what is missing; the SDK would fail late and say less."""
    # L-1: without docker the SDK ends in FileNotFoundError. It stops a server by asking `pgrep` for compose's children.
    for program, package in (("docker", "docker.io"), ("pgrep", "procps")):
        if not shutil.which(program):
            sys.exit(f"Local mode needs `{program}` on PATH (Debian's package {package}).")
    # The SDK pulls no image that is not ECR's: compose would ask Docker Hub for it.
    found = docker("image", "inspect", "--format", "{{.Id}}", image)
    if found.returncode:
        sys.exit(f"Docker does not give the image {image}: {found.stderr.strip()}. Build it: make image IMAGE={image}")


def supervise(rehearse: Callable[[Job], None], options: argparse.Namespace) -> dict[str, Any]:
    """Run the rehearsal in a child process and return its account; leave nothing behind, however it ends."""
    had_network = docker("network", "inspect", NETWORK).returncode == 0
    root = Path(tempfile.mkdtemp(prefix="berth-sdk-")).resolve()
    child: BaseProcess | None = None
    try:
        shutil.copytree(options.data, root / "data")
        environ = clean_environment(os.environ, root)
        os.environ.clear()
        os.environ.update(environ)
        child = multiprocessing.get_context("spawn").Process(target=work, args=(rehearse, options, root))
        child.start()
        child.join(TIMEOUT_S)
        return account_of(child, root)
    finally:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        clear(child, root, options.image)
        if not had_network:
            docker("network", "rm", NETWORK)


def clean_environment(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return an environment with an empty home, no credentials and no way to find any."""
    home, config = root / "home", root / "config.yaml"
    home.mkdir()
    config.write_text(OPT_OUT)
    # docker-compose 1.29 is a Python program: a PYTHONPATH of ours would be its own.
    dropped = ("AWS_", "SAGEMAKER_", "COMPOSE_", "PYTHONPATH", "PYTHONHOME")
    return {
        # The docker client finds its context and plug-ins (Docker Desktop, colima) below the home we take away.
        "DOCKER_CONFIG": str(Path(environ.get("HOME", "/")) / ".docker"),
        **{name: value for name, value in environ.items() if not name.startswith(dropped)},
        "HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",  # L-2: else it waits for an address that does not answer
        "AWS_DEFAULT_REGION": REGION,
        "SAGEMAKER_ADMIN_CONFIG_OVERRIDE": str(config),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
        "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
    }


def work(rehearse: Callable[[Job], None], options: argparse.Namespace, root: Path) -> NoReturn:
    """Run the rehearsal: in a session of its own, the account to stdout, all that the SDK says to `sdk.log`."""
    os.setsid()
    account = Account(os.fdopen(os.dup(1), "w", buffering=1))
    log = os.open(root / "sdk.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    result: dict[str, Any] = {"image": options.image, "python": sys.version.split()[0], "steps": account.steps}
    names = watch_lookups()
    try:
        rehearse(Job(options.image, root / "data", root, options.hyperparameter, free_port(), account))
        with account.step("stay on this machine: no credentials, no telemetry") as facts:
            facts["names looked up"] = ", ".join(sorted(names)) or "none"
            if not names <= LOCAL_NAMES:
                strangers = ", ".join(sorted(names - LOCAL_NAMES))
                raise LocalModeError(f"The SDK looked for {strangers}; local mode needs no network (L-3, L-10).")
    except BaseException as error:
        # BaseException: whatever it is, the other process must read it.
        if not isinstance(error, LocalModeError):
            traceback.print_exc(limit=-3)
        said = str(error) if isinstance(error, LocalModeError) else f"The SDK raised {type(error).__name__}: {error}"
        result["message"] = f"Step '{account.steps[-1]['step'] if account.steps else 'import'}': {said}"
    (root / "account.json").write_text(json.dumps({**result, "right": "message" not in result}))
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread of the SDK's waits for compose and is no daemon: a plain exit would hang on it after a failure.
    os._exit(0)


def watch_lookups() -> set[str]:
    """Return a set that fills with every host name this process looks up (its own socket calls, not its children's)."""
    names: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            names.add(str(arguments[0]))

    sys.addaudithook(hook)
    return names


def free_port() -> int:
    """Return a port nobody listens on; the SDK publishes it on every address and can't be told otherwise."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def account_of(child: BaseProcess, root: Path) -> dict[str, Any]:
    """Return what the child wrote down; where it is not right, show the end of what the SDK said."""
    path = root / "account.json"
    if path.exists():
        account: dict[str, Any] = json.loads(path.read_text())
    else:
        ended = f"after {TIMEOUT_S} s it had not ended" if child.exitcode is None else f"it ended with {child.exitcode}"
        account = {"right": False, "steps": [], "message": f"The SDK's process left no account: {ended}."}
    if not account["right"] and (root / "sdk.log").exists():
        lines = COLORS.sub("", (root / "sdk.log").read_text(errors="replace")).splitlines()
        title = f"--- the last of {len(lines)} lines that the SDK and the containers wrote"
        print(title, *lines[-LOG_LINES:], "---", sep="\n", file=sys.stderr)
    return account


# --- nothing left behind -------------------------------------------------------------------------------------------


def clear(child: BaseProcess | None, root: Path, image: str) -> None:
    """End the child's processes, then remove its containers (the SDK leaves every one it trained in) and files."""
    if child and child.pid:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # the SDK and every compose it started: none can add a container now
        child.kill()  # where it had not yet come to its session
        child.join()
    while left := containers(root):
        if docker("rm", "--force", "--volumes", *left).returncode:
            print(f"Could not remove the containers {' '.join(left)}.", file=sys.stderr)
            break
    try:
        shutil.rmtree(root)
    except PermissionError:  # L-7: what a container wrote is root's; we are not
        as_root = ["--rm", "--network=none", "--user=0", f"--volume={root}:/left", "--entrypoint=chmod"]
        docker("run", *as_root, image, "-R", "a+rwX", "/left")
        shutil.rmtree(root)


def containers(root: Path) -> list[str]:
    """Return every container, running or not, that compose made from a file below this folder."""
    form = '{{.ID}} {{.Label "com.docker.compose.project.working_dir"}}'
    listed = docker("ps", "--all", "--filter=label=com.docker.compose.project", f"--format={form}").stdout
    pairs = (line.partition(" ") for line in listed.splitlines())
    return [name for name, _, folder in pairs if folder.startswith(str(root))]


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the docker client that the SDK would run: the first on PATH."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
