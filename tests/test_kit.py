"""The listing's kit: all that M-12 names, from the declaration and real answers; its notebook runs to the end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ahead import settle
from conftest import ROOT, SAMPLE
from matplotlib.image import imread
from trees import lay_penguins
from verbs import berth

from contract.media import ANSWERED, SERVED
from deploy.errors import BadSettings, Failed, NotThere
from deploy.jobs.training import METRICS
from deploy.market import answers
from deploy.market.delivery import version
from deploy.market.kit import PORTAL, notes_of, released
from deploy.market.notebook import notebook
from deploy.market.pages import PAGES, Material
from deploy.market.samples import Samples, sampled
from deploy.market.settings import Kit, Listing
from local_test.cloud import cloud
from local_test.emulator import Endpoint, serving
from local_test.emulator.transform import TransformJob, transform
from local_test.runners import Processes
from local_test.sdk.sandbox import clean_environment
from model import DECLARATION

ROLE = "arn:aws:iam::123456789012:role/berth"
TYPES = {"csv": "text/csv", "json": "application/json", "jsonl": "application/jsonlines"}
PAPERS = {*(f"{name}.md" for name in (*PAGES, "README", "release-notes")), "eula.txt", "logo.png", "logo.svg", "version.json"}
REGION, ARN = "eu-west-1", "arn:aws:sagemaker:eu-west-1:123456789012:algorithm/sold"
RUN = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(book)
NotebookClient(book, timeout=170, resources={"metadata": {"path": sys.argv[2]}}).execute()
print("".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", [])))
"""


def made(folder: Path, *words: str) -> Path:
    """The kit as the verb writes it, answered by this tree."""
    ran = berth("publish", "kit", "--from-source", "--out", str(folder), *words)
    assert ran.exit_code == 0, ran.output
    return folder


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("kit") / "listing")


@pytest.fixture(scope="module")
def penguin_kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of README's second data set, by its own tree."""
    tree = lay_penguins(tmp_path_factory.mktemp("penguins"))
    words = [sys.executable, "-m", "deploy", "publish", "kit", "--from-source", "--out", "build/listing"]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "build" / "listing"


def text(kit: Path, name: str) -> str:
    return (kit / name).read_text()


def files(kit: Path) -> dict[str, bytes]:
    return {str(path.relative_to(kit)): path.read_bytes() for path in sorted(kit.rglob("*")) if path.is_file()}


# ---- what is there


@pytest.mark.parametrize("which", ["kit", "penguin_kit"])
def test_everything_that_a_listing_wants_is_there_and_nothing_is_left_unfilled(request, which):
    found = files(request.getfixturevalue(which))
    assert PAPERS | {"notebook.ipynb"} <= set(found)
    assert {name.split("/")[1] for name in found if name.startswith("samples/")} == {
        "training",
        "realtime",
        "batch",
        "batch-answer",
    }
    assert all(found[name] for name in found if name != ".listing-kit")
    for name, body in found.items():
        if name.endswith((".md", ".txt", ".json", ".ipynb")) and "samples/" not in name:
            assert not re.search(r"@\w+@", body.decode()), name


def test_the_guide_names_every_file_and_every_page_of_the_portal(kit):
    guide = text(kit, "README.md")
    for name in (PAPERS - {"README.md"}) | {"notebook.ipynb"}:
        assert name in guide, name
    assert all(where in guide for where in PORTAL)


def test_the_same_tree_makes_the_same_kit(kit, tmp_path):
    assert files(made(tmp_path / "again")) == files(kit)


# ---- the answers are real


def test_the_answers_are_those_of_a_server_that_was_started_apart(kit, endpoint: Endpoint):
    for ending, media_type in TYPES.items():
        reply = endpoint.invoke((kit / f"samples/realtime/rows.{ending}").read_bytes(), media_type, media_type)
        assert reply.status == 200
        assert reply.body == (kit / f"samples/realtime/rows-answer.{ending}").read_bytes()
    refused = endpoint.invoke((kit / "samples/realtime/unreadable.csv").read_bytes(), "text/csv")
    shown = json.loads(text(kit, "samples/realtime/unreadable-answer.json"))
    assert refused.status == 400
    assert {**json.loads(refused.body), "request_id": "sample"} == shown


def test_the_batchs_answers_are_those_of_a_transform_job(kit, trained, tmp_path):
    job = TransformJob(accept="text/csv", split_type="Line", assemble_with="Line")
    with serving(Processes(), trained, job.variables()) as server:
        transform(server, job, kit / "samples" / "batch", tmp_path)
    assert (tmp_path / "rows.csv.out").read_bytes() == (kit / "samples/batch-answer/rows.csv.out").read_bytes()
    assert text(kit, "samples/batch-answer/rows.csv.out").count("\n") == text(kit, "samples/batch/rows.csv").count("\n") == 40


def test_the_pages_show_what_the_files_hold(kit):
    for ending in TYPES:
        assert text(kit, f"samples/realtime/rows.{ending}").strip()[:80] in text(kit, "inputs.md")
        assert text(kit, f"samples/realtime/rows-answer.{ending}").strip() in text(kit, "outputs.md")
    assert text(kit, "samples/realtime/unreadable-answer.json") in text(kit, "outputs.md")


def test_each_label_of_a_class_has_a_sample_that_is_answered_with_it(penguin_kit):
    labels = {path.stem.removeprefix("label-") for path in penguin_kit.glob("samples/realtime/label-*.csv")}
    answered = {name for name in labels if not name.endswith("-answer")}
    assert answered == {"Adelie", "Chinstrap", "Gentoo"}
    for label in answered:
        assert text(penguin_kit, f"samples/realtime/label-{label}-answer.csv").startswith(f"{label},")


def test_the_metering_header_is_the_servers_own_and_counts_the_samples_rows(kit):
    rows = len(text(kit, "samples/realtime/rows.csv").strip().split("\n"))
    found = re.search(r"X-Amzn-Inference-Metering: (\{.*\})", text(kit, "pricing.md"))
    assert json.loads(found[1]) == {"Dimension": "inference.count", "ConsumedUnits": rows}


# ---- the texts


@pytest.mark.parametrize("which", ["kit", "penguin_kit"])
def test_every_hyperparameter_has_a_line_with_its_range_and_its_effect(request, which):
    page = text(request.getfixturevalue(which), "training.md")
    for knob in DECLARATION.hyperparameters:
        (line,) = re.findall(rf"^\| `{knob.name}` \|.*$", page, re.MULTILINE)
        assert knob.meaning in line
        takes = line.split(" | ")[2]
        numbers = [float(number) for number in re.findall(r"\d[\d.]*", takes)] if knob.range else []
        assert numbers == list(map(float, knob.range or ())), line
        assert knob.range or set(knob.choices or ("true", "false")) == set(takes.removeprefix("one of ").split(", "))


def test_tuning_hosts_and_gpus_are_spoken_of(kit):
    page = text(kit, "training.md")
    for words in (
        "**Tuning jobs** are supported",
        "**Distributed training** on several",
        "**GPU instances** are not supported",
    ):
        assert words in page
    assert "`validation:rmse (minimize)`" in page


@pytest.mark.parametrize("which", ["kit", "penguin_kit"])
def test_every_column_and_every_media_type_is_described(request, which):
    kit = request.getfixturevalue(which)
    names = [feature["Name"] for feature in details(kit)["InputProperties"]["Parameters"]]
    page = text(kit, "inputs.md")
    assert [re.findall(rf"^\| `{name}` \|", page, re.MULTILINE) != [] for name in names] == [True] * len(names)
    assert all(f"`{media_type}`" in page for media_type in SERVED)
    assert all(f"`{media_type}`" in text(kit, "outputs.md") for media_type in ANSWERED)


def test_the_calls_can_be_read_by_python_and_by_a_shell(kit):
    python, shell = (re.search(rf"```{name}\n(.*?)```", text(kit, "usage.md"), re.DOTALL)[1] for name in ("python", "sh"))
    compile(python, "usage.md", "exec")
    done = subprocess.run(["bash", "-n"], input=shell, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(re.search(r"--hyper-parameters '(.*?)'", shell)[1]) == {"estimator": "hist_gradient_boosting"}


def test_the_logos_can_be_read_and_are_of_one_size(kit):
    assert imread(kit / "logo.png").shape == (240, 240, 3)
    drawing = ET.fromstring(text(kit, "logo.svg"))
    assert (drawing.get("width"), drawing.get("height")) == ("240", "240")


def test_what_the_seller_says_stands_where_it_belongs(tmp_path):
    words = ("--seller", "Ada Ltd", "--support", "help@example.com", "--kit-url", "https://example.com/kit")
    kit = made(tmp_path / "kit", *words, "--algorithm-arn", f"{REGION}={ARN}", "--metering", "rows", "--release", "0.1.0")
    assert "between Ada Ltd (" in text(kit, "eula.txt")
    assert "help@example.com" in text(kit, "support.md")
    assert details(kit)["SampleNotebookUrl"] == "https://example.com/kit/blob/main/notebook.ipynb"
    assert f'ALGORITHMS = {{\\n",\n    "    \\"{REGION}\\": \\"{ARN}\\"' in text(kit, "notebook.ipynb")
    assert '{"Dimension": "rows", "ConsumedUnits": 3}' in text(kit, "pricing.md")


# ---- the version, as the Catalog API takes it


def details(kit: Path) -> dict:
    (option,) = json.loads(text(kit, "version.json"))["DeliveryOptions"]
    return option["Details"]["SageMakerAlgorithmDeliveryOptionDetails"]


@pytest.mark.parametrize("which", ["kit", "penguin_kit"])
def test_the_version_has_all_that_the_reference_calls_required(request, which):
    kit = request.getfixturevalue(which)
    found = details(kit)
    assert set(found) == {
        *("SageMakerAlgorithmArn", "AccessRoleArn", "SampleNotebookUrl", "RepositoryUrl", "UsageInstructions"),
        *("InputProperties", "OutputProperties", "RecommendedInstanceTypes"),
    }
    for part in (found["InputProperties"], found["OutputProperties"]):
        assert part["Description"]
        assert all(one["Name"] and one["Description"] for one in part["Parameters"])
    assert set(found["RecommendedInstanceTypes"]) == {"BatchTransform", "RealtimeInference", "Training"}
    for part, name in ((found["InputProperties"], "SampleInput"), (found["OutputProperties"], "SampleOutput")):
        for address in part[name].values():
            assert (kit / address.split("/blob/main/")[1]).is_file(), address
    notes = json.loads(text(kit, "version.json"))["Version"]["ReleaseNotes"]
    assert notes == text(kit, "release-notes.md") == notes_of(released())


def material(notes: str) -> Material:
    samples = Samples((), None, b"", b"", {})
    return Material(DECLARATION, METRICS, samples, Listing(), Kit(), "1.0.0", notes)


def test_release_notes_that_are_too_long_are_refused():
    with pytest.raises(BadSettings, match=r"have 30,000 characters; AWS Marketplace takes less than 30,000\. Shorten"):
        version(material("x" * 30_000))


def test_a_version_that_the_changelog_does_not_know_is_refused(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.0.1, today\n\n- More.\n\n## 1.0.0\n\n- A\n- B\n\n## 0.9\n")
    assert notes_of("1.0.0", tmp_path) == "- A\n- B\n"
    assert notes_of("1.0.1", tmp_path) == "- More.\n"
    for release in ("1.0", "0.9", "2.0.0"):
        with pytest.raises(BadSettings, match=f"nothing under '## {re.escape(release)}'"):
            notes_of(release, tmp_path)


# ---- refusals


def test_a_folder_that_holds_anything_else_is_left_alone_and_ones_own_is_written_anew(kit, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    ran = berth("publish", "kit", "--from-source", "--out", str(tmp_path))
    assert (ran.exit_code, (tmp_path / "mine.txt").read_text()) == (2, "mine")
    assert "holds files that this verb did not write" in ran.output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--kit-url", "example.com"), "kit_url is 'example.com'; such as https://"),
        (("--algorithm-arn", "eu-west-1=arn:aws:sagemaker:us-east-1:1:algorithm/a"), "arn:aws:sagemaker:eu-west-1:ACCOUNT"),
        (("--sample", "s3://bucket/rows/"), "a folder here was expected"),
        (("--release", "9.9.9"), "CHANGELOG.md has nothing under '## 9.9.9'"),
    ],
)
def test_what_cant_be_meant_is_refused_before_anything_is_trained(tmp_path, words, why):
    ran = berth("publish", "kit", "--from-source", "--out", str(tmp_path / "kit"), *words)
    assert ran.exit_code == 2
    assert why in ran.output
    assert not (tmp_path / "kit").exists()


def test_a_sample_without_the_models_columns_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NotThere, match=r"has no CSV file with a header of .*to take samples of"):
        sampled(answers.Tree(), DECLARATION, tmp_path)


class Shell:
    """Runs a line of a shell in place of each word."""

    def __init__(self, **lines: str) -> None:
        self.lines = lines

    def command(self, word: str, base: Path, port: int, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        return ["sh", "-c", self.lines[word].format(base=base)], dict(os.environ)


def test_a_job_that_fails_and_a_server_that_ends_are_told_with_their_last_words():
    with pytest.raises(Failed, match=r"`train` ended with exit code 3: no rows"):
        sampled(Shell(train="echo no rows >&2; exit 3"), DECLARATION, SAMPLE)
    with pytest.raises(Failed, match=r"`serve` is not ready: no model"):
        sampled(Shell(train="true", serve="echo no model; exit 1"), DECLARATION, SAMPLE)


def test_nothing_is_left_of_a_run(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Failed):
        sampled(Shell(train="exit 1"), DECLARATION, SAMPLE)
    assert list(tmp_path.iterdir()) == []


# ---- the notebook


@pytest.mark.parametrize("which", ["kit", "penguin_kit"])
def test_the_notebooks_cells_are_python_and_their_literals_follow_the_declaration(request, which):
    book = json.loads(text(request.getfixturevalue(which), "notebook.ipynb"))
    code = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for number, source in enumerate(code):
        compile(source, f"cell {number}", "exec")
    steps = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown"]
    wanted = ["Set up", "Train", "Tune", "Make a model", "Ask an endpoint", "Run a batch", "Clean up"]
    assert [step.split("\n")[0].removeprefix("## ") for step in steps if step.startswith("## ")] == wanted
    assert "validation:" + ("rmse" if which == "kit" else "log_loss") in "".join(code)


def test_a_place_that_nothing_fills_is_an_error():
    with pytest.raises(KeyError):
        notebook({})


def test_the_notebook_runs_to_the_end_with_an_account_and_leaves_nothing_there(kit, endpoint: Endpoint):
    """The AWS that stands in, and a real server behind its endpoint and its transform job."""
    book = json.loads(text(kit, "notebook.ipynb"))
    code = "\n".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code")
    assert '"us-east-1": "ALGORITHM_ARN"' in code
    with cloud() as aws:
        aws.serve("*", endpoint.program.url)
        environ = {"PATH": os.environ["PATH"], "SAGEMAKER_ROLE": ROLE, "POLL_S": "0", **aws.environ()}
        words = [sys.executable, "-c", code.replace("ALGORITHM_ARN", ARN.replace(REGION, "us-east-1"))]
        done = subprocess.run(words, cwd=kit, env=environ, capture_output=True, text=True, timeout=120, check=False)
        asked = [call.operation for call in aws.calls]
        client, bucket = aws.client("sagemaker"), "sagemaker-us-east-1-123456789012"
        standing = [one for one in client.list_endpoints()["Endpoints"] if one["EndpointStatus"] != "Deleting"]
        left = [standing, client.list_models()["Models"]]
        left += [client.list_endpoint_configs()["EndpointConfigs"], client.list_model_packages()["ModelPackageSummaryList"]]
        left.append(aws.client("s3").list_objects_v2(Bucket=bucket).get("Contents", []))
        (job,) = [
            one
            for one in client.list_training_jobs()["TrainingJobSummaries"]
            if not re.search(r"-\d{3}-", one["TrainingJobName"])
        ]
        told = client.describe_training_job(TrainingJobName=job["TrainingJobName"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all done\n")
    assert left == [[]] * 5
    assert told["EnableNetworkIsolation"]
    assert {"CreateTrainingJob", "CreateHyperParameterTuningJob", "CreateModelPackage", "CreateTransformJob"} <= set(asked)
    assert text(kit, "samples/realtime/rows-answer.json") in done.stdout


@pytest.fixture(scope="session")
def notebook_python(image: str, docker: str, sdk3_python: Path) -> Path:
    """The Python of the SDK's environment, with what runs notebooks beside it; all other local mode has ended."""
    settle()
    folder = sdk3_python.parent.parent
    subprocess.run([sys.executable, ROOT / ".ci" / "venv", folder, "notebook"], check=True, capture_output=True, timeout=600)
    return sdk3_python


@pytest.fixture
def swept(docker: str) -> Iterator[Path]:
    """A folder for all that a notebook writes; containers that had a part of it mounted are removed, and the network."""
    network = ["network", "inspect", "sagemaker-local"]
    had_network = subprocess.run([docker, *network], capture_output=True, check=False).returncode == 0
    folder = Path(tempfile.mkdtemp(prefix="berth-notebook-")).resolve()
    yield folder
    listed = subprocess.run([docker, "ps", "-aq", "--filter=name=algo-1"], capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        mounts = ["inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", name]
        if str(folder) in subprocess.run([docker, *mounts], capture_output=True, text=True, check=False).stdout:
            subprocess.run([docker, "rm", "--force", name], capture_output=True, check=False)
    if not had_network:
        subprocess.run([docker, "network", "rm", "sagemaker-local"], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_notebook_runs_to_the_end_in_local_mode_without_an_account(kit, image, docker, notebook_python, swept):
    environ = {
        **clean_environment(os.environ, swept),
        "PATH": f"{Path(docker).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(swept),
        "BERTH_LOCAL": "1",
        "BERTH_IMAGE": image,
    }
    shutil.copytree(kit, swept / "kit")
    words = [notebook_python, "-c", RUN, swept / "kit" / "notebook.ipynb", swept / "kit"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert done.stdout.rstrip().endswith("all done")
    assert done.stdout.count("metric validation:rmse=") == 3  # one job, and two in place of a search
    batch = re.search(r"^(\d+) answers for (\d+) records, the first: (\S+)$", done.stdout, re.MULTILINE)
    assert batch[1] == batch[2] == "40"
    first = next(csv.reader(io.StringIO(re.search(r"^rows\.csv: (.*)$", done.stdout, re.MULTILINE)[1])))
    assert float(first[0]) == float(batch[3])
