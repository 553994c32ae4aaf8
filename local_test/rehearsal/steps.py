"""The steps from an image to a model that is approved, as one table with those of the endpoint: a function a step."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from typing import Any

from local_test.cloud.registry import DOCKER
from local_test.emulator import lay_out
from local_test.emulator import train as fit
from local_test.rehearsal import online
from local_test.rehearsal.programs import StepFailed
from local_test.rehearsal.registry import manifest_of, unpacked
from local_test.rehearsal.stage import PROJECT, ROOT, SAMPLE, Model, Stage

Step = Callable[[Stage], str]
"""Does it and says what came of it; raises StepFailed, or whatever else a program, the stand-in or the registry raises."""
SECOND = {"estimator": "ridge"}
"""Hyperparameters of the second version, whose predictions are others than the first's."""


def build(it: Stage) -> str:
    """Build the image; layers that the engine has are not made again."""
    it.run(["make", "image", f"IMAGE={it.image}"], folder=ROOT)
    return f"{it.image}, {int(it.engine('image', 'inspect', '--format', '{{.Size}}', it.image)) / 1e6:.0f} MB"


def roles(it: Stage) -> str:
    """Make the stack of the roles, where `deploy` looks for those of jobs and endpoints."""
    cloudformation = it.aws.client("cloudformation")
    body = (ROOT / "deploy" / "templates" / "roles.yaml").read_text()
    project = {"ParameterKey": "Project", "ParameterValue": PROJECT}
    cloudformation.create_stack(
        StackName=f"{PROJECT}-roles", TemplateBody=body, Parameters=[project], Capabilities=["CAPABILITY_IAM"]
    )
    return f"{len(it.aws.client('iam').list_roles()['Roles'])} roles of deploy/templates/roles.yaml"


def preflight(it: Stage) -> str:
    """Look whether all is ready."""
    lines = it.deploy("preflight").stdout.splitlines()
    return ", ".join(f"{sum(line.startswith(word) for line in lines)} {word}" for word in ("pass", "warn", "fail"))


def scan(it: Stage) -> str:
    """Look for vulnerabilities; what could not be looked at is said, and stops nothing here."""
    file = it.folder / "scan.json"
    it.deploy("scan", it.image, "--unscanned-ok", "--json", file)
    told = json.loads(file.read_text())
    said = [f"NOT SCANNED: {one['error'].partition(',')[0]}" for one in told["scans"] if one["error"]]
    if len(said) < len(told["scans"]):
        said.append(f"{len(told['findings'])} findings, none from the gate on")
    return "; ".join(said)


def push(it: Stage) -> str:
    """Push the image to the stand-in's ECR, which is the registry; it was scanned a step before."""
    it.identity = it.engine("image", "inspect", "--format", "{{.Id}}", it.image)
    is_judged = "conformance" not in it.without
    it.deploy("push", "--allow-dirty", "--skip-scan", *([] if is_judged else ["--skip-conformance"]))
    it.uri = json.loads((it.folder / "build" / "pushed.json").read_text())["uri"]
    held = manifest_of(it.uri)
    _same("The manifest's media type", held.media_type, DOCKER)
    _same("The manifest's digest", held.digest, it.uri.partition("@")[2])
    _same("The configuration's digest", held.config, it.identity)
    return f"{held.digest[:19]}, " + ("judged by the platforms' rules" if is_judged else "not judged by the platforms' rules")


def pull(it: Stage) -> str:
    """Remove the image's names here, and pull it by its digest: from now on it is what the registry holds."""
    ours, _, _ = it.uri.partition("@")
    tags = it.engine("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", ours).split()
    it.engine("image", "rm", *tags, *([] if "build" in it.without else [it.image]))
    it.engine("image", "inspect", it.uri, status=1)
    it.engine("pull", it.uri)
    _same("The pulled image", it.engine("image", "inspect", "--format", "{{.Id}}", it.uri), it.identity)
    # A layer that another image of the engine's has too is not pulled: what the registry holds is looked at by itself.
    layers = [unpacked(it.uri, layer) for layer in manifest_of(it.uri).layers]
    _same(
        "The registry's layers",
        layers,
        json.loads(it.engine("image", "inspect", "--format", "{{json .RootFS.Layers}}", it.uri)),
    )
    return f"the image that was built; its {len(layers)} layers in the registry are the same byte for byte"


def train_here(it: Stage) -> str:
    """Train the first version's model in the pulled image, by the SDK's local mode, which serves it and asks it too."""
    if "local-mode" in it.without:
        it.models.append(_fitted(it, {}))
        return "by local_test's emulator, not by the SDK's local mode"
    python, kept, told = ROOT / ".venv-sdk3" / "bin" / "python", it.folder / "model.tar.gz", it.folder / "sdk.json"
    if not python.exists():
        raise StepFailed(
            f"There is no {python.relative_to(ROOT)}, the environment with the SageMaker SDK: run `make rehearse`."
        )
    it.run(
        [python, "-m", "local_test.sdk.pushed", "--image", it.uri, "--data", SAMPLE, "--keep", kept, "--json", told],
        folder=ROOT,
    )
    it.models.append(_model(kept.read_bytes()))
    steps = [step["step"] for step in json.loads(told.read_text())["steps"]]
    return f"{sum(step.startswith('invoke') for step in steps)} formats answered as the manifest says"


def train_there(it: Stage) -> str:
    """Train the second version's model in a container of the pulled image."""
    it.models.append(_fitted(it, SECOND))
    return f"{SECOND['estimator']}, in a container of the pulled image"


def first_job(it: Stage) -> str:
    """Have the stand-in's training job leave the first model, and approve the version that `train` makes of it."""
    return _version(it, 1, {})


def second_job(it: Stage) -> str:
    """The same with the second model."""
    return _version(it, 2, SECOND)


def _version(it: Stage, number: int, hyperparameters: dict[str, str]) -> str:
    model = it.models[number - 1]
    it.aws.script("training-job", "*", artifact=model.artifact, metrics=model.manifest["metrics"], logs=["trained elsewhere"])
    it.deploy("train", *(f"--hyperparameter={name}={value}" for name, value in hyperparameters.items()))
    it.deploy("approve")
    listed = it.aws.client("sagemaker").list_model_packages(ModelPackageGroupName=PROJECT)["ModelPackageSummaryList"]
    told = {one["ModelPackageVersion"]: one["ModelApprovalStatus"] for one in listed}
    _same("The registry's versions", told, dict.fromkeys(range(1, number + 1), "Approved"))
    return f"version {number} is approved"


def _fitted(it: Stage, hyperparameters: dict[str, str]) -> Model:
    base = it.folder / f"ml-{len(it.models)}"
    lay_out(base, {"training": SAMPLE}, hyperparameters)
    outcome = fit(it.hosting.containers(it.uri), base)
    if outcome.exit_code:
        raise StepFailed(f"train ended with {outcome.exit_code}; 0 was expected:\n{outcome.output[-4000:]}")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in sorted((base / "model").iterdir()):
            archive.add(path, path.name)
    shutil.rmtree(base, ignore_errors=True)
    return _model(packed.getvalue())


def _model(artifact: bytes) -> Model:
    with tarfile.open(fileobj=io.BytesIO(artifact)) as archive:
        file = archive.extractfile("manifest.json")
        manifest: dict[str, Any] = json.loads(file.read()) if file else {}
    return Model(artifact, manifest)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise StepFailed(f"{what} is {found}; {expected} was expected.")


STEPS: tuple[tuple[str, Step], ...] = (
    ("build", build),
    ("roles", roles),
    ("preflight", preflight),
    ("scan", scan),
    ("push", push),
    ("pull by digest", pull),
    ("train and serve here", train_here),
    ("train another here", train_there),
    ("train, approve", first_job),
    ("endpoint", online.first),
    ("train, approve again", second_job),
    ("canary, alarms quiet", online.canary),
    ("canary, an alarm goes off", online.turned_back),
    ("canary, once more", online.third),
    ("rollback", online.rollback),
    ("autoscale", online.autoscale),
    ("batch", online.batch),
    ("status", online.status),
    ("delete", online.delete),
)
"""In this order. Each needs those before it; `build` and `scan` may be left out."""
