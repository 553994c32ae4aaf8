"""Batch transform, and what a front end may ask of a body: headers, gzip, metering (H-12 to H-16, H-25 to H-41)."""

from __future__ import annotations

import gzip
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.declaration import Feature
from contract.errors import SchemaMismatch
from local_test import payloads
from local_test.emulator import Endpoint, serving
from local_test.runners import Processes
from serving.codecs import read_body
from serving.platforms.sagemaker import execution_parameters
from serving.schema import Schema
from serving.settings import MIB, Settings

CSV, JSONLINES = "text/csv", "application/jsonlines"
GOOD = b"0,6.575,296,15.3,396.9,4.98"
SCHEMA = Schema([Feature("a", ""), Feature("b", "")])


@pytest.fixture(scope="module")
def batch(trained: Path) -> Iterator[Endpoint]:
    """A server as a batch transform job starts it, told to carry on over bad rows."""
    with serving(Processes(), trained, {"SAGEMAKER_BATCH": "True", "BAD_ROWS": "null"}) as running:
        yield running


def call(endpoint: Endpoint, body: bytes, path: str = "/invocations", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(endpoint.program.url + path, body, {"Content-Type": CSV, **named})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, response.read(), {name.lower(): value for name, value in response.headers.items()}


# --- batch transform


def test_a_bad_row_of_csv_becomes_nan_and_the_rest_is_answered_in_order(batch: Endpoint) -> None:
    reply = batch.invoke(b"\n".join([GOOD, b"1,2", GOOD, b"0,x,296,15.3,396.9,4.98", GOOD]))
    lines = reply.text.split("\n")
    assert lines[1] == lines[3] == "NaN"
    assert lines[0] == lines[2] == lines[4]
    assert float(lines[0]) > 0


def test_a_bad_row_of_json_lines_becomes_null_with_what_is_wrong(batch: Endpoint, manifest: dict) -> None:
    good = payloads.jsonlines_body(manifest).split(b"\n")[0]
    reply = batch.invoke(b"\n".join([good, b"{", b'{"features": [1]}', good]), JSONLINES)
    answers = [json.loads(line) for line in reply.text.split("\n")]
    assert [answer["prediction"] is None for answer in answers] == [False, True, True, False]
    assert answers[1]["error"].startswith("Row 2 is not JSON")
    assert answers[2]["error"].startswith("Row 3 has 1 value")


def test_the_log_names_bad_rows_and_nothing_of_what_stood_in_them(batch: Endpoint) -> None:
    batch.invoke(b"\n".join([GOOD, b"secret,2,3,4,5,6"]))
    assert re.search(r"BAD_ROWS=null passed over rows 2\b", batch.program.output())
    assert "secret" not in batch.program.output()


def test_bad_rows_in_every_block_of_a_large_body_keep_their_places(batch: Endpoint) -> None:
    rows = [GOOD] * 20_000
    for number in (0, 8_191, 8_192, 19_999):
        rows[number] = b"bad"
    lines = batch.invoke(b"\n".join(rows)).text.split("\n")
    assert len(lines) == 20_000
    assert [number for number, line in enumerate(lines) if line == "NaN"] == [0, 8_191, 8_192, 19_999]


def test_a_body_of_bad_rows_alone_is_answered_with_placeholders_alone(batch: Endpoint) -> None:
    assert batch.invoke(b"x\ny").text == "NaN\nNaN"


def test_a_file_that_is_no_csv_at_all_still_fails(batch: Endpoint) -> None:
    assert batch.invoke(b'1,"2').status == 400


def test_in_batch_a_header_in_the_models_order_yields_no_record(batch: Endpoint, manifest: dict) -> None:
    reply = batch.invoke(payloads.csv_body(manifest, header=True))
    assert len(reply.text.split("\n")) == 3


def test_in_batch_a_part_with_the_header_alone_is_answered_with_nothing(batch: Endpoint, manifest: dict) -> None:
    reply = batch.invoke(payloads.csv_body(manifest, [], header=True))
    assert (reply.status, reply.body) == (200, b"")


def test_in_batch_a_header_in_another_order_is_refused_with_the_reason(batch: Endpoint) -> None:
    reply = batch.invoke(b"LSTAT,RM,TAX,PTRATIO,B,CHAS\n4.98,6.575,296,15.3,396.9,0")
    assert reply.status == 400
    assert "only the file's first part has the header" in json.loads(reply.body)["message"]


def test_execution_parameters_are_json_and_keep_the_100_mb_rule(batch: Endpoint) -> None:
    reply = batch.get("/execution-parameters")
    found = json.loads(reply.body)
    assert reply.headers["content-type"] == "application/json"
    assert set(found) == {"MaxConcurrentTransforms", "MaxPayloadInMB"}
    assert 1 <= found["MaxConcurrentTransforms"] * found["MaxPayloadInMB"] <= 100


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 64, 100, 500])
@pytest.mark.parametrize("limit", ["", "1", "6", "100"])
def test_execution_parameters_keep_the_100_mb_rule_for_any_machine(workers: int, limit: str) -> None:
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers), "SAGEMAKER_MAX_PAYLOAD_IN_MB": limit, "SAGEMAKER_BATCH": "true"}
    settings = Settings.from_environ(environ)
    found = execution_parameters(settings)
    assert found["MaxConcurrentTransforms"] * found["MaxPayloadInMB"] <= 100
    assert 1 <= found["MaxPayloadInMB"] <= settings.max_payload_bytes // MIB


@pytest.mark.parametrize("asked", [1, 4, 33, 100])
def test_what_is_offered_keeps_the_100_mb_rule_for_as_many_requests_as_the_job_was_told_to_send(asked: int) -> None:
    environ = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(asked),
    }
    found = execution_parameters(Settings.from_environ(environ))
    assert found["MaxConcurrentTransforms"] == asked
    assert asked * found["MaxPayloadInMB"] <= 100


def test_a_payload_limit_of_0_means_no_limit_of_the_jobs_own(trained: Path) -> None:
    """H-26: bodies then come chunked, of unknown length."""
    environ = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}
    assert Settings.from_environ(environ).max_payload_bytes == 100 * MIB


# --- the parameter `header`


def test_header_present_takes_the_first_row_for_names_whatever_it_looks_like() -> None:
    assert read_body(b"b,a\n1,2", "text/csv; header=present", SCHEMA).tolist() == [[2, 1]]
    with pytest.raises(SchemaMismatch, match="missing: a, b"):
        read_body(b"1,2\n3,4", "text/csv; header=present", SCHEMA)


def test_header_absent_takes_the_first_row_for_data() -> None:
    schema = Schema([Feature("a", "", kind="category", choices=("a", "b"))])
    assert read_body(b"a\nb", "text/csv; header=absent", schema).tolist() == [[0], [1]]


# --- gzip and chunks


def test_a_gzip_body_is_read_and_a_gzip_answer_is_given_to_who_takes_it(endpoint: Endpoint) -> None:
    rows = b"\n".join([GOOD] * 500)
    status, plain, headers = call(endpoint, rows)
    assert "content-encoding" not in headers
    status, packed, headers = call(endpoint, gzip.compress(rows), Content_Encoding="gzip", Accept_Encoding="br, gzip;q=0.5")
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "accept-encoding")
    assert gzip.decompress(packed) == plain


@pytest.mark.parametrize(
    ("body", "encoding", "status", "words"),
    [
        (b"\x1f\x8bnot gzip", "gzip", 400, "not gzip"),
        (gzip.compress(GOOD)[:-9], "gzip", 400, "ends too soon"),
        (gzip.compress(GOOD) + b"more", "gzip", 400, "more follows"),
        (GOOD, "br", 415, "send gzip or none"),
        (gzip.compress(b"0" * (26 * MIB)), "gzip", 413, "unpacks to more than"),
    ],
    ids=["no gzip", "cut", "two", "brotli", "bomb"],
)
def test_a_bad_encoding_is_told_what_is_wrong(endpoint: Endpoint, body: bytes, encoding: str, status: int, words: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(endpoint, body, Content_Encoding=encoding)
    with caught.value as error:
        assert error.code == status
        assert words in json.loads(error.read())["message"]


def test_a_chunked_body_of_unknown_length_is_read(endpoint: Endpoint) -> None:
    parts = iter([GOOD[:5], GOOD[5:], b"\n", GOOD])
    request = urllib.request.Request(endpoint.program.url + "/invocations", parts, {"Content-Type": CSV})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert len(response.read().split(b"\n")) == 2


# --- headers


def test_custom_attributes_come_back_and_unprintable_ones_do_not(endpoint: Endpoint) -> None:
    name = "x-amzn-sagemaker-custom-attributes"
    assert call(endpoint, GOOD, X_Amzn_SageMaker_Custom_Attributes="trace=1;a=b")[2][name] == "trace=1;a=b"
    assert name not in call(endpoint, GOOD, X_Amzn_SageMaker_Custom_Attributes="x" * 1_025)[2]
    assert name not in call(endpoint, GOOD)[2]


def test_an_inference_id_is_the_request_id_of_an_error(endpoint: Endpoint) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(endpoint, b"1", X_Amzn_SageMaker_Inference_Id="order-7")
    with caught.value as error:
        assert json.loads(error.read())["request_id"] == "order-7"


def test_metering_counts_the_rows_of_good_answers_when_asked(trained: Path) -> None:
    environ = {"BERTH_METERING_DIMENSION": "inference.count", "BAD_ROWS": "null"}
    with serving(Processes(), trained, environ) as endpoint:
        _, _, headers = call(endpoint, b"\n".join([GOOD, b"bad", GOOD]))
        assert json.loads(headers["x-amzn-inference-metering"]) == {"Dimension": "inference.count", "ConsumedUnits": 2}
        with pytest.raises(urllib.error.HTTPError) as caught:
            call(endpoint, b'1,"')
        with caught.value as error:
            assert "x-amzn-inference-metering" not in error.headers
