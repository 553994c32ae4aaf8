"""A clean process for the SageMaker SDK, and nothing left behind.

The SDK runs in a child process with an empty home and no credentials; this side waits, and whatever happens there it
removes the containers, the network and the files. Standard library only: it runs in the SDKs' environments.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from local_test.sdk import REGION, Account, End, Job, LocalModeError

TIMEOUT_S = 900
LOG, LOG_LINES = "sdk.log", 40
NETWORK = "sagemaker-local"  # both generations give this name to the one network they use
OPT_OUT = "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"  # L-10
COLORS = re.compile(r"\x1b\[[0-9;]*m")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1", socket.gethostname()}


Declare = Callable[[argparse.ArgumentParser], None]


def run(rehearse: Callable[[Job], None], description: str | None, declare: Declare = lambda _: None) -> NoReturn:
    """Parse the command line, let `rehearse` run in a child process, clear up, and exit with what came of it.

    `declare` adds to the command line what one driver alone takes.
    """
    options = parse_options(description, declare)
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


def parse_options(description: str | None, declare: Declare) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--image", required=True, help="the image to train and serve, as `docker images` names it")
    parser.add_argument("--data", required=True, type=Path, help="a folder to train on, CSV files say")
    parser.add_argument("--hyperparameter", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    parser.add_argument("--hosts", type=int, default=2, help="of the fit over several containers (SDK 2 alone)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the account there")
    declare(parser)
    options = parser.parse_args()
    if not any(path.is_file() for path in options.data.rglob("*")):
        parser.error(f"--data {options.data} holds no file")
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
    """Run the rehearsal: in a session of its own, the account to stdout, all that the SDK says to `LOG`."""
    os.setsid()
    account = Account(os.fdopen(os.dup(1), "w", buffering=1))
    log = os.open(root / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    result: dict[str, Any] = {"image": options.image, "python": sys.version.split()[0], "steps": account.steps}
    names = watch_lookups()
    try:
        data, port = root / "data", free_port()
        rehearse(Job(options.image, data, root, options.hyperparameter, options.hosts, port, account, options))
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
    if not account["right"] and (root / LOG).exists():
        lines = plain((root / LOG).read_bytes()).splitlines()
        title = f"--- the last of {len(lines)} lines that the SDK and the containers wrote"
        print(title, *lines[-LOG_LINES:], "---", sep="\n", file=sys.stderr)
    return account


def plain(log: bytes) -> str:
    """Return a log as text without colors."""
    return COLORS.sub("", log.decode(errors="replace"))


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


def ends_of(hosts: Iterable[str]) -> dict[str, End]:
    """Return how the containers of these hosts ended, by the names that local mode gives them."""
    ends = {}
    for host in hosts:
        name = docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.service={host}").stdout.strip()
        code, moment = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.FinishedAt}}", name).stdout.split()
        ends[host] = End(int(code), moment.rstrip("Z").ljust(29, "0"), "\nmodel: " in docker("logs", name).stdout)
    return ends


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the docker client that the SDK would run: the first on PATH."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
