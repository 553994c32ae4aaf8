"""Containers that nobody here wrote, built from PyPI's packages and judged by `conformance`: `python -m local_test.foreign`.

Each is wired in tests/foreign/ as its own documentation has it: `conformance` is held to more than one idea of a server.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from local_test.runners import ROOT
from local_test.soak.measured import put, told
from local_test.verdicts import Severity, Status

RECIPES = ROOT / "tests" / "foreign"
JUDGING_S = 1_500
"""How long one container may take: five times what `conformance` needs of one that starts slowly, on two cores."""
TITLE = "Containers of others"
"""Of the report's section in a document."""
MOST_SEEN = 160
"""Characters of what was seen, in the report."""
START_S = 150
"""How long one may take to start: MLflow loads for long, and H-7 gives eight minutes."""
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
INSTANCES = json.dumps({"instances": ROWS})
CSV = "".join(",".join(map(str, row)) + "\n" for row in ROWS)

Verdicts: TypeAlias = list[dict[str, Any]]
"""What `conformance --json` wrote."""


@dataclass(frozen=True)
class Server:
    """A model server from PyPI, and how it is asked."""

    name: str
    title: str
    stage: str
    """Of tests/foreign/Dockerfile."""
    package: str
    """Its name on PyPI: the version is that of the pin."""
    wired: str
    """How its users bring it onto SageMaker."""
    payload: str = INSTANCES
    content_type: str = "application/json"
    environ: Mapping[str, str] = field(default_factory=dict)
    has_model: bool = False
    """Whether it reads a model from /opt/ml/model; the image holds one to take out."""

    @property
    def version(self) -> str:
        """The version that is pinned."""
        pins = (RECIPES / self.stage.removesuffix("-routes") / "requirements.txt").read_text()
        found = re.search(rf"^{re.escape(self.package)}==(\S+)$", pins, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"{self.package} has no pin in tests/foreign")
        return found[1]


SERVERS = (
    Server("litserve", "LitServe", "litserve", "litserve", "`api_path`, `healthcheck_path` and `port` are its arguments"),
    Server("bentoml", "BentoML", "bentoml", "bentoml", "`route`, `BENTOML_PORT`, and an ASGI app for `/ping`"),
    Server("bentoml-3000", "BentoML, its own port", "bentoml", "bentoml", "on port 3000", environ={"BENTOML_PORT": "3000"}),
    Server("mlserver", "MLServer", "mlserver", "mlserver", "as it comes, with its scikit-learn runtime: no `/ping`"),
    Server(
        "mlserver-routes",
        "MLServer, two routes",
        "mlserver",
        "mlserver",
        "a runtime of its own whose custom handlers are the two paths",
        environ={"MODELS": "routes"},
    ),
    Server("mlflow", "MLflow", "mlflow", "mlflow", "its SageMaker container: nginx before uvicorn", has_model=True),
    Server(
        "sagemaker-inference",
        "AWS's inference toolkit",
        "sagemaker-inference",
        "sagemaker-inference",
        "with Multi Model Server, as AWS's sample has it",
        payload=CSV,
        content_type="text/csv",
        has_model=True,
    ),
)


def build(server: Server, base_image: str, engine: str = "docker") -> str:
    """Build a server's image and return its tag.

    Raises:
        RuntimeError: it can't be built; the message has the end of what the engine printed.
    """
    image = f"berth-foreign-{server.stage}"
    command = [engine, "build", "--tag", image, "--target", server.stage, "--build-arg", f"BASE_IMAGE={base_image}"]
    environ = {**os.environ, "DOCKER_BUILDKIT": "1"}  # which builds the stages of the target alone
    command += [*_single_manifest(engine), str(RECIPES)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{server.title} can't be built:\n{(done.stdout + done.stderr)[-4000:]}")
    return image


def judge(server: Server, image: str, engine: str = "docker", only: Sequence[str] = ()) -> Verdicts:
    """Return what `conformance` says of a server's image, in a process of its own.

    Raises:
        RuntimeError: it did not run to the end.
    """
    with tempfile.TemporaryDirectory(prefix="berth-foreign-") as name:
        folder = Path(name)
        (folder / "payload").write_text(server.payload)
        given = ["--payload", str(folder / "payload"), "--content-type", server.content_type, "--engine", engine]
        given += ["--start-seconds", str(START_S)]
        given += [part for pair in server.environ.items() for part in ("--env", "=".join(pair))]
        given += [part for rule in only for part in ("--only", rule)]
        if server.has_model:
            given += ["--model", str(take_model(image, engine, folder))]
        command = [sys.executable, "-m", "local_test", "conformance", image, *given, "--json", str(folder / "verdicts.json")]
        said = _run(command)
        if not (folder / "verdicts.json").exists():
            raise RuntimeError(f"conformance of {server.title} did not run to the end:\n{said[-4000:]}")
        verdicts: Verdicts = json.loads((folder / "verdicts.json").read_text())
    return verdicts


def report(judged: Mapping[str, Verdicts]) -> str:
    """Return verdicts by server's name as Markdown: a row a server, then what each failed in."""
    servers = [server for server in SERVERS if server.name in judged]
    columns = ("container", "version", "how", *Status)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for server in servers:
        counts = Counter(verdict["status"] for verdict in judged[server.name])
        cells = (server.title, server.version, server.wired, *(str(counts[status]) for status in Status))
        lines.append("| " + " | ".join(cells) + " |")
    for server in servers:
        failures = [verdict for verdict in judged[server.name] if verdict["status"] == Status.FAILED]
        lines += ["", f"**{server.title}**: {len(failures) or 'none'} failed"]
        for severity in Severity:
            lines += _named(severity, [verdict for verdict in failures if verdict["severity"] == severity])
    return "\n".join(lines)


def main() -> int:
    """Build and judge servers, print the report, and write it into a document where one is named."""
    arguments = _parser().parse_args()
    judged = {}
    try:
        for server in _chosen(arguments.names):
            print(f"{server.title}: building", file=sys.stderr, flush=True)
            image = build(server, arguments.base_image, arguments.engine)
            print(f"{server.title}: judging", file=sys.stderr, flush=True)
            judged[server.name] = judge(server, image, arguments.engine)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report(judged))
    if arguments.write:
        heading = arguments.write.read_text().partition("\n## ")[0] if arguments.write.exists() else "# Conformance\n"
        put(arguments.write, [told(TITLE, "python -m local_test.foreign", report(judged))], heading)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local_test.foreign", description=__doc__)
    parser.add_argument("names", nargs="*", help="which, such as litserve; all without one")
    parser.add_argument("--base-image", default="debian:trixie-slim", help="what the images are built on")
    parser.add_argument("--engine", default="docker", help="docker or podman")
    parser.add_argument("--write", type=Path, help="a document, such as docs/conformance.md, for a section of it")
    return parser


def _chosen(names: Sequence[str]) -> list[Server]:
    if unknown := set(names) - {server.name for server in SERVERS}:
        there = ", ".join(server.name for server in SERVERS)
        raise RuntimeError(f"No container is named {' '.join(sorted(unknown))}. There are: {there}.")
    return [server for server in SERVERS if not names or server.name in names]


def _run(command: Sequence[str]) -> str:
    """Run a program and return what it printed; one that takes too long is told to end, so that it removes its containers."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            return program.communicate(timeout=JUDGING_S)[0]
        except subprocess.TimeoutExpired:
            program.terminate()
            return program.communicate()[0] + f"\nit took more than {JUDGING_S} s"


def _single_manifest(engine: str) -> list[str]:
    """Return the options with which buildx makes a manifest that SageMaker takes (T-7), where the client is buildx."""
    usage = subprocess.run([engine, "build", "--help"], capture_output=True, text=True, check=False).stdout
    return ["--provenance=false", "--sbom=false", "--output", "type=docker"] if "--provenance" in usage else []


def take_model(image: str, engine: str, folder: Path) -> Path:
    """Return a model.tar.gz of the model that the image holds."""
    made = subprocess.run([engine, "create", image], capture_output=True, text=True, check=True).stdout.strip()
    try:
        subprocess.run([engine, "cp", f"{made}:/opt/program/model", str(folder / "model")], capture_output=True, check=True)
    finally:
        subprocess.run([engine, "rm", made], capture_output=True, check=False)
    target = folder / "model.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder / "model", ".")
    return target


def _named(severity: Severity, failures: Verdicts) -> list[str]:
    """Return a line a failure that fails on SageMaker, with what was seen; one line for all that are less."""
    if severity is Severity.SAGEMAKER:
        return [f"- {severity}: {found['number']} {found['title']}: {_begin(found['seen'])}" for found in failures]
    rules = "; ".join(f"{found['number']} {found['title']}" for found in failures)
    return [f"- {severity}: {rules}"] if rules else []


def _begin(seen: str) -> str:
    line = seen.splitlines()[0] if seen else ""
    return (line if len(line) <= MOST_SEEN else line[:MOST_SEEN] + "…").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
