"""`python -m edge compile`: the compiler's log as a table and a name, its container, and what stands in where there is none.

The compiler itself is Google's and not to be had here: in its place is a container that prints what the documented ones print.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import graphs
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT, lacking, long

from contract.edge import EDGE, EdgeManifest, Preprocessing, read_edge_manifest, write_edge_manifest
from contract.errors import BadArtifact, DamagedModel
from edge.compiler import container
from edge.compiler.command import compile_model
from edge.compiler.log import Ending, describe, read_log

HEAD = "Edge TPU Compiler version 16.0.384591198\nStarted a compilation timeout timer of 180 seconds.\n"
SIZES = """
Model compiled successfully in {ms} ms.

Input model: {name}.tflite
Input size: 2.41KiB
Output model: {name}_edgetpu.tflite
Output size: 24.55KiB
On-chip memory used for caching model parameters: 3.00KiB
On-chip memory remaining for caching model parameters: 8.08MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: {total}
Operation log: {name}_edgetpu.log
"""
SPLIT = """
Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead run \
on the CPU, which is slower. If possible, consider updating your model to use only operations supported by the Edge TPU. For \
details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: {edge_tpu}
Number of operations that will run on CPU: {cpu}
"""
DENSE = "\nOperator                       Count      Status\n\nFULLY_CONNECTED                3          Mapped to Edge TPU\n"
ENDS = """
Operator                       Count      Status

DEQUANTIZE                     1          Operation is working on an unsupported data type
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified limitation
FULLY_CONNECTED                3          Mapped to Edge TPU
ADD                            1          More than one subgraph is not supported
ADD                            2          Mapped to Edge TPU
"""
SUCCEEDED = "Compilation child process completed within timeout period.\nCompilation succeeded! \n"
FAILED = "Compilation child process completed within timeout period.\nCompilation failed! \n"
LOGS = {
    "full": HEAD + SIZES.format(name="full", ms=11, total=3) + DENSE + SUCCEEDED,
    "brief": "Edge TPU Compiler version 15.0.340273435\n"
    + SIZES.format(name="brief", ms=787, total=31)
    + "See the operation log file for individual operation details.\n",
    "partial": HEAD + SIZES.format(name="partial", ms=12, total=8) + SPLIT.format(edge_tpu=5, cpu=3) + ENDS + SUCCEEDED,
    "nothing": HEAD + SIZES.format(name="nothing", ms=9, total=69) + SPLIT.format(edge_tpu=0, cpu=69) + SUCCEEDED,
    "float": HEAD + "Invalid model: float.tflite\nModel not quantized\n" + FAILED,
    "new": HEAD
    + "ERROR: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of this builtin might be "
    "supported. Are you using an old TFLite binary with a newer model?\n\nERROR: Registration failed.\n\n"
    "Invalid model: new.tflite\nModel could not be parsed\n" + FAILED,
    "custom": HEAD + "ERROR: Encountered unresolved custom op: Atan.\nERROR: Node number 1 (Atan) failed to prepare.\n\n"
    "Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite interpreter.\n"
    + FAILED,
    "dynamic": HEAD + "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
    "dynamic-sized tensors.\n" + FAILED,
    "large": HEAD + "Compilation failed: Compilation failed due to large activation tensors in model.\n" + FAILED,
    "internal": "Edge TPU Compiler version 14.1.317412892\n\nInternal compiler error. Aborting! \n",
    "unknown": HEAD + FAILED,
    "silent": "",
}
ENDINGS = {
    "full": (Ending.FULL, 3, 0, 11),
    "brief": (Ending.FULL, 31, 0, 787),
    "partial": (Ending.PARTIAL, 5, 3, 12),
    "nothing": (Ending.NOTHING_MAPPED, 0, 69, 9),
    "float": (Ending.NOT_QUANTIZED, 0, 0, None),
    "new": (Ending.NOT_PARSED, 0, 0, None),
    "custom": (Ending.NOT_RUNNABLE, 0, 0, None),
    "dynamic": (Ending.DYNAMIC, 0, 0, None),
    "large": (Ending.TOO_LARGE, 0, 0, None),
    "internal": (Ending.INTERNAL_ERROR, 0, 0, None),
    "unknown": (Ending.UNKNOWN, 0, 0, None),
    "silent": (Ending.UNKNOWN, 0, 0, None),
}


# The log


@pytest.mark.parametrize("name", LOGS)
def test_a_log_tells_how_the_compilation_ended_and_where_operators_run(name: str) -> None:
    log = read_log(LOGS[name])
    assert (log.ending, log.edge_tpu, log.cpu, log.duration_ms) == ENDINGS[name]
    assert log.version == (LOGS[name].split("\n")[0].rpartition(" ")[2])


def test_without_counts_the_table_s_rows_are_counted_wherever_the_log_file_repeats_them() -> None:
    log = read_log(HEAD + SIZES.format(name="x", ms=1, total=8) + ENDS + SUCCEEDED + "Input: x.tflite\n" + ENDS)
    assert (log.ending, log.edge_tpu, log.cpu, len(log.rows)) == (Ending.PARTIAL, 5, 3, 5)


def test_a_log_becomes_a_sentence_a_table_and_the_sizes() -> None:
    assert describe("partial.tflite", read_log(LOGS["partial"])) == [
        "partial.tflite: PARTIAL, the operators named below run on the CPU (compiler 16.0.384591198, 12 ms).",
        "",
        "OPERATOR         COUNT  RUNS ON   WHY",
        "DEQUANTIZE           1  CPU       Operation is working on an unsupported data type",
        "QUANTIZE             1  CPU       Operation is otherwise supported, but not mapped due to some unspecified limitation",
        "FULLY_CONNECTED      3  Edge TPU",
        "ADD                  1  CPU       More than one subgraph is not supported",
        "ADD                  2  Edge TPU",
        "",
        "Input size                                                    2.41KiB",
        "Output size                                                   24.55KiB",
        "On-chip memory used for caching model parameters              3.00KiB",
        "On-chip memory remaining for caching model parameters         8.08MiB",
        "Off-chip memory used for streaming uncached model parameters  0.00B",
        "Number of Edge TPU subgraphs                                  1",
    ]


def test_what_the_compiler_says_of_a_failure_is_passed_on() -> None:
    assert describe("custom.tflite", read_log(LOGS["custom"])) == [
        "custom.tflite: NOT RUNNABLE, it has operators that TensorFlow Lite itself doesn't have (compiler 16.0.384591198).",
        "  it says: Encountered unresolved custom op: Atan.",
        "  it says: Node number 1 (Atan) failed to prepare.",
        "  it says: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite interpreter.",
    ]


# The container, with a compiler that stands in

STAND_IN = """#!/bin/sh
if [ "$1 $2 $3" != "--show_operations --out_dir /model" ]; then echo "other words: $*"; exit 2; fi
if [ "$(ls /sys/class/net)" != lo ] || touch /x 2>/dev/null; then echo "the container may do too much"; exit 2; fi
stem=${4%.tflite}
if [ "$stem" = slow ]; then sleep 60; fi
cat "/logs/$stem"
if grep -q "^Model compiled successfully" "/logs/$stem"; then
  { cat "$4"; printf edgetpu-custom-op; } > "${stem}_edgetpu.tflite"
  cp "/logs/$stem" "${stem}_edgetpu.log"
fi
"""
TAG = "berth-edge:coral-standin"


@pytest.fixture(scope="session")
def stand_in(docker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tag of an image in the compiler's place."""
    folder = tmp_path_factory.mktemp("standin")
    (folder / "logs").mkdir()
    for name, text in LOGS.items():
        (folder / "logs" / name).write_text(text)
    program = folder / "edgetpu_compiler"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (folder / "Dockerfile").write_text(
        'FROM debian:trixie-slim\nCOPY logs /logs/\nCOPY edgetpu_compiler /usr/bin/\nENTRYPOINT ["edgetpu_compiler"]\n'
    )
    subprocess.run([docker, "build", "--tag", TAG, folder], capture_output=True, check=True)
    yield TAG
    subprocess.run([docker, "image", "rm", "--force", TAG], capture_output=True, check=False)


def compile_(*words: str | Path) -> Result:
    return CliRunner().invoke(compile_model, list(map(str, words)))


def manifest_of(model: Path) -> EdgeManifest:
    """An edge.json that names a model."""
    made = EdgeManifest(
        {"onnx": "0" * 64}, Preprocessing((), "T", "number"), {}, (), 0.5, {model.name: {"r2": 0.7}}, {}, {}
    )  # fmt: skip
    return write_edge_manifest(model.parent, made)


def test_the_compiled_model_comes_beside_the_other_and_into_edge_json(stand_in: str, tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "full.tflite")
    manifest_of(model)
    done = compile_(model, "--image", stand_in)
    compiled = tmp_path / "full_edgetpu.tflite"
    assert (done.exit_code, done.output.splitlines()[0]) == (
        0,
        "full.tflite: FULL, every operator runs on the Edge TPU (compiler 16.0.384591198, 11 ms).",
    )
    assert done.output.splitlines()[-1] == f"Wrote {compiled} ({compiled.stat().st_size:,} bytes); {EDGE} names it now."
    assert compiled.stat().st_uid == os.getuid()
    entry = read_edge_manifest(tmp_path).artifacts[compiled.name]
    assert {name: entry[name] for name in ("compiled_from", "compiler", "on_edge_tpu", "on_cpu")} == {
        "compiled_from": "full.tflite",
        "compiler": "16.0.384591198",
        "on_edge_tpu": 3,
        "on_cpu": 0,
    }
    assert entry["sha256"] == hashlib.sha256(compiled.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == [EDGE, "full.tflite", "full_edgetpu.tflite"]
    assert compile_(model, "--image", stand_in).exit_code == 0, "a second time"


def test_a_folder_with_a_comma_or_a_quote_in_its_name_is_no_matter(stand_in: str, tmp_path: Path) -> None:
    folder = tmp_path / 'models, "new"'
    folder.mkdir()
    assert compile_(graphs.write_dense(folder / "full.tflite"), "--image", stand_in).exit_code == 0
    assert (folder / "full_edgetpu.tflite").is_file()


def test_where_it_is_stopped_the_container_goes_too_and_nothing_is_left(docker: str, stand_in: str, tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "slow.tflite")
    command = [sys.executable, "-m", "edge", "compile", model, "--image", stand_in]
    begun = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    running = [docker, "ps", "--quiet", "--filter", f"ancestor={stand_in}"]
    deadline = time.monotonic() + 30
    while not subprocess.run(running, capture_output=True, check=True).stdout and time.monotonic() < deadline:
        time.sleep(0.1)
    begun.send_signal(signal.SIGINT)
    _, told = begun.communicate(timeout=30)
    assert (begun.returncode, told.splitlines()[-1]) == (130, "Stopped; nothing half-written is left.")
    assert not subprocess.run(running, capture_output=True, check=True).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["slow.tflite"]


def test_a_model_of_which_a_part_runs_on_the_cpu_is_kept_and_that_check_thought_otherwise_is_said(stand_in, tmp_path) -> None:
    model = graphs.write_dense(tmp_path / "partial.tflite")
    done = compile_(model, "--image", stand_in)
    assert done.exit_code == 0
    assert "`check` expected FULL.\n" in done.output
    assert done.output.splitlines()[-1].endswith(f"bytes); no {EDGE} beside it names partial.tflite.")


@pytest.mark.parametrize("name", ["float", "new", "internal", "nothing", "unknown", "silent"])
def test_where_nothing_runs_on_the_edge_tpu_an_earlier_file_stays_as_it_was(name: str, stand_in: str, tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / f"{name}.tflite")
    earlier = tmp_path / f"{name}_edgetpu.tflite"
    earlier.write_bytes(b"earlier")
    done = compile_(model, "--image", stand_in)
    assert done.exit_code == 1
    assert done.output.startswith(f"{name}.tflite: {ENDINGS[name][0]}, ")
    assert earlier.read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unknown_ending_passes_on_what_was_said_last(stand_in: str, tmp_path: Path) -> None:
    done = compile_(graphs.write_dense(tmp_path / "unknown.tflite"), "--image", stand_in)
    assert "  it says: Compilation failed!\n" in done.output


def test_an_edge_json_that_is_damaged_stops_it_before_anything_is_done(tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "full.tflite")
    manifest_of(model)
    model.write_bytes(graphs.write_dense(tmp_path / "other.tflite", units=(3, 1)).read_bytes())
    assert isinstance(compile_(model, "--image", "berth-edge:none").exception, DamagedModel)


def test_a_model_that_is_compiled_already_is_told(tmp_path: Path) -> None:
    model = graphs.write_compiled(tmp_path / "c_edgetpu.tflite")
    error = compile_(model).exception
    assert isinstance(error, BadArtifact)
    assert error.message == f"{model} is compiled already. Give the model that it was compiled from."


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc, which nobody can write to")
def test_a_folder_that_can_t_be_written_to_is_told(stand_in: str, tmp_path: Path) -> None:
    with graphs.write_dense(tmp_path / "full.tflite").open() as opened:
        error = compile_(f"/proc/self/fd/{opened.fileno()}", "--image", stand_in).exception
        assert isinstance(error, BadArtifact)
        assert error.message == (
            f"Nothing can be written to /proc/{os.getpid()}/fd: No such file or directory. Copy {opened.fileno()} elsewhere."
        )


# No compiler


def test_where_googles_source_can_t_be_reached_that_is_said_and_check_s_verdict_stands(docker, monkeypatch, tmp_path) -> None:
    folder = tmp_path / "compiler"
    folder.mkdir()
    recipe = (container.FOLDER / "Dockerfile").read_text()
    (folder / "Dockerfile").write_text(recipe.replace(container.SOURCE, f"{container.SOURCE}.invalid"))
    monkeypatch.setattr(container, "FOLDER", folder)
    monkeypatch.setattr(container, "IMAGE", "berth-edge:coral-unreachable")
    done = compile_(graphs.write_dense(tmp_path / "model.tflite"), "--image", "berth-edge:coral-unreachable")
    said = done.stderr.splitlines()
    assert done.exit_code == 1
    assert said[0] == "Building berth-edge:coral-unreachable from edge/compiler/Dockerfile, once .."
    assert said[1].startswith("Google's package source can't be reached from here, and the compiler is nowhere else: ")
    assert said[2:4] == [
        f"Build berth-edge:coral-unreachable on a machine that reaches {container.SOURCE}, "
        "and bring it here by `docker save` and `docker load`.",
        "The verdict of `check` stands in its place:",
    ]
    assert done.stdout.startswith("model.tflite: FULL, the compiler takes all of it (2 of 2 operators on the Edge TPU).\n")
    assert not (tmp_path / "model_edgetpu.tflite").exists()


def test_without_docker_that_is_said_and_check_s_verdict_stands(tmp_path: Path) -> None:
    model = graphs.write_dense(tmp_path / "model.tflite", "float32")
    done = subprocess.run(
        [sys.executable, "-m", "edge", "compile", model],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "There is no docker here, which the compiler's container needs. Install it.",
            "The verdict of `check` stands in its place:",
            "",
        ],
    )
    assert done.stdout.startswith("model.tflite: REJECTED, the compiler takes none of it (0 of 2 operators on the Edge TPU).\n")


def test_without_an_engine_that_is_said(docker: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    done = compile_(graphs.write_dense(tmp_path / "model.tflite"))
    assert (done.exit_code, done.stderr.splitlines()[0]) == (
        1,
        "No Docker engine answers. Start it, or get yourself the right to use it.",
    )


def test_an_image_that_was_named_and_isn_t_there_is_told(docker: str, tmp_path: Path) -> None:
    done = compile_(graphs.write_dense(tmp_path / "model.tflite"), "--image", "berth-edge:none")
    assert done.stderr.splitlines()[0] == "There is no image berth-edge:none here. Build or pull it, or leave --image out."


@pytest.mark.parametrize(
    ("said", "reached"),
    [
        ('ADD failed: Get "https://packages.cloud.google.com/apt": dial tcp: lookup it: no such host', False),
        ("E: Failed to fetch https://packages.cloud.google.com/apt/x  403  Forbidden [IP: 10.0.0.1 3128]", False),
        ('failed to load cache key: Get "https://packages.cloud.google.com/apt": net/http: TLS handshake timeout', False),
        ("W: OpenPGP signature verification failed: https://packages.cloud.google.com/apt: Missing key B53DC80D13EDEF05", True),
        ("Google's key file has no key 35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3; it has:", True),
        ("E: Version '16.0' for 'edgetpu-compiler' was not found", True),
    ],
    ids=["no such host", "forbidden by a proxy", "no TLS", "another signature", "another key", "another version"],
)  # fmt: skip
def test_a_source_that_can_t_be_reached_is_told_from_one_that_is_not_what_it_was(said: str, reached: bool) -> None:
    message = container._unbuilt(f"Step 3/14\n{said}\n").message
    assert ("can't be built: " in message) is reached
    assert ("can't be reached" in message) is not reached
    assert said in message


# The recipe


def test_the_recipe_is_pinned_and_hadolint_has_nothing_to_say() -> None:
    recipe = container.FOLDER / "Dockerfile"
    text = recipe.read_text()
    assert "ARG COMPILER=16.0\n" in text
    assert '"edgetpu-compiler=${COMPILER}"' in text
    assert "signed-by=/usr/share/keyrings/edgetpu.gpg" in text
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        lacking("hadolint isn't installed")
    done = subprocess.run([hadolint, recipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@long
def test_the_recipe_installs_what_is_signed_with_the_key_it_was_told_and_nothing_else(docker: str, tmp_path: Path) -> None:
    apt, keys = package_source(tmp_path)
    server = ThreadingHTTPServer(("0.0.0.0", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    folder, tag = tmp_path / "recipe", "berth-edge:coral-recipe"
    folder.mkdir()
    recipe = (container.FOLDER / "Dockerfile").read_text()
    own = f"http://127.0.0.1:{server.server_port}/{apt.name}"
    (folder / "Dockerfile").write_text(recipe.replace(f"https://{container.SOURCE}/apt", own))
    try:
        ended = {}
        for who, key in {"signer": keys[0], "other": keys[1], "google": "35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3"}.items():
            command = [docker, "build", "--network", "host", "--tag", tag, "--build-arg", f"KEY_FINGERPRINT={key}", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            ended[who] = (done.returncode == 0, done.stdout + done.stderr)
        assert {who: good for who, (good, _) in ended.items()} == {"signer": True, "other": False, "google": False}
        assert f"Missing key {keys[0]}" in ended["other"][1]
        assert "Google's key file has no key 35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3; it has:" in ended["google"][1]
        run = [docker, "run", "--rm", "--network", "none", "--read-only", "--user", "1000:1000", tag]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "Edge TPU Compiler version 16.0.0\n"
    finally:
        server.shutdown()
        server.server_close()
        subprocess.run([docker, "image", "rm", "--force", tag], capture_output=True, check=False)


def package_source(folder: Path) -> tuple[Path, list[str]]:
    """Return a package source as Google's is, with a package of the compiler's name, and the keys in its key file: of who
    signed it, and of another."""
    for program in ("gpg", "dpkg-deb"):
        if shutil.which(program) is None:
            lacking(f"there is no {program}, which makes the package source of this test")
    home, package, apt = folder / "home", folder / "package", folder / "apt"
    suite = apt / "dists" / "coral-edgetpu-stable"
    listing = suite / "main" / "binary-amd64" / "Packages"
    for made in (package / "DEBIAN", package / "usr" / "bin", apt / "doc", listing.parent):
        made.mkdir(parents=True)
    home.mkdir(mode=0o700)
    (package / "DEBIAN" / "control").write_text(
        "Package: edgetpu-compiler\nVersion: 16.0\nArchitecture: amd64\nMaintainer: T <t@example.org>\nDescription: stands in\n"
    )
    program = package / "usr" / "bin" / "edgetpu_compiler"
    program.write_text("#!/bin/sh\necho Edge TPU Compiler version 16.0.0\n")
    program.chmod(0o755)
    deb = apt / "compiler.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", package, deb], capture_output=True, check=True)
    control = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout
    listing.write_text(f"{control}Filename: {deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest(deb)}\n")
    (suite / "Release").write_text(
        "Suite: coral-edgetpu-stable\nCodename: coral-edgetpu-stable\nArchitectures: amd64\nComponents: main\n"
        f"Date: {formatdate(usegmt=True)}\nSHA256:\n {digest(listing)} {listing.stat().st_size} {listing.relative_to(suite)}\n"
    )
    gpg = partial(subprocess.run, capture_output=True, text=True, check=True)
    base = ["gpg", "--homedir", home, "--batch", "--passphrase", ""]
    for name in ("signer@example.org", "other@example.org"):
        gpg([*base, "--quick-gen-key", name, "rsa2048", "sign", "never"])
    listed = gpg([*base, "--list-keys", "--with-colons"]).stdout
    keys = [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]
    gpg([*base, "--local-user", keys[0], "--clearsign", "--output", suite / "InRelease", suite / "Release"])
    (apt / "doc" / "apt-key.gpg").write_text(gpg([*base, "--armor", "--export"]).stdout)
    return apt, keys


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
