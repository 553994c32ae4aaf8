"""The SageMaker SDK's own local mode trains and serves the image, in both generations, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import fixtures, long
from neighbors import neighbor

from local_test import sdk
from local_test.sdk import sandbox

ROOT = Path(__file__).resolve().parent.parent
INVOKE = ["invoke with text/csv", "invoke with application/json", "invoke with application/jsonlines"]
STEPS = {
    "sdk3": [
        "import the SDK",
        "train on one host",
        "create the endpoint",
        *INVOKE,
        "delete the endpoint",
        "transform, MultiRecord, SplitType and AssembleWith Line",
        "transform, SingleRecord, SplitType and AssembleWith Line",
        "train with ModelTrainer, which passes no word",
        "train again into the same root",
        "stay on this machine: no credentials, no telemetry",
    ],
    "sdk2": [
        "import the SDK",
        "fit an Estimator",
        "deploy",
        *INVOKE,
        "delete the endpoint",
        "transform, split_type and assemble_with Line",
        "fit an Estimator on 2 hosts",
        "stay on this machine: no credentials, no telemetry",
    ],
}
TRAIN = {"sdk3": "train on one host", "sdk2": "fit an Estimator"}


@pytest.fixture(scope="session", params=STEPS)
def generation(request):
    return request.param


@pytest.fixture(scope="session")
def commands(image, docker, sdk_python, before):
    """By generation, the script's command line but for its data, and an environment that would lead the SDK astray."""
    environ = {
        **os.environ,
        "PATH": f"{Path(docker).parent}{os.pathsep}{os.environ['PATH']}",  # the SDK takes the first docker
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "never-used",
        "AWS_PROFILE": "there-is-none",
        "COMPOSE_PROJECT_NAME": "somebody-elses",
    }
    words = {name: [str(sdk_python(name)), "-m", f"local_test.sdk.v{name[-1]}", "--image", image] for name in STEPS}
    return {name: {"args": words[name], "env": environ, "cwd": ROOT, "text": True} for name in STEPS}


@pytest.fixture
def command(commands, generation):
    return commands[generation]


@pytest.fixture(scope="session")
def accounts(commands, docker, tmp_path_factory, request):
    """What a whole run on the shipped data wrote down, by generation; both go on at once, as they wait for much."""
    folder = tmp_path_factory.mktemp("sdk")
    ours = [item for item in request.session.items if item.path == Path(__file__) and "account" in fixtures(item)]
    wanted = sorted({item.callspec.params["generation"] for item in ours})

    def whole(name):
        done = run(commands[name], "--data", "model/sample", "--json", str(folder / f"{name}.json"))
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((folder / f"{name}.json").read_text())

    with neighbor(docker), ThreadPoolExecutor() as pool:
        return {name: pool.submit(whole, name) for name in wanted}


@pytest.fixture
def account(accounts, generation):
    return accounts[generation].result()


def run(command, *options):
    return subprocess.run(**{**command, "args": [*command["args"], *options]}, capture_output=True, timeout=900)


@pytest.fixture(scope="session")
def before(docker):
    """What is there already: a developer's own endpoint is none of our business."""
    return local_mode(docker)


def local_mode(docker):
    """Containers, networks and folders of local mode's."""
    containers = subprocess.run([docker, "ps", "-aq", "--filter=name=algo-1"], capture_output=True, text=True).stdout
    networks = subprocess.run([docker, "network", "ls", "--format={{.Name}}"], capture_output=True, text=True).stdout
    folders = {str(path) for path in Path(tempfile.gettempdir()).glob("berth-sdk-*")}
    return {*containers.split(), *folders} | ({sandbox.NETWORK} & {*networks.split()})


def test_the_sdk_trains_serves_and_transforms_every_step_right(account, generation):
    assert [(step["step"], step["right"]) for step in account["steps"]] == [(name, True) for name in STEPS[generation]]


def test_the_sdk_looks_for_nothing_but_this_machine(account):
    assert account["steps"][-1]["names looked up"] == "localhost"


def test_a_transform_job_answers_one_line_a_row(account):
    records = [step["records"] for step in account["steps"] if "records" in step]
    assert "21 for 21 rows, in order, no blank line" in records
    assert len(records) == 1 or "100002 for 100002 rows, in order, no blank line" in records


def test_model_trainers_second_run_replaces_what_the_first_left(account, generation):
    if generation == "sdk3":  # v2 has no ModelTrainer
        again = next(step for step in account["steps"] if step["step"] == "train again into the same root")
        assert {"manifest.json", "model.onnx"} <= set(again["replaced"].split(", "))


def test_nothing_is_left_after_a_run(account, docker, before):
    assert local_mode(docker) <= before


@long
@pytest.mark.parametrize("generation", ["sdk2"], indirect=True)
def test_three_containers_train_one_model_and_end_in_order(command, docker, tmp_path, before):
    file = tmp_path / "account.json"
    done = run(command, "--data", "model/sample", "--hosts", "3", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    several = next(step for step in json.loads(file.read_text())["steps"] if step["step"] == "fit an Estimator on 3 hosts")
    assert len(several["rows"]) == 3
    assert local_mode(docker) <= before


def test_data_that_cannot_be_trained_on_ends_the_script_at_that_step_and_leaves_nothing(
    command, generation, docker, tmp_path, before
):
    (tmp_path / "rows.csv").write_text("not,the,columns\n1,2,3\n")
    done = run(command, "--data", str(tmp_path))
    assert done.returncode == 1
    assert f"Local mode is not right. Step '{TRAIN[generation]}'" in done.stderr
    assert local_mode(docker) <= before


def test_a_stopped_script_leaves_nothing(command, generation, docker, before):
    words = [*command["args"], "--data", "model/sample"]
    with subprocess.Popen(**{**command, "args": words}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as script:
        while TRAIN[generation] not in script.stdout.readline():
            assert script.poll() is None
        script.send_signal(signal.SIGTERM)  # the endpoint is starting
        assert script.wait(60) == 128 + signal.SIGTERM
    assert local_mode(docker) <= before


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(["24.0001", "7"], [24.0, 7.0], id="numbers in CSV cells"),
        pytest.param([24.0001], [24.0], id="numbers"),
        pytest.param(["1", "2"], ["1", "2"], id="labels that look like numbers"),
    ],
)
def test_predictions_like_the_manifests_are_right(found, expected):
    sdk.check_predictions(found, expected, "answer")


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        pytest.param([1.0], [1.0, 2.0], "1 predictions came back for 2 rows", id="too few"),
        pytest.param([2.0, 1.0], [1.0, 2.0], "row 1 is 2.0; the manifest says 1.0", id="another order"),
        pytest.param([float("nan")], [1.0], "row 1 is nan", id="NaN"),
        pytest.param(['{"error": "width"'], [1.0], "row 1 is .*error", id="an error's body"),
        pytest.param(["Gentoo"], ["Adelie"], "row 1 is 'Gentoo'; the manifest says 'Adelie'", id="another label"),
    ],
)
def test_other_predictions_are_named(found, expected, message):
    with pytest.raises(sdk.LocalModeError, match=message):
        sdk.check_predictions(found, expected, "answer")


FIRST = sdk.End(0, "2026-11-25T08:00:00.100000000", True)
AFTER = sdk.End(0, "2026-11-25T08:00:00.300000000", False)


def test_a_leader_that_wrote_and_ended_first_is_right():
    assert sdk.check_ends({"algo-1": FIRST, "algo-2": AFTER}).startswith("all with exit code 0, algo-1 first")


@pytest.mark.parametrize(
    ("leader", "other", "message"),
    [
        pytest.param(FIRST, replace(AFTER, exit_code=137), "algo-2 ended with exit code 137", id="killed"),
        pytest.param(FIRST, replace(AFTER, wrote=True), "algo-2 says that it wrote a model: True", id="both wrote"),
        pytest.param(replace(FIRST, wrote=False), AFTER, "algo-1 says that it wrote a model: False", id="nobody wrote"),
        pytest.param(FIRST, replace(AFTER, moment=FIRST.moment[:-10] + ".0"), "before its leader", id="another order"),
    ],
)
def test_containers_that_end_otherwise_are_named(leader, other, message):
    with pytest.raises(sdk.LocalModeError, match=message):
        sdk.check_ends({"algo-1": leader, "algo-2": other})


def test_several_hosts_scores_are_held_against_that_of_one():
    def told(score, low, high):
        return {
            "metrics": {"train:rmse": 1.0, "validation:rmse": score},
            "confidence": {"validation:rmse": {"low": low, "high": high}},
        }

    one = told(4.0, 3.5, 4.5)
    assert "on one host 4" in sdk.check_scores(told(4.5, 4.6, 4.7), one)  # within a quarter
    assert "on one host 4" in sdk.check_scores(told(9.2, 4.4, 14.0), one)  # too few rows to tell
    with pytest.raises(sdk.LocalModeError, match=r"rmse 9.*one to 4"):
        sdk.check_scores(told(9.2, 8.0, 10.0), one)
    with pytest.raises(sdk.LocalModeError, match=r"rmse 9.*one to 4"):
        sdk.check_scores({"metrics": {"validation:rmse": 9.2}}, {"metrics": {"validation:rmse": 4.0}})


@pytest.mark.parametrize("text", ["1\n\n2\n", "1\n2\n\n"], ids=["between answers", "at the end"])
def test_a_blank_line_in_a_transform_jobs_output_is_wrong(tmp_path, text):
    (tmp_path / "rows.csv.out").write_text(text)
    with pytest.raises(sdk.LocalModeError, match="is blank"):
        sdk.check_batch(tmp_path, [1.0, 2.0])


def test_the_sdks_environment_holds_no_credentials_and_keeps_the_docker_client_working(tmp_path):
    mine = {"HOME": "/home/me", "PATH": "/bin", "AWS_SESSION_TOKEN": "x", "SAGEMAKER_ROLE": "x", "PYTHONPATH": "x"}
    environ = sandbox.clean_environment(mine, tmp_path)
    assert {"AWS_SESSION_TOKEN", "SAGEMAKER_ROLE", "PYTHONPATH"}.isdisjoint(environ)
    assert (environ["HOME"], environ["DOCKER_CONFIG"]) == (str(tmp_path / "home"), "/home/me/.docker")
    assert sandbox.clean_environment({**mine, "DOCKER_CONFIG": "/elsewhere"}, other(tmp_path))["DOCKER_CONFIG"] == "/elsewhere"


def other(folder):
    path = folder / "other"
    path.mkdir()
    return path
