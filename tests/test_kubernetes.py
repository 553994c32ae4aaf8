"""The manifests of deploy/kubernetes: valid, referring to each other, and true of the real image (C-2, K-2)."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT
from test_platforms import clients, clients_python  # noqa: F401  # one environment of other platforms' clients

from local_test.emulator import Endpoint, stop
from local_test.payloads import csv_body, json_body
from local_test.runners import Container, Containers, Launch
from serving.server import GRACE_S

FOLDER = ROOT / "deploy" / "kubernetes"
ELSEWHERE = (ROOT / "docs" / "elsewhere.md").read_text()
VERSIONS = ("1.28.0", "1.30.0", "1.32.0", "1.34.0", "1.36.0", "1.37.0")
NOT_KUBERNETES = {"Kustomization", "ServingRuntime", "InferenceService"}


@cache
def documents() -> dict[str, dict]:
    """Every document of the folder, by its kind."""
    found = [each for path in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    kinds = {each["kind"]: each for each in found}
    assert len(kinds) == len(found)
    return kinds


def pod() -> dict:
    """What the Deployment starts."""
    return documents()["Deployment"]["spec"]["template"]


def runtime() -> dict:
    """What KServe makes of the runtime: a pod's spec."""
    return documents()["ServingRuntime"]["spec"]


# ---- the manifests by themselves


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", sorted(set(documents()) - NOT_KUBERNETES))
def test_a_manifest_is_valid_in(version: str, kind: str) -> None:
    kubernetes_validate.validate(documents()[kind], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pod_that_kserve_makes_is_valid_in(version: str) -> None:
    """What KServe reads itself, and the webhook's part, aside."""
    spec = {name: copy.deepcopy(runtime()[name]) for name in ("containers", "volumes")}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "berth"}, "spec": spec}
    kubernetes_validate.validate(made, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    """The checks above are only worth something if they can fail."""
    wrong = copy.deepcopy(documents()["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_kustomize_takes_every_manifest_but_kserves_and_names_every_image() -> None:
    kustomization = documents()["Kustomization"]
    names = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "kserve.yaml"}
    assert set(kustomization["resources"]) == names
    images = {each["image"] for part in ("initContainers", "containers") for each in pod()["spec"][part]}
    assert {each["name"] for each in kustomization["images"]} == images
    (tag,) = {each["newTag"] for each in kustomization["images"]}
    assert runtime()["containers"][0]["image"] == f"berth:{tag}"
    assert f'version = "{tag}"' in (ROOT / "pyproject.toml").read_text()


def test_every_reference_between_manifests_leads_somewhere() -> None:
    found, labels = documents(), pod()["metadata"]["labels"]
    ports = {each["name"]: each["containerPort"] for each in pod()["spec"]["containers"][0]["ports"]}
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert [selector for selector in selectors if not selector.items() <= labels.items()] == []
    (target,) = {each["targetPort"] for each in found["Service"]["spec"]["ports"]}
    (allowed,) = {each["port"] for rule in found["NetworkPolicy"]["spec"]["ingress"] for each in rule["ports"]}
    assert (ports[target], ports[allowed]) == (8080, 8080)
    scaled = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])
    assert "replicas" not in found["Deployment"]["spec"]  # the autoscaler's alone
    budget, scaler = found["PodDisruptionBudget"]["spec"], found["HorizontalPodAutoscaler"]["spec"]
    assert budget["maxUnavailable"] < scaler["minReplicas"]


def test_the_inference_service_is_of_the_runtime() -> None:
    model = documents()["InferenceService"]["spec"]["predictor"]["model"]
    formats = [each["name"] for each in runtime()["supportedModelFormats"]]
    assert model["runtime"] == documents()["ServingRuntime"]["metadata"]["name"]
    assert model["modelFormat"]["name"] in formats
    assert model["protocolVersion"] in runtime()["protocolVersions"]


@pytest.mark.parametrize("made", [lambda: pod()["spec"], runtime], ids=["Deployment", "ServingRuntime"])
def test_every_container_keeps_the_restricted_profile_of_pod_security(made) -> None:
    spec = made()
    shared = spec.get("securityContext", {})
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = {**shared, **container["securityContext"]}
        assert own["runAsNonRoot"] is True
        assert own["runAsUser"] > 0
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys() & container["resources"]["requests"].keys()
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} == {"emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_the_grace_period_holds_the_wait_before_the_stop_and_serves_own() -> None:
    (container,) = pod()["spec"]["containers"]
    waited_s = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert waited_s + GRACE_S < pod()["spec"]["terminationGracePeriodSeconds"]


def test_a_service_of_this_name_can_not_be_taken_for_a_setting() -> None:
    """Kubernetes would set BERTH_PORT and BERTH_SERVICE_HOST."""
    assert pod()["spec"]["enableServiceLinks"] is False


STRICT = """
import json, re, sys
import kserve.models, kubernetes.client.models
def model(name):
    return getattr(kserve.models, name, None) or getattr(kubernetes.client.models, name, None)
def unknown(value, kind, path):
    inner = re.match(r"(list|dict)[\\[(](?:str, *)?(.+)[\\])]$", kind)
    if inner:
        pairs = enumerate(value) if inner[1] == "list" else value.items()
        return [found for key, each in pairs for found in unknown(each, inner[2], f"{path}.{key}")]
    if model(kind) is None or not isinstance(value, dict):
        return []
    fields = {spelled: name for name, spelled in model(kind).attribute_map.items()}
    return [f"{path}.{key}: not of {kind}" for key in value if key not in fields] + [
        found for key, each in value.items() if key in fields
        for found in unknown(each, model(kind).openapi_types[fields[key]], f"{path}.{key}")]
print(json.dumps({"found": [unknown(document, kind, "") for kind, document in json.loads(sys.argv[1])]}))
"""
MODELS = {"ServingRuntime": "V1alpha1ServingRuntime", "InferenceService": "V1beta1InferenceService"}


def test_kserve_knows_every_field(clients) -> None:  # noqa: F811
    wrong = copy.deepcopy(documents()["InferenceService"])
    wrong["spec"]["predictor"]["model"]["storageURI"] = ""
    given = [[name, documents()[kind]] for kind, name in MODELS.items()] + [[MODELS["InferenceService"], wrong]]
    unknown = [".spec.predictor.model.storageURI: not of V1beta1ModelSpec"]  # the check can fail
    assert clients(STRICT, json.dumps(given))["found"] == [[], [], unknown]


# ---- the manifests and the real image


KNOWN = {
    *("name", "image", "command", "args", "ports", "resources", "securityContext", "volumeMounts"),
    *("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"),
}
"""What `launched` carries out or a test below looks at: another field in a manifest wants a test too."""
SECURITY = {
    *("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"),
    *("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"),
}


def launch(spec: dict, container: dict, folders: dict[str, Path]) -> Launch:
    """Return how Docker starts a container as Kubernetes would; `folders` stand for volumes, memory for the others."""
    assert set(container) <= KNOWN
    security = {**spec.get("securityContext", {}), **container["securityContext"]}
    assert set(security) <= SECURITY
    limits, command = container["resources"]["limits"], container.get("command", [])
    options = [
        f"--user={security['runAsUser']}:{security.get('runAsGroup', 0)}",
        *([f"--group-add={security['fsGroup']}"] if "fsGroup" in security else []),
        *(["--read-only"] if security["readOnlyRootFilesystem"] else []),
        *([] if security["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]),
        *(f"--cap-drop={name}" for name in security["capabilities"]["drop"]),
        *(f"--memory={limits['memory'].lower().rstrip('i')}", f"--cpus={cpus(limits['cpu'])}"),
        *([f"--entrypoint={command[0]}"] if command else []),
    ]
    mounts = []
    for mount in container["volumeMounts"]:
        if mount["name"] in folders:
            mounts.append(f"{folders[mount['name']]}:{mount['mountPath']}" + (":ro" if mount.get("readOnly") else ""))
        else:
            options += ["--tmpfs", mount["mountPath"]]
    words = (*command[1:], *container.get("args", []))
    port = next((each["containerPort"] for each in container.get("ports", [])), 0)
    return Launch(words, {}, tuple(mounts), port, tuple(options))


def cpus(quantity: str) -> float:
    """A quantity of CPU as a number."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


@contextmanager
def running(docker: str, image: str, started: Launch) -> Iterator[Container]:
    """A container, stopped in the end as the kubelet does: SIGTERM, then SIGKILL."""
    container = Containers(image, docker).launch(started)
    try:
        yield container
    finally:
        stop(container, pod()["spec"]["terminationGracePeriodSeconds"])


def probed(container: Container, probe: dict) -> int:
    """The status of what a probe asks, in the time that it gives; 0 for none."""
    port = {"http": 8080}.get(probe["httpGet"]["port"], probe["httpGet"]["port"])
    assert container.url.endswith(f":{port}")
    try:
        with urllib.request.urlopen(container.url + probe["httpGet"]["path"], timeout=probe["timeoutSeconds"]) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def wait_for(container: Container, probe: dict) -> None:
    """Wait for a probe's 200 as long as it says."""
    end = time.monotonic() + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    while probed(container, probe) != 200:
        assert container.is_running(), container.output()
        assert time.monotonic() < end, container.output()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def model_image(docker: str, image: str, trained: Path) -> Iterator[str]:
    """The image that brings the model, built by the command of docs/elsewhere.md."""
    name = "berth-infra-model:test"
    (line,) = re.findall(r"^printf .*docker build.*$", ELSEWHERE, re.MULTILINE)
    for written, ours in (("berth:0.1.0", image), ("berth-model:0.1.0", name), ("docker build", f"{docker} build --quiet")):
        assert written in line
        line = line.replace(written, ours)
    line = line.removesuffix(" build/ml") + f" {trained}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield name
    subprocess.run([docker, "image", "rm", "--force", name], capture_output=True, check=False)


def empty_dir(folder: Path) -> Path:
    """A folder that anybody may write to, as an emptyDir is."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_the_deployment_serves_as_it_is_written(docker, image, model_image, manifest, tmp_path) -> None:
    spec, model = pod()["spec"], empty_dir(tmp_path / "model")
    (init,), (serve,) = spec["initContainers"], spec["containers"]
    container = Containers(model_image, docker).launch(launch(spec, init, {"model": model}))
    assert container.wait(60) == 0, container.output()
    with running(docker, image, launch(spec, serve, {"model": model})) as container:
        wait_for(container, serve["startupProbe"])
        assert [probed(container, serve[name]) for name in ("readinessProbe", "livenessProbe")] == [200, 200]
        before_stop = subprocess.Popen([docker, "exec", container.name, *serve["lifecycle"]["preStop"]["exec"]["command"]])
        reply = Endpoint(container).invoke(csv_body(manifest))
        expected = [sample["prediction"] for sample in manifest["samples"]]
        assert [float(line) for line in reply.text.splitlines()] == pytest.approx(expected, rel=1e-5)
        assert container.output().count("Booting worker") == 1  # one CPU
        assert before_stop.wait(10) == 0
        started = time.monotonic()
        assert stop(container, spec["terminationGracePeriodSeconds"]) == 0
        assert time.monotonic() - started < GRACE_S


def test_kserves_runtime_serves_the_model_under_the_services_name(docker, image, trained, manifest, tmp_path) -> None:
    spec, name = copy.deepcopy(runtime()), documents()["InferenceService"]["metadata"]["name"]
    (container,) = spec["containers"]
    container["args"] = [each.replace("{{.Name}}", name) for each in container["args"]]
    container["volumeMounts"].append({"name": "storage", "mountPath": "/mnt/models", "readOnly": True})  # by the webhook
    with running(docker, image, launch(spec, container, {"storage": trained / "model"})) as started:
        wait_for(started, {**container["readinessProbe"], "failureThreshold": 30})
        assert probed(started, container["livenessProbe"]) == 200
        endpoint = Endpoint(started)
        assert json.loads(endpoint.get("/v1/models").body) == {"models": [name]}
        assert json.loads(endpoint.get(f"/v2/models/{name}/ready").body)["ready"] is True
        answer = endpoint.invoke(json_body(manifest), "application/json", path=f"/v1/models/{name}:predict")
        expected = [sample["prediction"] for sample in manifest["samples"]]
        assert json.loads(answer.body)["predictions"] == pytest.approx(expected, rel=1e-5)
        path = runtime()["annotations"]["prometheus.kserve.io/path"]
        assert (endpoint.get(path).status, runtime()["annotations"]["prometheus.kserve.io/port"]) == (200, "8080")


def test_arguments_without_a_command_would_not_start(docker, image) -> None:
    """Why the runtime names `serve`: other images of KServe have an ENTRYPOINT."""
    with pytest.raises(RuntimeError, match="--model_name"):
        Containers(image, docker).launch(Launch(("--model_name=berth",)))


# ---- what docs/elsewhere.md says of other clouds


def flags(command: str) -> dict[str, str]:
    """The flags of a command of docs/elsewhere.md, which may go over several lines."""
    (text,) = re.findall(rf"^{command} (?:.*\\\n)*.*$", ELSEWHERE, re.MULTILINE)
    return dict(re.findall(r"--([a-z-]+)=(\S+)", text))


def bare(environ: dict[str, str], *mounts: str, port: int = 8080) -> Launch:
    """A start without a word."""
    return Launch((), environ, mounts, port)


@contextmanager
def answering(docker: str, image: str, started: Launch, health: str) -> Iterator[Endpoint]:
    """A container whose health route answers 200."""
    with running(docker, image, started) as container:
        probe = {"httpGet": {"path": health, "port": started.port}, "timeoutSeconds": 2, "failureThreshold": 60}
        wait_for(container, probe)
        yield Endpoint(container)


def test_the_routes_given_to_vertex_ai_answer(docker, model_image, manifest) -> None:
    given = flags("gcloud ai models upload")
    routes = {"AIP_HEALTH_ROUTE": given["container-health-route"], "AIP_PREDICT_ROUTE": given["container-predict-route"]}
    started = bare({"AIP_HTTP_PORT": given["container-ports"], **routes}, port=int(given["container-ports"]))
    with answering(docker, model_image, started, routes["AIP_HEALTH_ROUTE"]) as endpoint:
        reply = endpoint.invoke(json_body(manifest), "application/json", path=routes["AIP_PREDICT_ROUTE"])
        assert len(json.loads(reply.body)["predictions"]) == 3


def test_the_routes_given_to_azure_ml_answer(docker, image, trained, manifest) -> None:
    (text,) = re.findall(r"```yaml\n(# deployment\.yaml.*?)```", ELSEWHERE, re.DOTALL)
    deployment = yaml.safe_load(text)
    routes = deployment["environment"]["inference_config"]
    root = f"/var/azureml-app/azureml-models/{deployment['model']['name']}/{deployment['model']['version']}"
    assert {route["port"] for route in routes.values()} == {8080}
    started = bare({"AZUREML_MODEL_DIR": root}, f"{trained / 'model'}:{root}/model:ro")
    with answering(docker, image, started, routes["readiness_route"]["path"]) as endpoint:
        assert endpoint.get(routes["liveness_route"]["path"]).status == 200
        reply = endpoint.invoke(json_body(manifest), "application/json", path=routes["scoring_route"]["path"])
        assert len(json.loads(reply.body)["predictions"]) == 3


def test_the_image_given_to_cloud_run_answers_within_its_memory(docker, model_image, manifest) -> None:
    given = flags("gcloud run deploy")
    probe = dict(pair.split("=") for pair in given["startup-probe"].removeprefix("httpGet.").split(","))
    options = (f"--memory={given['memory'].lower().rstrip('i')}", f"--cpus={given['cpu']}")
    started = Launch((), {"PORT": "9000", "K_SERVICE": "berth"}, (), 9000, options)
    with answering(docker, model_image, started, probe["path"]) as endpoint:
        assert endpoint.invoke(csv_body(manifest)).status == 200
