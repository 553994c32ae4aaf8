"""What `/metrics` counts and what the access log says: right across workers, kills and full disks, and nothing of a payload."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.declaration import Declaration, Feature, Target
from contract.errors import BadSetting
from contract.manifest import Manifest
from local_test.emulator import serving
from local_test.runners import Containers, Processes
from serving.app import App
from serving.drift import BLOCK_ROWS, Drift
from serving.metrics import BUCKETS_S, GONE, OTHER, Metrics
from serving.predictor import Predictions, load_predictor
from serving.schema import Schema
from serving.settings import Settings

ROW = "0,6.575,296,15.3,396.9,4.98"
INVOKE = {"route": "/invocations"}
FEATURES = (
    Feature("size", "How large"),
    Feature("weight", "How heavy", nullable=True),
    Feature("color", "Its color", kind="category", choices=("red", "green", "blue"), nullable=True),
    Feature("shape", "Its shape", kind="category", choices=("round", "square")),
    Feature("unseen", "Missing in every row of training", nullable=True),
)
RANGES = {
    "size": {"minimum": 1.1, "maximum": 9.9, "missing": 0},
    "weight": {"minimum": -5.0, "maximum": 5.0, "missing": 3},
    "color": {"counts": {"red": 1, "green": 1, "blue": 1}, "missing": 0},
    "shape": {"counts": {"round": 1, "square": 1}, "missing": 0},
    "unseen": {"minimum": None, "maximum": None, "missing": 9},
}
NAN = float("nan")


class Constant:
    """A class model that says `yes` to every row."""

    def __init__(self):
        declaration = Declaration("toys", "Toys", "Whether a toy is liked.", FEATURES, Target("liked", "", "class"), ())
        row = {"size": 5, "weight": None, "color": "red", "shape": "round", "unseen": None}
        sample = {"row": row, "prediction": {"label": "yes", "probabilities": {"no": 0.0, "yes": 1.0}}}
        self.manifest = Manifest(declaration, ("no", "yes"), (sample,), {}, {}, RANGES, {}, {}, {}, {})
        self.schema = Schema(FEATURES)

    def predict(self, matrix):
        return Predictions(np.full(len(matrix), "yes", object), np.float32([[0, 1]] * len(matrix)), ("no", "yes"))


def make_app(predictor=None, **environ):
    return App(predictor or Constant(), Settings.from_environ(environ))


def call(app, method, path, body=b"", gone=False, **headers):
    """(status, media type, body) of an application called without a server; the client may leave before its body is whole."""
    sent = []

    async def receive():
        return {"type": "http.disconnect"} if gone else {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b"", "headers": named}
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"content-type", b""), b"".join(m.get("body", b"") for m in sent)


def samples_of(text):
    """{(name, labels as sorted pairs): value} of an exposition, read by the library's own parser."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples, name, **labels):
    return samples.get((name, *sorted(labels.items())), 0)


def scrape(endpoint):
    reply = endpoint.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return samples_of(reply.text)


def scrape_app(app):
    return samples_of(call(app, "GET", "/metrics")[2].decode())


# ---- across workers


@contextlib.contextmanager
def two_workers(trained, **environ):
    with serving(Processes(), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", **environ}) as running:
        wait_until(lambda: value(scrape(running), "berth_workers") == 2)  # the first is ready before the second is there
        yield running


def ask_much(endpoint, clients, each):
    """Send `each` requests from each of some clients at once; return the statuses, 0 for a connection that broke."""
    statuses = []

    def ask():
        for _ in range(each):
            with contextlib.suppress(OSError):
                statuses.append(endpoint.invoke(ROW.encode()).status)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def test_counters_are_right_whichever_of_two_workers_answers(trained):
    with two_workers(trained) as running:
        assert set(ask_much(running, 8, 25)) == {200}
        assert running.invoke(f"{ROW}\n{ROW}\n0,99,296,15.3,396.9,0".encode()).status == 200
        assert running.invoke(b"x").status == 400
        assert running.invoke(ROW.encode(), accept="image/png").status == 406
        assert running.get("/no/such/path").status == 404
        assert running.invoke(b"", path="/metadata").status == 405
        for _ in range(10):  # new connections: now one worker answers, now the other
            samples = scrape(running)
            assert value(samples, "berth_requests_total", **INVOKE, status="200") == 201
            assert value(samples, "berth_requests_total", **INVOKE, status="400") == 1
            assert value(samples, "berth_requests_total", **INVOKE, status="406") == 1
            assert value(samples, "berth_requests_total", route=OTHER, status="404") == 1
            assert value(samples, "berth_requests_total", route="/metadata", status="405") == 1
            assert value(samples, "berth_errors_total", code="schema_mismatch") == 1
            assert value(samples, "berth_errors_total", code="not_acceptable") == 1
            assert value(samples, "berth_request_duration_seconds_count", **INVOKE) == 203
            assert value(samples, "berth_rows_total") == 203
            assert value(samples, "berth_feature_values_total", feature="RM", what="above_maximum") == 1
            assert value(samples, "berth_feature_values_total", feature="LSTAT", what="below_minimum") == 1
            assert value(samples, "berth_feature_values_total", feature="B", what="below_minimum") == 0
            assert value(samples, "berth_workers") == 2
            assert value(samples, "berth_models_loaded") == 1
            assert value(samples, "berth_requests_in_progress") == 1  # this one


def test_no_counter_falls_when_a_worker_is_killed_and_its_successor_counts_on(trained):
    with two_workers(trained) as running:
        before = len(ask_much(running, 4, 25))
        for _ in range(3):
            old = scrape(running)
            victim = workers_of(running.program)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda gone=victim: gone not in (now := workers_of(running.program)) and len(now) == 2)
            new = wait_for_scrape(running)
            fallen = {key: (old[key], new.get(key)) for key in old if is_counter(key) and new.get(key, 0) < old[key]}
            assert fallen == {}
            assert value(new, "berth_workers") == 2
            before += len(ask_much(running, 4, 25))
        samples = scrape(running)
        assert value(samples, "berth_requests_total", **INVOKE, status="200") == before == 400
        assert value(samples, "berth_requests_in_progress") == 1


def is_counter(key):
    return key[0].endswith(("_total", "_bucket", "_count", "_sum"))


def wait_for_scrape(endpoint):
    """The metrics once a worker answers; a connection to the one that was killed breaks."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            return scrape(endpoint)
        time.sleep(0.1)
    return pytest.fail("nobody answers /metrics")


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers_of(program):
    pid = program.popen.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_slots_are_given_once_taken_over_and_shared_when_there_is_none_left():
    metrics = Metrics(["/"], Drift((), {}), slots=3)
    assert [metrics.take_slot({0}), metrics.take_slot({0, 1}), metrics.take_slot({0, 1, 2})] == [1, 2, 2]
    slot = metrics.take_slot({1, 2})
    metrics.record("/", 200, "", 0.1)
    metrics.begin()
    metrics.free_slot(slot)
    assert metrics.take_slot({1, 2}) == slot == 0
    samples = samples_of(metrics.render()[0].decode())
    assert value(samples, "berth_requests_total", route="/", status="200") == 1
    assert value(samples, "berth_requests_in_progress") == 0


def test_what_forked_workers_count_at_once_adds_up_exactly():
    metrics = Metrics(["/a", "/b"], Drift((), {}), slots=9)
    children = []
    for slot in range(4):
        metrics.take_slot(set(range(slot)))
        child = os.fork()
        if not child:
            for number in range(5_000):
                metrics.record("/a" if number % 2 else "/b", 200, "", 0.001 * slot)
                metrics.record_rows(3, None)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    samples = samples_of(metrics.render()[0].decode())
    assert value(samples, "berth_requests_total", route="/a", status="200") == 10_000
    assert value(samples, "berth_requests_total", route="/b", status="200") == 10_000
    assert value(samples, "berth_rows_total") == 60_000
    assert value(samples, "berth_workers") == 4


# ---- what is counted


def test_the_histogram_is_cumulative_and_its_bounds_are_inclusive():
    metrics = Metrics(["/"], Drift((), {}), slots=1)
    for seconds in (0.0, 0.0005, 0.00051, 1.0, 61.0):
        metrics.record("/", 200, "", seconds)
    samples = samples_of(metrics.render()[0].decode())
    buckets = {key[1][1]: count for key, count in samples.items() if key[0].endswith("_bucket")}
    assert [buckets[str(bound)] for bound in (0.0001, 0.0005, 0.001, 0.5, 1.0, 60.0)] == [1, 2, 3, 3, 4, 4]
    assert buckets["+Inf"] == value(samples, "berth_request_duration_seconds_count", route="/") == 5
    assert value(samples, "berth_request_duration_seconds_sum", route="/") == pytest.approx(62.00101)
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))


def test_what_is_not_known_in_advance_is_counted_as_other():
    metrics = Metrics(["/"], Drift((), {}), slots=1)
    metrics.record("/unknown", 418, "teapot", 0.1)
    samples = samples_of(metrics.render()[0].decode())
    assert value(samples, "berth_requests_total", route=OTHER, status=OTHER) == 1
    assert value(samples, "berth_errors_total", code=OTHER) == 1


def test_paths_that_callers_invent_make_no_labels():
    app = make_app()
    for number in range(50):
        call(app, "GET", f"/x{number}")
        call(app, "GET", f"/static/{number}/x{number}.js")
        call(app, f"METHOD{number}", "/invocations")
    samples = scrape_app(app)
    routes = {labels["route"] for name, *pairs in samples if "route" in (labels := dict(pairs))}
    assert routes == {OTHER, "/invocations", "/static/{version}/{name}"}
    assert value(samples, "berth_requests_total", route=OTHER, status="404") == 50
    assert value(samples, "berth_requests_total", **INVOKE, status="405") == 50


def test_pages_and_own_routes_are_counted_by_their_path():
    app = make_app()
    for path in ("/", "/metadata", "/ping", "/openapi.json", "/metrics"):
        call(app, "GET", path)
    samples = scrape_app(app)
    for path in ("/", "/metadata", "/ping", "/openapi.json", "/metrics"):
        assert value(samples, "berth_requests_total", route=path, status="200") == 1


def test_a_client_that_leaves_is_counted_as_gone_and_is_no_longer_in_progress():
    app = make_app()
    assert call(app, "POST", "/invocations", gone=True, content_type="text/csv") is None
    samples = scrape_app(app)
    assert value(samples, "berth_requests_total", **INVOKE, status=str(GONE)) == 1
    assert value(samples, "berth_requests_in_progress") == 1


def test_a_bug_is_counted_as_500_without_rows():
    broken = Constant()
    broken.predict = lambda matrix: 1 / 0
    app = make_app(broken)
    assert call(app, "POST", "/invocations", b"5,0,red,round,", content_type="text/csv")[0] == 500
    samples = scrape_app(app)
    assert value(samples, "berth_requests_total", **INVOKE, status="500") == 1
    assert value(samples, "berth_errors_total", code="error") == 1
    assert value(samples, "berth_rows_total") == 0
    assert value(samples, "berth_feature_choices_total", feature="color", choice="red") == 0


# ---- drift


DRIFT = {
    "at the bounds": ([[1.1, -5, 0, 0, 0], [9.9, 5, 0, 0, 0]], {}),
    "a hair beyond": (
        [[np.nextafter(np.float32(1.1), 0, dtype="f4"), 5.000001, 0, 0, 0]],
        {"size below_minimum": 1, "weight above_maximum": 1},
    ),
    "far out": ([[-3e38, 3e38, 0, 0, 0]] * 3, {"size below_minimum": 3, "weight above_maximum": 3}),
    "missing": ([[5, NAN, NAN, 0, NAN]] * 2, {"weight missing": 2, "color missing": 2, "unseen missing": 2}),
    "a column that training never saw": ([[5, 0, 0, 0, 7e7]], {}),
}


@pytest.mark.parametrize(("rows", "expected"), DRIFT.values(), ids=DRIFT.keys())
def test_values_outside_what_training_saw_are_counted(rows, expected):
    drift = Drift(FEATURES, RANGES)
    counts = drift.count(np.float32(rows))
    found = {
        f"{each.feature} {each.what}": int(n) for each, n in zip(drift.counters, counts, strict=True) if not each.is_choice
    }
    assert {name: count for name, count in found.items() if count} == expected
    assert found.keys() == {
        *("size below_minimum", "size above_maximum", "weight below_minimum", "weight above_maximum"),
        *("weight missing", "color missing", "unseen missing"),
    }


def test_choices_are_counted_and_a_matrix_of_several_blocks_counts_as_its_rows_do():
    drift = Drift(FEATURES, RANGES)
    rng = np.random.default_rng(0)
    matrix = np.float32(rng.normal(5, 5, (2 * BLOCK_ROWS + 3, 5)))
    matrix[:, 2], matrix[:, 3] = rng.choice([0, 1, 2, np.nan], len(matrix)), rng.integers(0, 2, len(matrix))
    expected = {("color", choice): (matrix[:, 2] == index).sum() for index, choice in enumerate(FEATURES[2].choices)}
    expected |= {("shape", choice): (matrix[:, 3] == index).sum() for index, choice in enumerate(FEATURES[3].choices)}
    expected |= {
        ("size", "below_minimum"): (matrix[:, 0] < np.float32(1.1)).sum(),
        ("color", "missing"): np.isnan(matrix[:, 2]).sum(),
    }
    found = dict(zip([(each.feature, each.what) for each in drift.counters], drift.count(matrix), strict=True))
    assert {key: found[key] for key in expected} == expected
    alone = np.sum([drift.count(matrix[row : row + 1]) for row in range(200)], axis=0)
    assert alone.tolist() == drift.count(matrix[:200]).tolist()


def test_drift_of_a_model_with_categories_missing_cells_and_classes_stands_in_the_metrics():
    app = make_app()
    body = b"5,0,red,round,\n0,,,square,\n99,0,blue,square,"
    assert call(app, "POST", "/invocations", body, content_type="text/csv")[0] == 200
    assert call(app, "POST", "/predict", b"5,0,blue,round,", content_type="text/csv")[0] == 200
    samples = scrape_app(app)
    count = lambda **labels: value(samples, "berth_feature_values_total", **labels)  # noqa: E731
    assert value(samples, "berth_rows_total") == 4
    assert (count(feature="size", what="below_minimum"), count(feature="size", what="above_maximum")) == (1, 1)
    assert [count(feature=name, what="missing") for name in ("weight", "color", "unseen")] == [1, 1, 4]
    choices = {dict(key[1:])["choice"]: number for key, number in samples.items() if key[0] == "berth_feature_choices_total"}
    assert choices == {"red": 1, "green": 0, "blue": 2, "round": 2, "square": 2}


def test_a_body_refused_for_its_values_moves_no_counter_of_features(model_dir):
    app = make_app(load_predictor(model_dir))
    assert call(app, "POST", "/invocations", f"0,99,296,15.3,396.9,4.98\n{ROW},7".encode(), content_type="text/csv")[0] == 400
    samples = scrape_app(app)
    assert value(samples, "berth_rows_total") == 0
    assert value(samples, "berth_feature_values_total", feature="RM", what="above_maximum") == 0


# ---- how it is written


def test_every_family_is_described_and_named_as_prometheus_wants_it():
    app = make_app()
    call(app, "POST", "/invocations", b"5,0,red,round,", content_type="text/csv")
    text = call(app, "GET", "/metrics")[2].decode()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("berth_")
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge", "histogram"}
    assert text.endswith("\n")


def test_openmetrics_is_written_to_who_asks_for_it():
    status, media_type, body = call(make_app(), "GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert media_type.startswith(b"application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_library_is_not_loaded_before_it_is_needed(model_dir):
    probe = (
        "import sys; from pathlib import Path; import serving.server; from serving.app import App; "
        "from serving.predictor import load_predictor; from serving.settings import Settings; "
        f"App(load_predictor(Path({str(model_dir)!r})), Settings.from_environ({{}})); print('prometheus_client' in sys.modules)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([os.sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---- no disk


def test_counting_needs_no_disk_at_all(docker, image, trained):  # H-36
    options = ("--read-only", "--tmpfs=/tmp:size=1m", "--shm-size=64k")
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "BERTH_ACCESS_LOG": "true"}
    with serving(Containers(image, docker, options), trained, environ) as running:
        inside = [docker, "exec", running.program.name]
        subprocess.run([*inside, "sh", "-c", "cat /dev/zero > /tmp/full; cat /dev/zero > /dev/shm/full"], capture_output=True)
        assert set(ask_much(running, 4, 50)) == {200}
        samples = scrape(running)
        assert value(samples, "berth_requests_total", **INVOKE, status="200") == 200
        assert value(samples, "berth_workers") == 2
        found = subprocess.run([*inside, "ls", "-A", "/tmp"], capture_output=True, text=True, check=True)
        assert found.stdout.split() == ["full"]


def test_serving_leaves_no_file_in_tmp(trained, tmp_path):
    with two_workers(trained, TMPDIR=str(tmp_path), BERTH_ACCESS_LOG="true") as running:
        assert set(ask_much(running, 4, 10)) == {200}
        assert running.get("/metrics").status == 200
        assert list(tmp_path.iterdir()) == []


# ---- the access log


def lines_of(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"time"')]


def test_a_line_is_written_for_each_request_but_probes_and_nothing_of_a_payload_is_in_it(trained):
    secret = "8.675309"  # of a value, a header and a path
    with two_workers(trained, BERTH_ACCESS_LOG="true") as running:
        assert running.invoke(f"0,{secret},296,15.3,396.9,4.98\n{ROW}".encode()).status == 200
        assert running.invoke(f"0,{secret}x,1,1,1,1".encode()).status == 400
        assert running.get(f"/{secret}").status == 404
        assert running.get(f"/metadata?key={secret}").status == 200
        request = {"X-Amzn-SageMaker-Custom-Attributes": secret, "X-Amzn-SageMaker-Inference-Id": "mine-1"}
        running._call("POST", "/predict", ROW.encode(), {"Content-Type": "text/csv", **request}, 10)
        for _ in range(3):
            running.ping()
            running.get("/metrics")
        wait_until(lambda: len(lines_of(running.program.output())) >= 5)
        time.sleep(0.2)
        output = running.program.output()
    lines = lines_of(output)
    assert secret not in output
    assert [(line["route"], line["status"], line["error"], line["rows"]) for line in lines] == [
        ("/invocations", 200, None, 2),
        ("/invocations", 400, "bad_data", 0),
        (OTHER, 404, "not_found", 0),
        ("/metadata", 200, None, 0),
        ("/predict", 200, None, 1),
    ]
    assert lines[0]["bytes_in"] == len(f"0,{secret},296,15.3,396.9,4.98\n{ROW}")
    assert lines[0]["bytes_out"] > 10
    assert lines[3]["bytes_out"] > 1_000
    assert lines[4]["request_id"] == "mine-1"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"]) for line in lines)
    assert all(0 < line["ms"] < 60_000 and line["method"] in {"GET", "POST"} for line in lines)


def test_the_id_in_an_errors_body_is_that_of_its_line(capfd):
    app = make_app(BERTH_ACCESS_LOG="true")
    body = json.loads(call(app, "POST", "/invocations", b"x", content_type="text/csv")[2])
    (line,) = lines_of(capfd.readouterr().out)
    assert line["request_id"] == body["request_id"]


def test_lines_of_many_workers_and_requests_do_not_mix(trained):
    with two_workers(trained, BERTH_ACCESS_LOG="1") as running:
        ask_much(running, 8, 50)
        time.sleep(0.3)
        output = running.program.output()
    assert len(lines_of(output)) == 400
    assert output.count('{"time"') == 400


def test_no_line_is_written_unless_asked_for(capfd):
    app = make_app()
    call(app, "POST", "/invocations", b"5,0,red,round,", content_type="text/csv")
    assert capfd.readouterr().out == ""


def test_a_log_that_nobody_reads_does_no_harm():
    app = make_app(BERTH_ACCESS_LOG="true")
    read, write = os.pipe()
    os.close(read)
    kept = os.dup(1)
    os.dup2(write, 1)
    try:
        reply = call(app, "POST", "/invocations", b"5,0,red,round,", content_type="text/csv")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(write)
    assert reply[0] == 200


def test_a_bad_value_of_the_setting_is_refused():
    with pytest.raises(BadSetting, match="BERTH_ACCESS_LOG"):
        Settings.from_environ({"BERTH_ACCESS_LOG": "sometimes"})
