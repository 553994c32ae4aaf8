"""What each step of the SDK's local mode comes to for any image: trained, served, invoked, batch-transformed.

Nothing is known of the image but what its owner gives. A step that fails ends nothing but those that build on it. Run it in
the environment of the lock's section `sdk3`; it ends with 0 whatever the steps came to, and `--json` has that.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from local_test import sdk
from local_test.arguments import pair
from local_test.sdk import sandbox, v3

PING_S = 6
"""How long one ping is waited for, and as long again for each of urllib3's three retries."""
TOLD = 200
"""Characters of an answer that are told."""
LINES = ("text/csv", "application/jsonlines", "application/x-jsonlines", "application/x-ndjson")
"""Of these a payload's lines are records."""


class Step(StrEnum):
    """What is done, in order."""

    TRAIN = "a training job"
    FAIL = "a training job over an empty channel fails"
    SAY_WHY = "a failed job's output has a failure file"
    NO_WORD = "a ModelTrainer, which passes no word"
    SERVE = "an endpoint comes into service"
    INVOKE = "invoke"
    ANY_ACCEPT = "invoke with Accept */*"
    SPELLED = "invoke with a Content-Type with a parameter, in capitals"
    INFERENCE_ID = "invoke with an inference id"
    TRANSFORM = "a transform job, SplitType and AssembleWith Line"
    A_LINE = "its output has a line for each line of its input"
    NO_BLANK = "its output has no blank line"


def attempt(job: sdk.Job, step: Step, do: Callable[[], str]) -> bool:
    """Do one step and say whether it was done; keep what the SDK and the containers printed where it was not."""
    log = job.root / sandbox.LOG
    before = log.stat().st_size
    done = job.account.attempt(step, do)
    if not done:
        lines = sandbox.plain(log.read_bytes()[before:]).splitlines()
        job.account.steps[-1]["printed"] = lines[-sandbox.LOG_LINES :]
    return done


def rehearse(job: sdk.Job) -> None:
    """Do everything that can be done."""
    session = v3.open_session(job)
    hasten(job.options.start_seconds)
    output = job.folder("output")
    trained = attempt(job, Step.TRAIN, lambda: train(job, session, output))
    if trained:
        fail(job, session)
        attempt(job, Step.NO_WORD, lambda: train_without_a_word(job))
    if job.options.model:
        shutil.copy(job.options.model, job.folder("given") / "model.tar.gz")  # it is unpacked where it lies (L-8)
    if job.options.model or trained:
        serve(job, session, f"file://{job.root / 'given' if job.options.model else output}/model.tar.gz")


def hasten(patience_s: float) -> None:
    """Have the SDK ask for /ping each second, `patience_s` in all, and wait `PING_S` for an answer.

    Its own way is each 5 s, 120 s in all (L-8), and for an answer as long as that takes: for ever, where none comes.
    """
    from sagemaker.core.local import entities

    wait = entities._wait_for_serving_container

    def wait_less(port: int, **_: float) -> None:
        ends = time.monotonic() + patience_s

        def pause(_: float) -> None:
            if time.monotonic() > ends:
                raise sdk.LocalModeError(f"/ping did not answer 200 within {patience_s:g} s.")
            time.sleep(1)

        entities.time = SimpleNamespace(sleep=pause)
        socket.setdefaulttimeout(PING_S)
        try:
            wait(port, timeout=sys.maxsize)
        finally:
            socket.setdefaulttimeout(None)

    entities._wait_for_serving_container = wait_less


def train(job: sdk.Job, session: sdk.Untyped, output: Path) -> str:
    """Run a training job on one host; say what its model holds."""
    with limited(job):
        return held(v3.run_training_job(job, session.sagemaker_client, job.data, output))


def fail(job: sdk.Job, session: sdk.Untyped) -> None:
    """Run a training job that can't be done."""
    output = job.folder("failed-output")

    def train_on_nothing() -> str:
        try:
            with limited(job):
                v3.run_training_job(job, session.sagemaker_client, job.folder("empty"), output)
        except RuntimeError as error:
            return str(error)
        raise sdk.LocalModeError("The SDK calls the job complete.")

    if attempt(job, Step.FAIL, train_on_nothing):
        attempt(job, Step.SAY_WHY, lambda: failure_in(output / "output.tar.gz"))


def failure_in(archive: Path) -> str:
    """Return what a job's failure file says; raises LocalModeError where there is none, or nothing in it."""
    with tarfile.open(archive) as packed:
        file = packed.extractfile("failure") if "failure" in packed.getnames() else None
        said = file.read().decode(errors="replace").strip() if file else ""
    if not said:
        raise sdk.LocalModeError("output.tar.gz has no file `failure`, or it is empty.")
    return said.splitlines()[0]


def train_without_a_word(job: sdk.Job) -> str:
    """Run a `ModelTrainer` (L-12); say what its model holds."""
    root = job.folder(f"{job.root.name}-trainer")
    (root / "model").mkdir()  # else the engine makes it, as root
    with limited(job):
        v3.fit(job, root)
    return held(root / "compressed_artifacts" / "model.tar.gz")


def held(model: Path) -> str:
    """Say how many files a `model.tar.gz` holds: to the SDK a job without any is complete."""
    with tarfile.open(model) as packed:
        return f"{model.name} holds {sum(member.isfile() for member in packed)} files"


@contextmanager
def limited(job: sdk.Job) -> Iterator[None]:
    """End a job that takes too long, and raise LocalModeError: the SDK waits for ever, and a start without a word may serve."""
    late = threading.Event()

    def remove() -> None:
        late.set()
        sandbox.docker("rm", "--force", *sandbox.containers(job.root))

    timer = threading.Timer(job.options.train_seconds, remove)
    timer.start()
    try:
        yield
    except RuntimeError:
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():  # compose may end with 0 where its container is gone
        raise sdk.LocalModeError(f"It did not end within {job.options.train_seconds:g} s.")


def serve(job: sdk.Job, session: sdk.Untyped, model: str) -> None:
    """Create an endpoint, invoke it in several ways, and run a transform job of the same model."""
    kind, body = job.options.content_type, job.options.payload.read_bytes()

    def come_into_service() -> str:
        v3.create_endpoint(job, session.sagemaker_client, model)
        return str(session.sagemaker_client.describe_endpoint("endpoint")["EndpointStatus"])

    if not attempt(job, Step.SERVE, come_into_service):
        return
    attempt(job, Step.INVOKE, partial(answer, session, body, kind))
    attempt(job, Step.ANY_ACCEPT, partial(answer, session, body, kind, Accept="*/*"))
    attempt(job, Step.SPELLED, partial(answer, session, body, *spellings(kind)))
    attempt(job, Step.INFERENCE_ID, partial(answer, session, body, kind, InferenceId="one-of-many"))
    v3.delete_endpoint(session.sagemaker_client)  # the transform job's server wants its port
    if kind.partition(";")[0].strip().lower() in LINES:
        transform(job, session.sagemaker_client, [line for line in body.decode().splitlines() if line.strip()])


def answer(session: sdk.Untyped, body: bytes, *content_types: str, **more: str) -> str:
    """Send a body as each of these types; return the beginning of the answers. Raises LocalModeError where one is no 200."""
    answers = [v3.invoke(session, body, content_type, **more) for content_type in content_types]
    return "\n".join(answer.decode(errors="replace") for answer in answers)[:TOLD]


def spellings(content_type: str) -> tuple[str, str, str]:
    """Return a Content-Type as clients write it too: with a parameter, with one in capitals, in capitals."""
    parameter = "charset=utf-8" if content_type.startswith("text/") or "json" in content_type else "v=1"
    return f"{content_type}; {parameter}", f"{content_type};{parameter.upper()}", content_type.upper()


def transform(job: sdk.Job, client: sdk.Untyped, records: list[str]) -> None:
    """Run a transform job over lines, and look at its output: the SDK writes whatever came back, an error's body too."""
    folder, output = job.folder("records"), job.folder("transformed")
    (folder / "records").write_text("".join(f"{record}\n" for record in records))

    def lines() -> list[str]:
        return (output / "records.out").read_text(errors="replace").removesuffix("\n").split("\n")

    def end() -> str:
        # Named, as the SDK does not know MULTI_RECORD, which is how /execution-parameters spells it (H-26).
        v3.run_transform_job(client, folder, output, job.options.content_type, BatchStrategy="MultiRecord")
        return "\n".join(lines())[:TOLD]

    def count() -> str:
        found = [line for line in lines() if line.strip()]
        if len(found) != len(records):
            raise sdk.LocalModeError(f"{len(found)} lines for {len(records)}: {found[:3]}")
        return f"{len(found)} lines for {len(records)}"

    def look_for_blanks() -> str:
        if "" in lines():
            raise sdk.LocalModeError(f"Line {lines().index('') + 1} of {len(lines())} is blank.")
        return f"{len(lines())} lines, none is blank"

    if attempt(job, Step.TRANSFORM, end):
        attempt(job, Step.A_LINE, count)
        attempt(job, Step.NO_BLANK, look_for_blanks)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare what this driver takes beside what all take."""
    parser.add_argument("--payload", required=True, type=Path, help="a request that is answered with 200, no header row")
    parser.add_argument("--content-type", default="text/csv", help="of the payload; text/csv where it isn't given")
    parser.add_argument("--env", action="append", default=[], type=pair, metavar="NAME=VALUE", help="for the containers")
    parser.add_argument("--model", type=Path, help="a model.tar.gz to serve in place of what training leaves")
    parser.add_argument("--start-seconds", type=float, default=60, help="how long a server may take to become ready")
    parser.add_argument("--train-seconds", type=float, default=120, help="how long a training job may take")


if __name__ == "__main__":
    sandbox.run(rehearse, __doc__, declare)
