"""Asynchronous inference and serial pipelines as they are played here (H-2, H-32)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

import pytest
from fakes import Answer, answering, summing, sums

from local_test import payloads
from local_test.emulator import Endpoint
from local_test.emulator.asynchronous import AsyncEndpoint, serving_async
from local_test.emulator.pipeline import Pipeline, Stage, serving_pipeline
from local_test.runners import Process, Processes

ROWS = b"1,2\n3,4"


@pytest.fixture
def adder(tmp_path: Path) -> Iterator[AsyncEndpoint]:
    """An asynchronous endpoint that answers a line with its sum."""
    with answering(sums) as endpoint:
        taken = AsyncEndpoint(endpoint, tmp_path / "out")
        yield taken
        taken.close()


# --- asynchronous inference


def test_a_body_is_answered_in_a_file(adder: AsyncEndpoint) -> None:
    invocation = adder.invoke(ROWS)
    assert invocation.wait(10)
    assert invocation.output_location.read_bytes() == b"3\n7"
    assert invocation.output_location.suffix == ".out"
    assert not invocation.failure_location.exists()


def test_an_object_is_answered_in_a_file(adder: AsyncEndpoint, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(ROWS)
    invocation = adder.invoke(input_location=tmp_path / "rows.csv", inference_id="order-7")
    assert invocation.wait(10)
    assert (invocation.inference_id, invocation.output_location.read_bytes()) == ("order-7", b"3\n7")


def test_what_the_model_refuses_is_told_in_a_failure_file(adder: AsyncEndpoint) -> None:
    invocation = adder.invoke(b"x")
    assert not invocation.wait(10)
    assert invocation.failure_location.read_text().startswith("The model answered 400: could not convert")
    assert not invocation.output_location.exists()


def test_an_object_that_is_not_there_is_told_in_a_failure_file(adder: AsyncEndpoint, tmp_path: Path) -> None:
    invocation = adder.invoke(input_location=tmp_path / "nowhere.csv")
    assert not invocation.wait(10)
    assert "can't be read" in invocation.failure_location.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either a body or input_location"),
        ({"body": b"1", "input_location": Path("a")}, "either a body or input_location"),
        ({"body": b"1" * 128_001}, "at most 128,000 bytes, not 128,001"),
        ({"body": b"1", "timeout_s": 3_601}, "may take 3600 s"),
        ({"body": b"1", "ttl_s": 21_601}, "wait 21600 s"),
    ],
    ids=["neither", "both", "long", "timeout", "ttl"],
)
def test_what_the_platform_does_not_take_is_refused_at_once(adder: AsyncEndpoint, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adder.invoke(**options)


@dataclass
class Gate:
    """Holds each request until it is opened; counts how many are there at once."""

    opened: Event
    lock: Lock
    here: int = 0
    most: int = 0
    headers: tuple[Mapping[str, str], ...] = ()

    def __call__(self, _method: str, _path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        with self.lock:
            self.here += 1
            self.most = max(self.most, self.here)
            self.headers = (*self.headers, headers)
        self.opened.wait(10)
        with self.lock:
            self.here -= 1
        return summing(body)


@pytest.fixture
def gate() -> Gate:
    return Gate(Event(), Lock())


def test_no_more_than_so_many_are_sent_at_once_and_the_rest_waits(gate: Gate, tmp_path: Path) -> None:
    with answering(gate) as endpoint:
        taken = AsyncEndpoint(endpoint, tmp_path, invocations=2)
        invocations = [taken.invoke(b"%d" % number) for number in range(6)]
        with pytest.raises(TimeoutError):
            invocations[0].wait(0.3)
        assert gate.here == 2
        gate.opened.set()
        assert all(invocation.wait(10) for invocation in invocations)
        taken.close()
    assert gate.most == 2
    assert [invocation.output_location.read_text() for invocation in invocations] == list("012345")


def test_a_request_that_waits_too_long_is_never_sent(gate: Gate, tmp_path: Path) -> None:
    with answering(gate) as endpoint:
        taken = AsyncEndpoint(endpoint, tmp_path)
        first, late = taken.invoke(b"1"), taken.invoke(b"2", ttl_s=0.1)
        with pytest.raises(TimeoutError):
            late.wait(0.3)
        gate.opened.set()
        assert first.wait(10)
        assert not late.wait(10)
        taken.close()
    assert late.failure_location.read_text() == "The request expired in the queue."
    assert len(gate.headers) == 1


def test_a_request_that_takes_too_long_is_told_in_a_failure_file(gate: Gate, tmp_path: Path) -> None:
    with answering(gate) as endpoint:
        taken = AsyncEndpoint(endpoint, tmp_path)
        slow = taken.invoke(b"1", timeout_s=0.2)
        assert not slow.wait(10)
        gate.opened.set()
        taken.close()
    assert slow.failure_location.read_text() == "The model did not answer within 0.2 s."


def test_the_container_sees_a_plain_invocation(gate: Gate, tmp_path: Path) -> None:
    gate.opened.set()
    with answering(gate) as endpoint:
        taken = AsyncEndpoint(endpoint, tmp_path)
        taken.invoke(b"1", "text/csv", "application/json", inference_id="order-7", custom_attributes="a=b").wait(10)
        taken.close()
    sent = {"content-type": "text/csv", "accept": "application/json", "x-amzn-sagemaker-inference-id": "order-7"}
    assert {**sent, "x-amzn-sagemaker-custom-attributes": "a=b"}.items() <= gate.headers[0].items()


def test_a_model_of_berth_answers_asynchronously(trained: Path, manifest: dict, tmp_path: Path) -> None:
    with serving_async(Processes(), trained, tmp_path, invocations=2) as taken:
        invocations = [taken.invoke(payloads.csv_body(manifest)) for _ in range(4)]
    answers = {invocation.output_location.read_text() for invocation in invocations if invocation.wait(0)}
    assert [float(line) for line in answers.pop().split()] == pytest.approx(
        [sample["prediction"] for sample in manifest["samples"]], rel=1e-5
    )
    assert answers == set()


# --- serial pipelines

SCALER = '''
"""The first container of a pipeline: takes JSON, answers rows of CSV."""
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
        body = "\\n".join(",".join(str(cell) for cell in row) for row in rows).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.end_headers()
        self.wfile.write(body)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
low, high = os.environ["SAGEMAKER_SAFE_PORT_RANGE"].split("-")
assert int(low) == int(os.environ["SAGEMAKER_BIND_TO_PORT"]) + 1 < int(high)
HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
'''


def test_each_container_is_fed_with_what_the_one_before_answered(trained: Path, manifest: dict, tmp_path: Path) -> None:
    first = tmp_path / "container" / "serve"
    first.parent.mkdir()
    first.write_text(SCALER)
    rows = [list(row.values()) for row in payloads.sample_rows(manifest)]
    stages = [Stage(Processes(tmp_path), tmp_path), Stage(Processes(), trained)]
    with serving_pipeline(stages) as pipeline:
        assert pipeline.ping()
        reply = pipeline.invoke(json.dumps({"rows": rows}).encode(), "application/json", "application/json")
        programs = [endpoint.program for endpoint in pipeline.endpoints]
    assert json.loads(reply.body)["predictions"] == pytest.approx(
        [sample["prediction"] for sample in manifest["samples"]], rel=1e-5
    )
    assert not any(program.is_running() for program in programs if isinstance(program, Process))


def test_what_a_container_refuses_goes_no_further() -> None:
    asked = []

    def refuse(*_: object) -> Answer:
        return 415, b"no", "text/plain"

    def never(*_: object) -> Answer:
        asked.append(1)
        return 200, b"", ""

    with answering(refuse) as first, answering(never) as second:
        reply = Pipeline([first, second]).invoke(b"1")
    assert (reply.status, reply.body, asked) == (415, b"no", [])


def test_between_containers_json_is_asked_for_and_the_last_is_asked_for_what_the_client_wants() -> None:
    seen: list[tuple[str, str]] = []

    def keep(_method: str, _path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        seen.append((headers["content-type"], headers.get("accept", "")))
        return 200, body, "application/jsonlines"

    with answering(keep) as first, answering(keep) as second:
        endpoints: list[Endpoint] = [first, second]
        Pipeline(endpoints).invoke(b"1", "text/csv", "text/csv")
    assert seen == [("text/csv", "application/json"), ("application/jsonlines", "text/csv")]
