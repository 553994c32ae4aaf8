"""The image: what is in it and what is not, its size, and how its programs start and stop."""

import fnmatch
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.request
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from contract.manifest import read_manifest

ROOT = Path(__file__).resolve().parent.parent
MB = 1_000_000
PING = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/ping', timeout=2).status)"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

NOT_NEEDED = [
    *("*/bin/*gcc*", "*/bin/cc", "*/bin/ld", "*/bin/pip*"),
    *("*/site-packages/pip/*", "*/site-packages/setuptools/*", "*/site-packages/*/tests/*", "*.whl", "*.pyi"),
    *("*/.cache/*", "/var/lib/apt/lists/*", "/var/cache/apt/*", "/opt/ml/*"),  # T-5
    *("*/libcuda.so*", "*/libnvidia-*", "*/site-packages/nvidia/*"),  # T-6
    *("/opt/berth/model/sample*", "/opt/berth/tests/*", "/opt/berth/.*", "*/Dockerfile", "*/requirements.lock"),
]


# ---- what the image says of itself


@pytest.fixture(scope="module")
def config(docker, image):
    """What `docker image inspect` says."""
    return inspect(docker, image)


def test_nothing_stands_before_the_program_and_a_start_without_a_word_is_defined(config):
    assert (config["Config"].get("Entrypoint"), config["Config"]["Cmd"]) == (None, ["start"])


def test_the_labels_are_true_and_complete(config):
    labels = config["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Berth"
    assert labels["org.opencontainers.image.version"] == version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"org.opencontainers.image.revision", "org.opencontainers.image.source"} <= labels.keys()
    assert {name: value for name, value in labels.items() if name.startswith("com.amazonaws")} == {
        "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
        "com.amazonaws.sagemaker.capabilities.multi-models": "true",
    }


def test_the_environment_names_the_version_and_leaves_training_every_cpu(config):
    environment = dict(entry.split("=", 1) for entry in config["Config"]["Env"])
    assert environment["BERTH_VERSION"] == version()
    assert environment["ORT_DISABLE_TELEMETRY"] == environment["PYTHONUNBUFFERED"] == "1"
    assert "OMP_NUM_THREADS" not in environment


def test_the_default_user_is_root_because_sagemaker_asks_for_it(config):
    assert config["Config"].get("User", "") == ""


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, ROOT / "container" / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


# ---- what is in it


@pytest.fixture(scope="module")
def files(docker, image):
    """Every file and link of the image."""
    return run(docker, "run", "--rm", "--network=none", image, "find", "/", "-xdev", "-type", "f,l").splitlines()


@pytest.mark.parametrize("word", ["train", "serve", "start"])
def test_each_word_is_a_program_on_the_path(docker, image, word):
    found = run(docker, "run", "--rm", "--network=none", image, "which", word)
    assert found == f"/opt/berth/container/{word}\n"


@pytest.mark.parametrize("pattern", NOT_NEEDED)
def test_the_image_holds_nothing_that_is_not_needed_to_run(files, pattern):
    # apt's locks, of no size, are the base's: taking them away would put the time of it into a layer.
    assert [name for name in fnmatch.filter(files, pattern) if not name.endswith("/lock")] == []


def test_every_module_has_its_byte_code_which_a_read_only_container_cannot_cache(files):
    modules = [name for name in files if name.startswith("/opt/") and name.endswith(".py")]
    compiled = {re.sub(r"cpython-\d+", "", name) for name in files if name.endswith(".pyc")}
    expected = {name: re.sub(r"cpython-\d+", "", cache_from_source(name)) for name in modules}
    assert [name for name in modules if expected[name] not in compiled] == []


# ---- how large it is


@pytest.fixture(scope="module")
def manifest_there(pushed_image):
    """What a registry holds after a push: the manifest's type and its layers."""
    address, repository = pushed_image
    accepted = {"Accept": MANIFEST_TYPE}
    return json.loads(fetch(urllib.request.Request(f"http://{address}/v2/{repository}/manifests/test", headers=accepted)))


# Of these Arrow, LightGBM, Dask and matplotlib with what they need take some 150 MB on disk, and 55 in a registry.
def test_the_image_takes_at_most_600_mb_on_disk(config):
    assert config["Size"] <= 600 * MB


def test_the_image_takes_at_most_220_mb_as_a_registry_stores_it(manifest_there):
    assert sum(layer["size"] for layer in manifest_there["layers"]) <= 220 * MB


def test_the_image_has_the_one_manifest_type_sagemaker_takes(manifest_there):  # T-7
    assert manifest_there["mediaType"] == MANIFEST_TYPE


def test_the_last_layer_is_the_model_folder_alone_and_at_most_1_mb(pushed_image, manifest_there):
    address, repository = pushed_image
    last = fetch(f"http://{address}/v2/{repository}/blobs/{manifest_there['layers'][-1]['digest']}")
    with tarfile.open(fileobj=io.BytesIO(last)) as layer:
        names = [member.name for member in layer if not member.isdir()]
        size = sum(member.size for member in layer)
    assert [name for name in names if not name.startswith("opt/berth/model/")] == []
    assert "opt/berth/model/__init__.py" in names
    assert size <= 1 * MB


def test_an_edit_of_the_model_changes_the_last_layer_alone(docker, config, tmp_path):
    private = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "__pycache__")
    tree = shutil.copytree(ROOT, tmp_path / "tree", ignore=private)
    with (tree / "model" / "__init__.py").open("a") as module:
        module.write(f"\n# edited at {time.time()}\n")
    environment = os.environ | {"PATH": f"{Path(docker).parent}:{os.environ['PATH']}"}
    command = ["make", "image", "IMAGE=berth:edited"]
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, timeout=600)
    before, after = config["RootFS"]["Layers"], inspect(docker, "berth:edited")["RootFS"]["Layers"]
    run(docker, "image", "rm", "berth:edited")
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


# ---- how it starts and stops


@pytest.fixture
def start(docker):
    """A function that starts a container in the background and returns its id; all are gone afterwards."""
    started = []

    def start_container(*arguments):
        started.append(run(docker, "run", "--detach", *arguments).strip())
        return started[-1]

    yield start_container
    for container in started:
        run(docker, "rm", "--force", "--volumes", container)


@pytest.fixture
def mounted_model(model_dir, tmp_path):
    """The option that mounts a model as SageMaker does: read-only, and readable by any user."""
    model = shutil.copytree(model_dir, tmp_path / "model")
    for path in (model, *model.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return f"--volume={model}:/opt/ml/model:ro"


@pytest.mark.parametrize("user", [[], ["--user=1000"]], ids=["as root", "as uid 1000"])
def test_serve_needs_no_network_and_no_file_system_to_write_to_but_tmp(docker, image, start, mounted_model, user):
    container = start("--network=none", "--read-only", "--tmpfs=/tmp", mounted_model, *user, image, "serve")
    assert ping(docker, container) == "200\n"


def test_serve_drops_to_an_unprivileged_user_where_it_may(docker, image, start, mounted_model):  # H-3
    container = start("--network=none", mounted_model, image, "serve")
    ping(docker, container)
    users = run(docker, "top", container, "-eo", "pid,uid").splitlines()[1:]
    assert "1000" in {line.split()[1] for line in users}


def test_a_stop_ends_serve_within_25_seconds_and_without_an_error(docker, image, start, mounted_model):  # H-6
    container = start("--network=none", mounted_model, image, "serve")
    ping(docker, container)
    begin = time.monotonic()
    run(docker, "stop", "--time=30", container)
    assert time.monotonic() - begin < 25
    assert inspect(docker, container)["State"]["ExitCode"] == 0


def test_serve_without_a_model_ends_with_an_error_that_says_so(docker, image):
    command = [docker, "run", "--rm", "--network=none", image, "serve"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode not in {0, 125, 126, 127}  # the last three are docker's own
    assert "/opt/ml/model" in found.stdout + found.stderr


def test_a_bare_start_serves_as_one_process_where_no_training_is_configured(docker, image, start, mounted_model):  # C-4
    container = start("--network=none", mounted_model, image)
    assert ping(docker, container) == "200\n"
    assert "container/serve" in run(docker, "exec", container, "cat", "/proc/1/cmdline")  # T-4


def test_a_bare_start_trains_where_a_training_is_configured(docker, image, tmp_path):  # L-12
    job = lay_out_job(tmp_path)
    user = f"--user={os.getuid()}:{os.getgid()}"  # what it writes is ours to delete
    run(docker, "run", "--rm", "--network=none", user, f"--volume={job}:/opt/ml", image)
    assert read_manifest(job / "model").report == {"drawn": True}


def test_a_job_may_name_the_program_itself(docker, image):  # T-2
    """As `ContainerEntrypoint`, and then without a word: it trains, and here finds no channel."""
    command = [docker, "run", "--rm", "--network=none", "--entrypoint=train", image]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (found.returncode, "The job's channels are: none" in found.stderr) == (1, True)


@pytest.mark.parametrize(
    ("present", "word"),
    [
        (["hyperparameters.json"], "train"),
        (["inputdataconfig.json"], "train"),
        (["resourceconfig.json"], "train"),
        (["unrelated.json"], "serve"),
        ([], "serve"),
    ],
)
def test_any_one_training_configuration_makes_a_bare_start_train(tmp_path, monkeypatch, present, word):
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    for name in present:
        (config / name).write_text("{}")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert runpy.run_path(str(ROOT / "container" / "start"))["word"]() == word


# ---- helpers


def run(docker, *arguments):
    """Return what a docker command prints; its complaint is the failure's text."""
    done = subprocess.run([docker, *arguments], capture_output=True, text=True, timeout=300)
    printed = done.stdout[-4000:] + done.stderr[-4000:]
    assert done.returncode == 0, f"docker {arguments[0]} ended with {done.returncode}:\n{printed}"
    return done.stdout


def inspect(docker, name):
    """Return the facts of one image or container."""
    return json.loads(run(docker, "inspect", name))[0]


def ping(docker, container):
    """Return the status of /ping, asked inside the container, once there is one; its log is the failure's text."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and inspect(docker, container)["State"]["Running"]:
        answer = subprocess.run([docker, "exec", container, "python3", "-c", PING], capture_output=True, text=True)
        if answer.returncode == 0:
            return answer.stdout
    log = subprocess.run([docker, "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return pytest.fail(f"/ping never answered 200; the container's log:\n{log.stdout[-4000:]}")


def lay_out_job(base):
    """Return an /opt/ml for a training on the shipped data, as a careless platform lays it out: no `output` (T-12)."""
    config, channel = base / "input" / "config", base / "input" / "data" / "training"
    config.mkdir(parents=True)
    channel.mkdir(parents=True)
    (config / "hyperparameters.json").write_text("{}")
    (config / "inputdataconfig.json").write_text(json.dumps({"training": {"TrainingInputMode": "File"}}))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    for file in (ROOT / "model" / "sample").glob("*.csv"):
        shutil.copy(file, channel)
    return base


def version():
    """Return the version that pyproject.toml states."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def fetch(request):
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()
