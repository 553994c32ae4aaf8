"""Batch transform as it is played here: what is sent of an object, and what is put together of the answers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Barrier, Lock

import pytest
from fakes import Answer, answering, invocations, summing, sums

from local_test import payloads
from local_test.emulator import Endpoint, serving
from local_test.emulator.batches import MIB, BadObject, body_of, mini_batches
from local_test.emulator.filters import BadFilter, Processing, parse, select
from local_test.emulator.transform import BadParameters, Parameters, TransformJob, run_job, transform
from local_test.runners import Processes

LINES = TransformJob(split_type="Line", assemble_with="Line")
ROWS = b"1,2\n3,4\n5,6\n"


def job(**options) -> TransformJob:
    return TransformJob(**{"split_type": "Line", "assemble_with": "Line", **options})


def put(folder: Path, **objects: bytes) -> Path:
    """Write objects into a folder of their own; `rows_csv` is called rows.csv."""
    inputs = folder / "in"
    for name, body in objects.items():
        path = inputs / name.replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return inputs


@pytest.fixture
def adder() -> Iterator[Endpoint]:
    """A server that answers a line with its sum."""
    with answering(sums) as endpoint:
        yield endpoint


class Recorder:
    """Keeps what it is sent, and answers with sums."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.parameters: Answer = (404, b"", "text/plain")

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if path == "/execution-parameters":
            return self.parameters
        self.bodies.append(body)
        self.headers.append(headers)
        return summing(body)


# --- records


def batches(path: Path, split_type: str, strategy: str, megabytes: int = 6) -> list[bytes]:
    return [body_of(batch, strategy) for batch in mini_batches(path, split_type, strategy, megabytes)]


def test_an_object_that_is_not_split_is_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(ROWS)
    assert batches(tmp_path / "a", "None", "MultiRecord") == [ROWS]


def test_lines_go_one_at_a_time_or_as_many_as_fit_and_none_is_cut(tmp_path: Path) -> None:
    lines = [b"%d," % number + b"x" * (MIB // 3) + b"\n" for number in range(7)]
    (tmp_path / "a").write_bytes(b"".join(lines))
    assert batches(tmp_path / "a", "Line", "SingleRecord", 1) == lines
    packed = batches(tmp_path / "a", "Line", "MultiRecord", 1)
    assert packed == [b"".join(lines[:2]), b"".join(lines[2:4]), b"".join(lines[4:6]), lines[6]]


def test_no_limit_packs_all_into_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(ROWS)
    assert batches(tmp_path / "a", "Line", "MultiRecord", 0) == [ROWS]


def test_a_record_larger_than_a_request_is_refused_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1\n" + b"2" * MIB + b"\n")
    with pytest.raises(BadObject, match="record 2 has 1,048,577 bytes; MaxPayloadInMB allows 1,048,576"):
        batches(tmp_path / "a", "Line", "MultiRecord", 1)


def recordio(payload: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)


def tfrecord(payload: bytes) -> bytes:
    return struct.pack("<QI", len(payload), 0) + payload + struct.pack("<I", 0)


@pytest.mark.parametrize(("form", "frame"), [("RecordIO", recordio), ("TFRecord", tfrecord)])
def test_binary_records_go_framed_together_and_bare_alone(tmp_path: Path, form: str, frame) -> None:
    payloads = [b"a", b"bcde", b"", b"fghijk"]
    whole = b"".join(frame(payload) for payload in payloads)
    (tmp_path / "a").write_bytes(whole)
    assert batches(tmp_path / "a", form, "SingleRecord") == payloads
    assert batches(tmp_path / "a", form, "MultiRecord") == [whole]


@pytest.mark.parametrize(
    ("form", "body", "words"),
    [
        ("RecordIO", b"1,2\n3,4\n", "begins with 0xced7230a"),
        ("RecordIO", recordio(b"abcd")[:-1], "4 bytes were expected, 3 are there"),
        ("RecordIO", struct.pack("<II", 0xCED7230A, 1 << 29 | 4) + b"abcd", "several frames"),
        ("TFRecord", tfrecord(b"abcd")[:-1], "8 bytes were expected, 7 are there"),
    ],
    ids=["no magic", "cut", "frames", "cut TFRecord"],
)
def test_an_object_in_another_format_is_refused(tmp_path: Path, form: str, body: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(body)
    with pytest.raises(BadObject, match=words):
        batches(tmp_path / "a", form, "MultiRecord")


# --- filters and joins

DOCUMENT = {"id": 7, "features": [1, 2, 3], "deep": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", DOCUMENT),
        ("$.features", [1, 2, 3]),
        ("$['id']", 7),
        ("$['id','features']", {"id": 7, "features": [1, 2, 3]}),
        ("$.deep.['a']", None),
        ("$.deep[1].['a','b']", {"a": 3, "b": 4}),
        ("$.features[-1]", 3),
        ("$.features[0,2]", [1, 3]),
        ("$.features[1:]", [2, 3]),
        ("$.features[:2]", [1, 2]),
        ("$.features[:-1]", [1, 2]),
        ("$.deep[*].a", [1, 3]),
        ("$.deep[0].*", [1, 2]),
    ],
)
def test_a_path_finds_what_jsonpath_finds(path: str, found: object) -> None:
    if found is None:
        with pytest.raises(BadFilter, match="finds nothing"):
            select(parse(path), DOCUMENT)
    else:
        assert select(parse(path), DOCUMENT) == found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("features", "does not begin with"),
        ("$..id", "'..id' is none of"),
        ("$[?(@.a)]", "is none of"),
        ("$[0:2,5:]", "is none of"),  # aws/sagemaker-python-sdk#1112: single ranges only
        ("$['account_id']", "letters and digits"),  # aws/aws-sdk#184
        ("$" + ".a" * 40, "has 81 characters; a filter may have 63"),
    ],
)
def test_a_path_that_the_platform_does_not_take_is_refused(path: str, words: str) -> None:
    with pytest.raises(BadFilter, match=words):
        parse(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_filter": "$.id"}, "places, no names"),
        ({"join_source": "Output"}, "JoinSource is None or Input"),
        ({"join_source": "Input", "content_type": "application/x-npy"}, "are not filtered or joined"),
        ({"join_source": "Input", "split_type": "None"}, "want SplitType=Line"),
        ({"split_type": "Lines"}, "SplitType is one of"),
        ({"assemble_with": "Lines"}, "AssembleWith is"),
        ({"invocations_timeout_s": 3_601}, "at most 3600 s"),
        ({"invocations_max_retries": 4}, "3 retries"),
    ],
)
def test_a_job_that_the_platform_does_not_take_is_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        job(**options).check()


def test_rows_are_joined_with_answers_and_filtered_before_and_after(adder: Endpoint, tmp_path: Path) -> None:
    inputs = put(tmp_path, rows_csv=b'"a, b",1,2\nc,3,4\n')
    joined = job(input_filter="$[1:]", join_source="Input")
    assert written(transform(adder, joined, inputs, tmp_path)) == '"a, b",1,2,3\nc,3,4,7\n'
    assert written(transform(adder, job(input_filter="$[1]"), inputs, tmp_path)) == "1\n3\n"
    ids = job(input_filter="$[1:]", join_source="Input", output_filter="$[0,-1]")
    assert written(transform(adder, ids, inputs, tmp_path)) == '"a, b",3\nc,7\n'


def written(done) -> str:
    assert done.failures == {}
    (path,) = done.outputs
    return path.read_text()


def test_documents_are_joined_under_the_platforms_names() -> None:
    processing = Processing("application/jsonlines", join_source="Input")
    joined = processing.after(b'{"id": 1}\n[2]\n', b'{"label": 1}\n5\n')
    assert [json.loads(line) for line in joined.split(b"\n")] == [
        {"id": 1, "SageMakerOutput": {"label": 1}},
        {"SageMakerInput": [2], "SageMakerOutput": 5},
    ]
    whole = Processing("application/json", "$.features", "$['id','SageMakerOutput']", "Input")
    body = b'{"id": 1, "features": [1, 2]}'
    assert whole.before(body) == b"[1, 2]"
    assert json.loads(whole.after(body, b'{"sum": 3}')) == {"id": 1, "SageMakerOutput": {"sum": 3}}


def test_answers_that_are_not_as_many_as_records_fail_the_object(tmp_path: Path) -> None:
    with answering(invocations(lambda _: (200, b"1\n2", "text/csv"))) as endpoint:
        done = transform(endpoint, job(join_source="Input"), put(tmp_path, rows_csv=ROWS), tmp_path)
    assert done.status == "Failed"
    assert "3 records can't be joined with 2 answers" in next(iter(done.failures.values()))


# --- parameters


@pytest.mark.parametrize(
    ("asked", "offered", "found"),
    [
        ({}, {}, Parameters(1, "MultiRecord", 6)),
        ({}, {"MaxConcurrentTransforms": 4, "BatchStrategy": "SINGLE_RECORD"}, Parameters(4, "SingleRecord", 6)),
        (
            {"max_payload_mb": 2, "batch_strategy": "MultiRecord"},
            {"MaxPayloadInMB": 9, "BatchStrategy": "SINGLE_RECORD"},
            Parameters(1, "MultiRecord", 2),
        ),
        ({"max_payload_mb": 0}, {"MaxPayloadInMB": 9}, Parameters(1, "MultiRecord", 0)),
        ({"max_concurrent_transforms": 0}, {"MaxConcurrentTransforms": 3}, Parameters(3, "MultiRecord", 6)),
    ],
    ids=["defaults", "container", "request", "no limit", "0 is unset"],
)
def test_the_request_comes_before_the_container_before_the_defaults(asked: dict, offered: dict, found: Parameters) -> None:
    assert job(**asked).parameters(offered) == found


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "no JSON"),
        (200, b"[1]", "a JSON list"),
        (200, b'{"MaxConcurrentTransform": 1}', "names MaxConcurrentTransform"),
        (200, b'{"MaxPayloadInMB": "6"}', 'MaxPayloadInMB is "6", not a whole number'),
        (200, b'{"BatchStrategy": "MultiRecord"}', "not MULTI_RECORD or SINGLE_RECORD"),
        (200, b'{"MaxConcurrentTransforms": 17}', "17 x MaxPayloadInMB 6 is 102 MB; 100 are allowed"),
    ],
)
def test_parameters_that_can_not_be_used_stop_the_job(tmp_path: Path, status: int, body: bytes, words: str) -> None:
    recorder = Recorder()
    recorder.parameters = (status, body, "application/json")
    with answering(recorder) as endpoint, pytest.raises(BadParameters, match=words):
        transform(endpoint, LINES, put(tmp_path, rows_csv=ROWS), tmp_path)
    assert recorder.bodies == []


def test_the_container_finds_only_what_the_caller_set() -> None:
    assert job().variables() == {"SAGEMAKER_BATCH": "true"}
    assert job(max_payload_mb=0, batch_strategy="SingleRecord", max_concurrent_transforms=2).variables() == {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
    }


# --- jobs


def test_each_object_leaves_one_output_at_its_place(adder: Endpoint, tmp_path: Path) -> None:
    inputs = put(tmp_path, rows_csv=ROWS)
    (inputs / "deep").mkdir()
    (inputs / "deep" / "more").write_bytes(b"1\n2\n")
    done = transform(adder, LINES, inputs, tmp_path / "out")
    assert (done.status, sorted(done.outputs)) == ("Completed", [tmp_path / "out/deep/more.out", tmp_path / "out/rows.csv.out"])
    assert (tmp_path / "out/rows.csv.out").read_text() == "3\n7\n11\n"


def test_an_object_that_fails_leaves_nothing_and_the_others_go_on(adder: Endpoint, tmp_path: Path) -> None:
    inputs = put(tmp_path, a_csv=ROWS, b_csv=b"1,2\nx\n3,4\n", c_csv=ROWS)
    done = transform(adder, job(batch_strategy="SingleRecord"), inputs, tmp_path / "out")
    assert done.status == "Failed"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv.out", "c.csv.out"]
    (why,) = done.failures.values()
    assert "sent 1 times, was answered 400: could not convert string to float" in why


def test_without_assembly_answers_stand_as_they_came(adder: Endpoint, tmp_path: Path) -> None:
    done = transform(adder, job(batch_strategy="SingleRecord", assemble_with="None"), put(tmp_path, a=ROWS), tmp_path)
    assert written(done) == "3711"


def test_a_newline_follows_each_answer_whatever_it_ends_with(tmp_path: Path) -> None:
    with answering(
        lambda _method, path, body, _: summing(body, "\n") if path == "/invocations" else (404, b"", "")
    ) as endpoint:
        done = transform(endpoint, job(batch_strategy="SingleRecord"), put(tmp_path, a=ROWS), tmp_path)
    assert written(done) == "3\n\n7\n\n11\n\n"


def test_the_header_of_a_file_is_in_its_first_mini_batch_alone(tmp_path: Path) -> None:
    bodies = []

    def keep(body: bytes) -> Answer:
        bodies.append(body)
        return 200, b"", "text/csv"

    with answering(invocations(keep)) as endpoint:
        transform(endpoint, job(max_payload_mb=1), put(tmp_path, a=b"x\n" + (b"1" * 1_023 + b"\n") * 2_048), tmp_path)
    assert [body[:2] for body in bodies] == [b"x\n", b"11", b"11"]


def test_types_are_sent_as_the_job_says(tmp_path: Path) -> None:
    recorder = Recorder()
    with answering(recorder) as endpoint:
        transform(endpoint, job(content_type="text/csv; header=absent", accept="text/csv"), put(tmp_path, a=ROWS), tmp_path)
    assert recorder.headers[0]["content-type"] == "text/csv; header=absent"
    assert recorder.headers[0]["accept"] == "text/csv"


def test_a_job_without_a_payload_limit_sends_chunks(tmp_path: Path) -> None:
    recorder = Recorder()
    rows = ROWS * 20_000
    with answering(recorder) as endpoint:
        transform(endpoint, job(max_payload_mb=0), put(tmp_path, a=rows), tmp_path)
    assert recorder.headers[0]["transfer-encoding"].lower() == "chunked"
    assert recorder.bodies == [rows]


def test_as_many_requests_are_open_at_once_as_the_job_says_and_answers_keep_their_order(tmp_path: Path) -> None:
    together, lock, most = Barrier(3, timeout=10), Lock(), [0, 0]

    def slow(body: bytes) -> Answer:
        with lock:
            most[0] += 1
            most[1] = max(most)
        together.wait()  # broken unless three come at once
        with lock:
            most[0] -= 1
        return summing(body)

    rows = b"".join(b"%d\n" % number for number in range(12))
    with answering(invocations(slow)) as endpoint:
        done = transform(
            endpoint, job(batch_strategy="SingleRecord", max_concurrent_transforms=3), put(tmp_path, a=rows), tmp_path
        )
    assert written(done).encode() == rows
    assert most[1] == 3


@pytest.mark.parametrize(("status", "sent"), [(500, 3), (503, 3), (0, 3), (400, 1), (415, 1)])
def test_what_the_body_is_not_to_blame_for_is_sent_again(tmp_path: Path, status: int, sent: int) -> None:
    recorder = Recorder()

    def fail(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = recorder(method, path, body, headers)
        return answer if path != "/invocations" or len(recorder.bodies) > 2 else (status, b"no", "text/plain")

    with answering(fail) as endpoint:
        done = transform(endpoint, job(invocations_max_retries=2), put(tmp_path, a=ROWS), tmp_path)
    assert len(recorder.bodies) == sent
    assert done.status == ("Completed" if sent == 3 else "Failed")


def test_an_invocation_that_takes_too_long_fails_its_object(tmp_path: Path) -> None:
    held = Barrier(2)

    def hold(_: bytes) -> Answer:
        held.wait(10)
        return 200, b"", ""

    with answering(invocations(hold)) as endpoint:
        patience = job(invocations_timeout_s=0.2, invocations_max_retries=0)
        done = transform(endpoint, patience, put(tmp_path, a=ROWS), tmp_path)
        held.wait(10)
    assert "not at all: " in next(iter(done.failures.values()))


# --- Berth


@pytest.fixture(scope="module")
def batch(trained: Path) -> Iterator[Endpoint]:
    """A server as a batch transform job starts it."""
    with serving(Processes(), trained, LINES.variables()) as running:
        yield running


def test_both_strategies_and_several_requests_at_once_leave_the_same_output(
    batch: Endpoint, manifest: dict, tmp_path: Path
) -> None:
    rows = payloads.csv_body(manifest).rstrip(b"\n") + b"\n"
    inputs = put(tmp_path, rows_csv=rows * 20)
    outputs = [
        written(transform(batch, job(accept="text/csv", **options), inputs, tmp_path / name))
        for name, options in {
            "many": {},
            "one": {"batch_strategy": "SingleRecord"},
            "four": {"batch_strategy": "SingleRecord", "max_concurrent_transforms": 4, "max_payload_mb": 6},
        }.items()
    ]
    assert outputs[0].count("\n") == 60
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_large_file_comes_back_line_by_line_in_several_mini_batches(batch: Endpoint, manifest: dict, tmp_path: Path) -> None:
    rows = payloads.csv_body(manifest).rstrip(b"\n") + b"\n"
    copies = 3 * MIB // len(rows)
    lines = written(transform(batch, job(max_payload_mb=1), put(tmp_path, rows_csv=rows * copies), tmp_path)).split("\n")
    assert lines[:-1] == lines[:3] * copies
    assert lines[-1] == ""


def test_a_job_starts_its_own_server_joins_and_keeps_the_column_that_the_model_does_not_know(
    trained: Path, manifest: dict, tmp_path: Path
) -> None:
    rows = payloads.csv_body(manifest).split()
    named = b"".join(b"house%d,%b\n" % (number, row) for number, row in enumerate(rows))
    joined = job(input_filter="$[1:]", join_source="Input", output_filter="$[0,-1]", accept="text/csv")
    done = run_job(Processes(), trained, joined, put(tmp_path, rows_csv=named), tmp_path)
    answers = [line.split(",") for line in written(done).split()]
    assert [name for name, _ in answers] == ["house0", "house1", "house2"]
    expected = [sample["prediction"] for sample in manifest["samples"]]
    assert [float(answer) for _, answer in answers] == pytest.approx(expected, rel=1e-5)


def test_json_lines_are_joined_with_what_is_answered(batch: Endpoint, manifest: dict, tmp_path: Path) -> None:
    kind = "application/jsonlines"
    joined = job(content_type=kind, accept=kind, join_source="Input")
    done = transform(batch, joined, put(tmp_path, rows_jsonl=payloads.jsonlines_body(manifest)), tmp_path)
    found = [json.loads(line) for line in written(done).splitlines()]
    assert [document["SageMakerOutput"]["prediction"] for document in found] == pytest.approx(
        [sample["prediction"] for sample in manifest["samples"]], rel=1e-5
    )
