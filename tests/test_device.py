"""The image's edge target: the int8 model over HTTP, with a delegate and without, on this machine and on Azure IoT Edge."""

from __future__ import annotations

import csv
import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import test_serving
from ahead import ahead, beside
from conftest import ROOT, SAMPLE, docker_client, lacking, long
from test_serving import JSON, NAMES, SHAPES, numbers, refused
from trees import build_from, tree_elsewhere

from contract.edge import EDGE, FOLDER, INT8, read_edge_manifest
from contract.errors import BadSetting, DamagedModel, NoDelegate
from contract.manifest import read_manifest
from local_test.contents import Contents
from local_test.emulator import serving
from local_test.emulator.frontend import serving_models
from local_test.runners import Containers, Processes
from serving.predictor import load_predictor
from serving.settings import Settings
from serving.tflite import Encoder, TflitePredictor

ROW = b"0,6.5,296,15.3,396.9,5"
ON_DEVICE = {"PREDICTOR": "tflite", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"}


def exported(base, folder, *kinds):
    """Return a copy of an /opt/ml whose model was exported for devices."""
    shutil.copytree(base, folder / "ml")
    words = [sys.executable, "-m", "edge", "export", "--model", folder / "ml" / "model", *kinds]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "ml"


@pytest.fixture(scope="module")
def base(trained, tmp_path_factory):
    """An /opt/ml with the default model and its int8 student."""
    return exported(trained, tmp_path_factory.mktemp("device"), "tflite", "coreml")


@pytest.fixture
def copy(base, tmp_path):
    """The same, to be damaged."""
    shutil.copytree(base, tmp_path / "ml")
    return tmp_path / "ml"


@pytest.fixture(scope="module")
def device(base):
    """A server of the int8 model, with two workers."""
    with serving(Processes(), base, ON_DEVICE) as running:
        yield running


@pytest.fixture(scope="module")
def predictor(base):
    """The int8 model in this process."""
    return load_predictor(base / "model", "tflite")


@pytest.fixture(scope="module")
def facts(base):
    """edge.json."""
    return read_edge_manifest(base / "model" / FOLDER)


def rows_of_the_sample():
    with (SAMPLE / "boston_house_prices.csv").open() as file:
        lines = list(csv.reader(line for line in file if line.count(",") > 5))
    columns = [lines[0].index(name) for name in NAMES]
    return np.float32([[float(line[column]) for column in columns] for line in lines[1:]])


# ---- what is answered


def test_every_row_of_the_data_is_answered_as_the_runner_on_a_device_does(device, base):
    from edge.runner import Student

    student, rows = Student(base / "model" / FOLDER / INT8), rows_of_the_sample()
    body = "\n".join(",".join(map(str, row)) for row in rows.tolist()).encode()
    assert numbers(device.invoke(body)) == pytest.approx([student.predict(row) for row in rows.tolist()], rel=1e-6)
    assert len(rows) == 506


def test_it_is_as_far_from_the_onnx_model_as_the_manifest_says_and_no_further(device, endpoint, facts):
    body = "\n".join(",".join(map(str, row)) for row in rows_of_the_sample().tolist()).encode()
    off = np.abs(np.subtract(numbers(device.invoke(body)), numbers(endpoint.invoke(body)))).max()
    assert off == pytest.approx(facts.artifacts[INT8]["largest_difference"], abs=2e-3)


@pytest.mark.parametrize("path", ["/invocations", "/predict"])
@pytest.mark.parametrize(("media_type", "body"), SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_of_a_request_gives_the_same_answers(device, predictor, media_type, body, path):
    class Model:
        predict = staticmethod(lambda matrix: predictor.predict(matrix).values)

    test_serving.test_every_shape_of_a_request_gives_the_same_answers(device, Model, 1e-5, media_type, body, path)


@pytest.mark.parametrize(("media_type", "make"), test_serving.MAKERS.items(), ids=test_serving.MAKERS)
def test_the_samples_of_the_metadata_are_answered_as_they_stand_there(device, media_type, make):
    shown = json.loads(device.get("/metadata").body)
    stored = [sample["prediction"] for sample in shown["samples"]]
    assert numbers(device.invoke(make(shown), media_type)) == pytest.approx(stored, abs=1e-5)


def test_metadata_and_page_tell_what_is_served_and_its_own_figures(device, facts):
    shown = json.loads(device.get("/metadata").body)
    assert shown["origin"]["served"] == f"edge/{INT8}"
    assert shown["metrics"] == {f"validation:{name}": facts.artifacts[INT8][name] for name in ("r2", "mae")}
    assert "mae" in device.get("/").text
    assert json.loads(device.get("/v2/models/boston-housing").body)["platform"] == "tensorflowlite_tflite"


def test_what_is_no_row_is_refused_as_ever(device):
    reply = device.invoke(b"0,6.5,many,15.3,396.9,5")
    assert reply.status == 400
    assert (json.loads(reply.body)["row"], json.loads(reply.body)["column"]) == (1, "TAX")


def test_intervals_are_refused_with_the_reason_and_stop_a_start_that_promises_them(device, base):
    reply = device.invoke(ROW, accept="text/csv; intervals=true")
    assert (reply.status, json.loads(reply.body)["error"]) == (400, "no_intervals")
    assert f"calibrated for model.onnx, and edge/{INT8} is served" in json.loads(reply.body)["message"]
    code, output = refused(base, {**ON_DEVICE, "BERTH_INTERVALS": "true"})
    assert code == 1
    assert "BERTH_INTERVALS is true" in output


def test_classes_come_with_their_probabilities(penguin_ml, tmp_path):
    base = exported(penguin_ml, tmp_path, "tflite")
    with serving(Processes(), base, {**ON_DEVICE, "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        shown = json.loads(running.get("/metadata").body)
        rows = [sample["row"] for sample in shown["samples"]]
        rows.append({**rows[0], "sex": None, "body_mass_g": None})
        answers = json.loads(running.invoke(json.dumps({"instances": rows}).encode(), JSON).body)["predictions"]
    for answer, sample in zip(answers, shown["samples"], strict=False):
        assert answer["label"] == sample["prediction"]["label"]
        assert answer["probabilities"] == pytest.approx(sample["prediction"]["probabilities"], abs=1e-5)
    assert len(answers) == 4
    assert sum(answers[3]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    encoder, matrix = (Encoder(read_edge_manifest(base / "model" / FOLDER).preprocessing), _with_missing(base))
    wanted = [encoder_row(base, row) for row in matrix.tolist()]
    assert encoder.encode(matrix).tolist() == wanted


def _with_missing(base):
    """A matrix with every choice of every category, and every nullable cell missing once."""
    features = read_manifest(base / "model").declaration.features
    rows = np.float32([[0 if feature.kind == "category" else 45 for feature in features]] * 12)
    for column, feature in enumerate(features):
        if feature.kind == "category":
            rows[:, column] = np.arange(12) % len(feature.choices)
        if feature.nullable:
            rows[column, column] = np.nan
    return rows


def encoder_row(base, row):
    return read_edge_manifest(base / "model" / FOLDER).preprocessing.encode(row)


def test_several_models_come_and_go_by_name(base, tmp_path):
    with serving_models(Processes(), tmp_path / "many", {"one": base / "model"}, {"PREDICTOR": "tflite"}) as front:
        assert numbers(front.invoke("one", ROW)) == pytest.approx(numbers_of(base), rel=1e-6)


def numbers_of(base):
    return load_predictor(base / "model", "tflite").predict(np.float32([[float(cell) for cell in ROW.split(b",")]])).values


def test_use_is_metered_as_ever(base):
    with serving(Processes(), base, {**ON_DEVICE, "BERTH_METERING_DIMENSION": "inference.count"}) as running:
        headers = {name.lower(): value for name, value in running.invoke(ROW + b"\n" + ROW).headers.items()}
    assert json.loads(headers["x-amzn-inference-metering"]) == {"Dimension": "inference.count", "ConsumedUnits": 2}


# ---- threads and processes


def test_threads_at_once_get_the_answers_that_one_gets(predictor):
    rows = rows_of_the_sample()
    wanted, found = predictor.predict(rows).values, {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: predictor.predict(rows).values})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[number], wanted) for number in range(4))


def test_a_child_makes_its_own_interpreter_and_answers_the_same(predictor):
    row = np.float32([[0, 6.5, 296, 15.3, 396.9, 5]])
    wanted = float(predictor.predict(row).values[0])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        had = hasattr(predictor._own, "runner")
        os.write(write, f"{had} {float(predictor.predict(row).values[0])!r}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() == f"False {wanted!r}"
    os.close(read), os.close(write)


# ---- what stops a start


def test_a_model_that_was_not_exported_is_told_what_to_do(trained):
    code, output = refused(trained, ON_DEVICE)
    assert code == 2
    assert f"model/edge/{EDGE} can't be read" in output
    assert "Export first" in output


def test_a_damaged_int8_file_stops_the_start_and_is_named(copy):
    test_serving.flip_a_byte(copy / "model" / FOLDER / INT8)
    code, output = refused(copy, ON_DEVICE)
    assert (code, "Traceback" in output) == (2, False)
    assert f"{INT8} has sha256" in output


def test_an_export_of_another_model_is_refused(copy):
    path = copy / "model" / FOLDER / EDGE
    path.write_text(path.read_text().replace(read_manifest(copy / "model").files["model.onnx"]["sha256"], "0" * 64))
    with pytest.raises(DamagedModel, match="exported from another model"):
        load_predictor(copy / "model", "tflite")


@pytest.mark.parametrize(("times", "starts"), [(0.9, True), (1.1, False)])
def test_answers_that_are_off_by_more_than_the_stated_bound_stop_the_start(copy, facts, times, starts):
    path = copy / "model" / FOLDER / EDGE
    document = json.loads(path.read_text())
    document["samples"][1]["prediction"] += times * facts.bound
    path.write_text(json.dumps(document))
    if starts:
        load_predictor(copy / "model", "tflite")
    else:
        with pytest.raises(DamagedModel, match=r"Sample 2 of manifest\.json") as error:
            load_predictor(copy / "model", "tflite")
        assert error.value.facts["file"] == f"edge/{INT8}"


def test_an_export_without_a_student_is_told_what_to_do(copy):
    words = [sys.executable, "-m", "edge", "export", "onnx", "--model", copy / "model"]
    subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    with pytest.raises(DamagedModel, match=rf"edge has no {INT8}: it was not asked for\. Export again, with `tflite`"):
        load_predictor(copy / "model", "tflite")


# ---- delegates


STUB = """
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/file.h>
#include <unistd.h>
typedef void (*Report)(const char *);
struct Delegate { void *data; int (*prepare)(void *, struct Delegate *); void *copy[3]; int64_t flags; void *builder; };
static int held = -1;
static int prepare(void *context, struct Delegate *self) { return 0; }
static struct Delegate one = {NULL, prepare, {NULL, NULL, NULL}, 0, NULL};
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, Report report) {
    held = open(DEVICE, O_RDWR);
    if (held < 0 || flock(held, LOCK_EX | LOCK_NB)) {
        if (held >= 0) close(held);
        if (report) report("no device was found");
        return NULL;
    }
    return &one;
}
void tflite_plugin_destroy_delegate(void *delegate) { close(held); }
"""
"""A delegate that has a file for a device, which one process at a time may hold, and leaves all computing to the CPU."""


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A function: a library whose device is this file."""
    compiler = shutil.which("cc") or lacking("there is no C compiler")
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "stub.c").write_text(STUB)

    def made(device):
        library = folder / f"libstub{len(list(folder.iterdir()))}.so"
        command = [compiler, "-shared", "-fPIC", "-o", library, f'-DDEVICE="{device}"', folder / "stub.c"]
        subprocess.run(command, check=True)
        return library

    return made


def test_a_delegate_with_its_device_serves_from_one_worker_that_holds_it(base, stub, tmp_path):
    (tmp_path / "device").touch()
    with serving(Processes(), base, {**ON_DEVICE, "TFLITE_DELEGATE": str(stub(tmp_path / "device"))}) as running:
        assert numbers(running.invoke(ROW)) == pytest.approx(numbers_of(base), rel=1e-6)
        body = b"\n".join([ROW] * 2_000)
        assert numbers(running.invoke(body)) == pytest.approx([float(numbers_of(base)[0])] * 2_000, rel=1e-6)
        assert len(test_serving.workers_of(running.program)) == 1
        with (tmp_path / "device").open() as held, pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_device_that_another_process_took_meanwhile_is_told_by_the_probes(base, stub, tmp_path):
    (tmp_path / "device").touch()
    environ = {**ON_DEVICE, "TFLITE_DELEGATE": str(stub(tmp_path / "device"))}
    with serving(Processes(), base, environ) as running, (tmp_path / "device").open() as taken:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the first process has let go of it
        assert running.invoke(ROW).status == 500
        assert running.ping().status == 503
    assert "no device was found" in running.program.output()


def test_a_library_without_its_device_stops_the_start_in_two_lines(base, stub, tmp_path):
    library = stub(tmp_path / "none")
    code, output = refused(base, {**ON_DEVICE, "TFLITE_DELEGATE": str(library)})
    assert code == 1
    found, cure = [line for line in output.splitlines() if not line.startswith("INFO")]
    assert found == f"serve: {library} is there, but finds no device that it can use: it says no device was found."
    assert cure.startswith("Plug it in")
    assert "--device" in cure


def test_a_library_that_is_not_there_stops_the_start_in_two_lines(base):
    with pytest.raises(NoDelegate, match=r"^/nowhere/libedgetpu\.so\.1 can't be loaded: .*\.\nInstall it"):
        TflitePredictor(base / "model", read_manifest(base / "model"), "/nowhere/libedgetpu.so.1")


def test_an_accelerator_may_be_eight_steps_off_which_the_cpu_may_not(base, facts, predictor, monkeypatch):
    assert predictor.manifest.parity["tolerance"] == facts.bound
    monkeypatch.setattr("serving.tflite._choose", lambda folder, *_: (folder / INT8, "libstub.so"))
    accelerated = TflitePredictor(base / "model", read_manifest(base / "model"), "libstub.so")
    assert accelerated.manifest.parity["tolerance"] == 8 * facts.bound


def test_auto_goes_on_without_one_and_says_so(base):
    if shutil.which("ldconfig") and "libedgetpu" in subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout:
        pytest.skip("this machine has the Edge TPU's library")
    with serving(Processes(), base, {**ON_DEVICE, "TFLITE_DELEGATE": "auto"}) as running:
        assert numbers(running.invoke(ROW)) == pytest.approx(numbers_of(base), rel=1e-6)
    output = running.program.output()
    assert "libedgetpu.so.1 can't be loaded" in output
    assert f"TFLITE_DELEGATE is auto: {INT8} is served on the CPU." in output


@pytest.mark.parametrize(
    "environ",
    [{}, {"PREDICTOR": "onnx"}, {"PREDICTOR": "tflite", "SAGEMAKER_MULTI_MODEL": "true"}],
    ids=["default", "onnx", "several models"],
)
def test_a_delegate_that_nothing_would_use_is_refused_by_name(environ):
    with pytest.raises(BadSetting, match="TFLITE_DELEGATE is 'auto'; it goes with PREDICTOR=tflite and one model"):
        Settings.from_environ({**environ, "TFLITE_DELEGATE": "auto"})


def test_a_server_with_a_delegate_has_one_worker_whatever_was_asked():
    environ = {"PREDICTOR": "tflite", "SAGEMAKER_MODEL_SERVER_WORKERS": "4"}
    assert Settings.from_environ(environ).workers == 4
    assert Settings.from_environ({**environ, "TFLITE_DELEGATE": "auto"}).workers == 1


# ---- the image's edge target


@ahead
def edge_image() -> str:
    """The tag of the image's edge target, built from this tree."""
    docker_client()
    done = beside(["make", "image", "TARGET=edge", "IMAGE=berth-edge:test"], ROOT)
    assert done.returncode == 0, done.stdout[-6000:]
    return "berth-edge:test"


@long
def test_the_edge_layers_are_the_same_wherever_and_whenever_they_are_built(docker, edge_image, tmp_path):
    elsewhere = tree_elsewhere(tmp_path / "elsewhere")
    recipe = elsewhere / "container" / "Dockerfile"
    # Nothing of the edge's stages is taken from the cache.
    recipe.write_text(re.sub(r"^(FROM \w+ AS edge-\w+)$", r"\1\nRUN sleep 1", recipe.read_text(), flags=re.MULTILINE))
    command = [docker, "build", "--file", "container/Dockerfile", "--target", "edge", "--tag", "berth-edge:again", "."]
    build_from(elsewhere, command)
    try:
        assert layers(docker, "berth-edge:again") == layers(docker, edge_image)
    finally:
        subprocess.run([docker, "image", "rm", "berth-edge:again"], capture_output=True)


def layers(docker, image):
    """The sha256 of an image's layers, from the lowest."""
    words = [docker, "image", "inspect", "--format", "{{json .RootFS.Layers}}", image]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_the_edge_target_is_the_default_image_and_three_layers(docker, image, edge_image):
    lower, all_of_them = layers(docker, image), layers(docker, edge_image)
    assert all_of_them[: len(lower)] == lower
    assert len(all_of_them) - len(lower) == 3


def test_the_default_image_holds_no_edge_code_and_says_what_tflite_needs(docker, image, base):
    with Contents(Containers(image)) as inside:
        names = {member.name for member in inside.below("/opt/berth")}
    assert not [name for name in names if name.startswith("/opt/berth/edge") or name.endswith("/container/export")]
    assert "/opt/berth/serving/tflite.py" in names
    program = Containers(image).start("serve", base, ON_DEVICE)
    assert program.wait(60) == 1
    lines = [line for line in program.output().splitlines() if line.strip()]
    assert lines == [
        "serve: PREDICTOR is tflite, which needs ai-edge-litert: the image's edge target has it (`make image TARGET=edge`), "
        "and `.ci/venv .venv edge` installs it. Or unset PREDICTOR."
    ]


HARD = ("--read-only", "--tmpfs", "/tmp", "--user", "1000", "--cap-drop", "ALL")


@pytest.mark.parametrize("predictor_kind", ["tflite", "onnx"])
def test_the_edge_image_serves_by_either_predictor(docker, edge_image, base, endpoint, predictor_kind):
    with serving(Containers(edge_image, options=HARD), base, {**ON_DEVICE, "PREDICTOR": predictor_kind}) as running:
        found = numbers(running.invoke(ROW))
    wanted = numbers_of(base) if predictor_kind == "tflite" else numbers(endpoint.invoke(ROW))
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_device_is_passed_in_and_a_delegate_without_its_library_is_told(docker, edge_image, base):
    options = (*HARD, "--device", "/dev/null:/dev/apex_0")
    program = Containers(edge_image, options=options).start("serve", base, {**ON_DEVICE, "TFLITE_DELEGATE": "libedgetpu.so.1"})
    assert program.wait(60) == 1
    assert "serve: libedgetpu.so.1 can't be loaded" in program.output()


def test_the_word_export_writes_beside_the_model_what_this_image_can_make(docker, edge_image, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "ml")
    words = ["run", "--rm", "--network", "none", "--volume", f"{tmp_path / 'ml'}:/opt/ml", edge_image, "export"]
    done = subprocess.run([docker, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = read_edge_manifest(tmp_path / "ml" / "model" / FOLDER, read_manifest(tmp_path / "ml" / "model"))
    assert {"model.onnx", INT8} <= set(facts.artifacts)
    assert set(facts.left_out) == {"coreml"}
    bare = subprocess.run([docker, "run", "--rm", "--network", "none", edge_image, "export"], capture_output=True, text=True)
    assert bare.returncode == 2
    assert "/opt/ml/model/manifest.json can't be read" in bare.stderr
    assert "Traceback" not in bare.stderr


def test_the_sbom_of_the_edge_target_names_what_it_adds(docker, image, edge_image):
    def named(tag):
        with Contents(Containers(tag)) as inside:
            parts = json.loads(inside.read("/opt/berth/sbom.cdx.json"))["components"]
        return {(part["name"], part["version"]) for part in parts if part.get("purl", "").startswith("pkg:pypi/")}

    ask = "from importlib.metadata import distributions; [print(one.name, one.version) for one in distributions()]"
    done = subprocess.run([docker, "run", "--rm", edge_image, "python3", "-c", ask], capture_output=True, text=True, check=True)
    there = {tuple(line.split()) for line in done.stdout.splitlines()}

    def spelled(pairs):
        return {(name.lower().replace("_", "-").replace(".", "-"), version) for name, version in pairs}

    assert spelled(named(edge_image)) == spelled(there)
    assert {name for name, _ in spelled(named(edge_image)) - spelled(named(image))} == {
        *("ai-edge-litert", "backports-strenum", "click", "flatbuffers", "ml-dtypes", "pillow")
    } - {name for name, _ in spelled(named(image))}


# ---- Azure IoT Edge

DEPLOYMENT = ROOT / "deploy" / "iotedge" / "deployment.json"
TEXT = {"type": "string"}


def closed(required, **properties):
    """The schema of an object that has these members and no others."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def by_name(pattern, of):
    return {"type": "object", "patternProperties": {pattern: of}, "additionalProperties": False}


SETTINGS = {**closed("image", image=TEXT), "patternProperties": {"^createOptions[0-9]*$": {"type": "string", "maxLength": 512}}}
MODULE = {
    "type": {"const": "docker"},
    "settings": SETTINGS,
    "env": by_name(r"^[^+#$\s.]+$", closed("value", value={"type": ["number", "string", "boolean"]})),
    "status": {"enum": ["running", "stopped"]},
    "restartPolicy": {"enum": ["never", "on-failure", "on-unhealthy", "always"]},
    "imagePullPolicy": {"enum": ["never", "on-create"]},
    "startupOrder": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
}
AGENT = {name: MODULE[name] for name in ("type", "settings", "env", "imagePullPolicy")}
CREDENTIALS = by_name(r"^[^.$# ]+$", closed("username password address", username=TEXT, password=TEXT, address=TEXT))
RUNTIME = closed("", minDockerVersion=TEXT, loggingOptions=TEXT, registryCredentials=CREDENTIALS)
NEEDED = "type status restartPolicy settings"


def desired(**properties):
    required = " ".join(name for name in properties if name != "storeAndForwardConfiguration")
    return closed("properties.desired", **{"properties.desired": closed(required, **properties)})


MANIFEST = closed(
    "modulesContent",
    modulesContent=closed(
        "$edgeAgent $edgeHub",
        **{
            "$edgeAgent": desired(
                schemaVersion={"const": "1.1"},
                runtime=closed("type settings", type={"const": "docker"}, settings=RUNTIME),
                systemModules=closed(
                    "edgeAgent edgeHub", edgeAgent=closed("type settings", **AGENT), edgeHub=closed(NEEDED, **MODULE)
                ),
                modules=by_name("^[a-zA-Z0-9_-]+$", closed(NEEDED, **MODULE, version=TEXT)),
            ),
            "$edgeHub": desired(
                schemaVersion={"const": "1.1"},
                routes=by_name(r"^[^.$# ]+$", {"type": ["string", "object"]}),
                storeAndForwardConfiguration=closed("timeToLiveSecs", timeToLiveSecs={"type": "integer", "minimum": 0}),
            ),
        },
    ),
)
"""What Azure documents of a deployment manifest, schema 1.1 (learn.microsoft.com, "module-edgeagent-edgehub")."""


def test_the_deployment_manifest_has_the_fields_that_azure_documents_and_no_others():
    from jsonschema import Draft202012Validator

    assert [error.message for error in Draft202012Validator(MANIFEST).iter_errors(json.loads(DEPLOYMENT.read_text()))] == []


def module():
    agent = json.loads(DEPLOYMENT.read_text())["modulesContent"]["$edgeAgent"]["properties.desired"]
    return agent["modules"]["berth"]


class Engine(http.client.HTTPConnection):
    """Docker Engine's API on its socket."""

    def __init__(self, path):
        super().__init__("docker", timeout=60)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def ask(self, method, path, document=None):
        self.request(method, path, json.dumps(document) if document else None, {"Content-Type": "application/json"})
        answer = self.getresponse()
        body = answer.read()
        self.close()
        assert answer.status < 300, body
        return json.loads(body) if body else None


@pytest.mark.parametrize("device", [None, "/dev/apex_0"], ids=["as it stands", "with an accelerator"])
def test_a_container_made_by_exactly_these_create_options_answers(docker, edge_image, base, device):
    path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    if not Path(path).exists():
        lacking("Docker's API is at no socket here")
    text = module()["settings"]["createOptions"].replace("/srv/berth/model", str(base / "model"))
    options = json.loads(text.replace('"HostPort":"8080"', '"HostPort":""'))
    assert options["HostConfig"]["Binds"] == [f"{base / 'model'}:/opt/ml/model:ro"]
    environ = {name: entry["value"] for name, entry in module()["env"].items()}
    if device:  # docs/devices.md shows this change
        options["HostConfig"]["Devices"] = [{"PathOnHost": "/dev/null", "PathInContainer": device, "CgroupPermissions": "rwm"}]
        environ["PREDICTOR"] = "tflite"
    engine = Engine(path)
    variables = [f"{name}={value}" for name, value in environ.items()]
    made = engine.ask("POST", "/containers/create", {**options, "Image": edge_image, "Env": variables})["Id"]
    try:
        engine.ask("POST", f"/containers/{made}/start")
        published = engine.ask("GET", f"/containers/{made}/json")["NetworkSettings"]["Ports"]["8080/tcp"]
        assert [binding["HostIp"] for binding in published] == ["127.0.0.1"]
        assert ping(f"http://127.0.0.1:{published[0]['HostPort']}/ping") == 200
    finally:
        engine.ask("DELETE", f"/containers/{made}?force=true")


def ping(url):
    """Return the status of /ping, once it is answered."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status
        except OSError:
            time.sleep(0.1)
    return None


# ---- what docs/devices.md says

DOCUMENT = ROOT / "docs" / "devices.md"


def test_the_swift_snippet_names_what_the_exported_package_has(base):
    coremltools = pytest.importorskip("coremltools")
    from edge.export.coreml import MISSING

    package = base / "model" / FOLDER / "student.mlpackage"
    told = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec().description
    snippet = DOCUMENT.read_text().partition("```swift\n")[2].partition("```")[0]
    assert len(snippet.splitlines()) == 20
    (given,), (answered,) = told.input, told.output
    assert f'["{given.name}": features]' in snippet
    assert f'featureValue(for: "{answered.name}")' in snippet
    assert list(given.type.multiArrayType.shape) == [1, 6]
    assert "shape: [1, NSNumber(value: row.count)]" in snippet
    assert f"{package.stem}" in snippet
    assert f"{MISSING:g}".replace("e+", "e") in snippet
