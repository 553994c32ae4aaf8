"""The rules of batch transform and of multi-model endpoints: each finds its own fault, and no other rule does."""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from threading import Lock

import pytest
from conftest import ROOT
from fakes import LINES, Answer, Answers, Registry, answering, invocations, summing, sums

from local_test import conformance, payloads
from local_test.emulator import Endpoint
from local_test.rules import batch, multimodel
from local_test.runners import Containers, Processes
from local_test.subject import Payload, Subject
from local_test.verdicts import Rule, Status, Verdict

NUMBERS = Payload(b"1,2\n3,4\n5,6\n", "text/csv")
BATCH = [rule.name for rule in batch.RULES]
MODELS = [rule.name for rule in multimodel.RULES]


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Callable[..., dict[str, Verdict]]]:
    """A function: the verdicts by name of rules, and of no others that they need, on servers of this process."""
    with ExitStack() as opened:

        def judged(rules: tuple[Rule, ...], payload: Payload | None = NUMBERS, **servers: Answers) -> dict[str, Verdict]:
            own = {rule.name for rule in rules}
            alone = tuple(replace(rule, needs=tuple(own.intersection(rule.needs))) for rule in rules)
            started = {
                name: opened.enter_context(answering(answers)) for name, answers in {"endpoint": sums, **servers}.items()
            }
            subject = Hosted(Processes(), tmp_path, payload=payload)
            subject.servers.update(started)
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "weights").write_text("1")
            subject.once("model", lambda: tmp_path / "model")
            return {verdict.rule.name: verdict for verdict in conformance.judge(subject, alone, alone)}

        yield judged


@dataclass
class Hosted(Subject):
    """A subject whose servers run already."""

    servers: dict[str, Endpoint] = field(default_factory=dict)

    @property
    def endpoint(self) -> Endpoint:
        return self.servers["endpoint"]

    def kept(self, name: str, environ: Mapping[str, str] | None = None, **options: object) -> Endpoint:
        return self.servers[name.replace("-", "_")]


def names(verdicts: Mapping[str, Verdict], status: Status) -> list[str]:
    return [name for name, verdict in verdicts.items() if verdict.status is status]


# --- batch transform


def offering(status: int, body: bytes) -> Answers:
    return lambda method, path, sent, headers: (
        (status, body, "application/json") if path == "/execution-parameters" else sums(method, path, sent, headers)
    )


def changed(change: Callable[[list[str]], list[str]]) -> Answers:
    """Answer with sums whose lines are changed."""

    def answer(body: bytes) -> Answer:
        status, said, media_type = summing(body)
        return status, "\n".join(change(said.decode().split("\n"))).encode() if status == 200 else said, media_type

    return invocations(answer)


def centered(body: bytes) -> Answer:
    """Fit a mean on the request, as the book does."""
    status, said, media_type = summing(body)
    numbers = [float(line) for line in said.split()] if status == 200 else []
    return status, "\n".join(f"{number - sum(numbers) / len(numbers):g}" for number in numbers).encode(), media_type


def forgiving(body: bytes) -> Answer:
    """Skip lines that can't be read."""
    lines = [said for status, said, _ in map(summing, body.splitlines()) if status == 200]
    return 200, b"\n".join(lines), LINES


def only_many(body: bytes) -> Answer:
    return summing(body) if body.count(b"\n") > 1 else (400, b"send two rows or more", LINES)


BATCH_FAULTS: dict[str, tuple[Answers, str, str]] = {
    "parameters in HTML": (offering(200, b"<html>"), "execution_parameters_can_be_used", "no JSON: '<html>'"),
    "a fault in parameters": (offering(500, b"oops"), "execution_parameters_can_be_used", "answered 500: oops"),
    "a misspelled parameter": (
        offering(200, b'{"MaxPayloadInMb": 6}'),
        "execution_parameters_can_be_used",
        "names MaxPayloadInMb",
    ),
    "too large a product": (
        offering(200, b'{"MaxPayloadInMB": 100, "MaxConcurrentTransforms": 2}'),
        "execution_parameters_can_be_used",
        "200 MB; 100 are allowed",
    ),
    "refused in batch": (
        invocations(lambda _: (415, b"no CSV", LINES)),
        "batch_answers_the_payload",
        "answered 415: no CSV; without it 200",
    ),
    "a record lost": (changed(lambda lines: lines[:-1]), "records_are_answered_in_order", "and 2 came back"),
    "a record twice": (changed(lambda lines: [*lines, lines[0]]), "records_are_answered_in_order", "and 4 came back"),
    "another order": (
        changed(lambda lines: lines[::-1]),
        "records_are_answered_in_order",
        "record 1 is answered '11' among 3 records, and '3' alone",
    ),
    "fitted on the request": (
        invocations(centered),
        "records_are_answered_in_order",
        "record 1 is answered '-4' among 3 records, and '0' alone",
    ),
    "no record alone": (invocations(only_many), "records_are_answered_in_order", "SingleRecord, fails: a mini-batch"),
    "bad records skipped": (
        invocations(forgiving),
        "a_bad_record_shifts_no_other",
        "answered 200 with 2 lines, so that answers match no record",
    ),
    "newlines at the end": (
        invocations(lambda body: summing(body, "\n")),
        "output_has_no_blank_lines",
        "left 3 blank lines",
    ),
}


@pytest.mark.parametrize(("answers", "rule", "words"), BATCH_FAULTS.values(), ids=BATCH_FAULTS)
def test_a_fault_in_batch_is_found_by_its_rule_alone(judged, answers: Answers, rule: str, words: str) -> None:
    verdicts = judged(batch.RULES, batch=answers)
    assert names(verdicts, Status.FAILED) == [rule]
    assert words in verdicts[rule].seen


def test_a_right_server_keeps_every_rule_of_batch_with_parameters_and_without(judged) -> None:
    verdicts = judged(batch.RULES, batch=offering(200, b'{"MaxConcurrentTransforms": 2}'))
    assert names(verdicts, Status.PASSED) == BATCH
    assert "offered: 2 at a time, MultiRecord, 6 MB" in verdicts["execution_parameters_can_be_used"].seen
    assert "3 different answers" in verdicts["records_are_answered_in_order"].seen


def test_no_parameters_at_all_are_the_platforms_defaults(judged) -> None:
    seen = judged(batch.RULES, batch=sums)["execution_parameters_can_be_used"].seen
    assert "answered 404; the platform's defaults" in seen


def test_a_payload_that_no_server_takes_is_another_rules_affair(judged) -> None:
    refuse = invocations(lambda _: (400, b"no", LINES))
    verdicts = judged(batch.RULES, batch=refuse, endpoint=refuse)
    assert names(verdicts, Status.FAILED) == []
    assert "blocked by H-11" in verdicts["batch_answers_the_payload"].seen
    assert verdicts["records_are_answered_in_order"].status is Status.BLOCKED


def test_a_header_in_the_payload_is_no_record(judged) -> None:
    def headed(body: bytes) -> Answer:
        return summing(body.removeprefix(b"a,b\n"))

    verdicts = judged(batch.RULES, Payload(b"a,b\n1,2\n3,4\n5,6", "text/csv"), batch=invocations(headed))
    assert names(verdicts, Status.PASSED) == BATCH


def test_answers_that_are_never_the_same_say_nothing_of_order(judged) -> None:
    chance = random.Random(0)
    verdicts = judged(batch.RULES, batch=changed(lambda lines: [str(chance.random()) for _ in lines]))
    assert names(verdicts, Status.FAILED) == []
    assert "differently each time" in verdicts["records_are_answered_in_order"].seen


def test_numbers_may_differ_in_their_last_digits(judged) -> None:
    def rounded(lines: list[str]) -> list[str]:
        return [f"{float(line) * (1 + len(lines) * 1e-6):.9f}" for line in lines]

    assert names(judged(batch.RULES, batch=changed(rounded)), Status.FAILED) == []


@pytest.mark.parametrize("kind", ["text/csv", "application/jsonlines"])
def test_a_server_that_answers_lines_with_one_document_does_not_claim_joins(judged, kind: str) -> None:
    verdicts = judged(batch.RULES, Payload(b"1\n2\n3\n", kind), batch=invocations(lambda _: (200, b"[1]", "application/json")))
    assert names(verdicts, Status.FAILED) == []
    assert verdicts["records_are_answered_in_order"].status is Status.NOT_APPLICABLE


def test_records_of_json_lines_are_judged_as_rows_of_csv_are(judged) -> None:
    def double(body: bytes) -> Answer:
        try:
            found = [2 * json.loads(line) for line in body.split(b"\n") if line]
        except ValueError:
            return 400, b"no JSON", LINES
        return 200, "\n".join(map(str, found)).encode(), "application/jsonlines"

    verdicts = judged(batch.RULES, Payload(b"1\n2\n3\n", "application/jsonlines"), batch=invocations(double))
    assert names(verdicts, Status.PASSED) == BATCH


@pytest.mark.parametrize(
    ("payload", "words"),
    [(None, "--payload FILE"), (Payload(b"[1]", "application/json"), "cut at newlines; the payload is application/json")],
    ids=["none", "JSON"],
)
def test_without_a_payload_of_lines_records_are_not_judged(judged, payload: Payload | None, words: str) -> None:
    verdicts = judged(batch.RULES, payload, batch=invocations(lambda _: (200, b"1", "application/json")))
    assert names(verdicts, Status.FAILED) == []
    assert verdicts["records_are_answered_in_order"].status is Status.UNJUDGED
    assert words in verdicts["records_are_answered_in_order"].seen


# --- multi-model endpoints


class TakesTwice(Registry):
    def load(self, body: bytes) -> Answer:
        answer = super().load(body)
        return (200, b"", LINES) if answer[0] == 409 else answer


class LosesOnSecond(Registry):
    def load(self, body: bytes) -> Answer:
        answer = super().load(body)
        if answer[0] == 409:
            del self.models[json.loads(body)["model_name"]]
        return answer


class LoadsNothing(Registry):
    def load(self, body: bytes) -> Answer:
        return 500, b"no weights", LINES


class ListsNames(Registry):
    def list(self, token: str) -> Answer:
        return self.document({"models": list(self.models)})


class ListsForEver(Registry):
    def list(self, token: str) -> Answer:
        return self.document({"models": [], "nextPageToken": "0"})


class ListsOnePage(Registry):
    page_size = 1

    def list(self, token: str) -> Answer:
        document = json.loads(super().list(token)[1])
        document.pop("nextPageToken", None)
        return self.document(document)


class KnowsAll(Registry):
    def describe(self, name: str) -> Answer:
        return self.document({"modelName": name, "modelUrl": self.models.get(name, "")})


class HasNoDescription(Registry):
    def describe(self, name: str) -> Answer:
        return 405, b"", LINES


class FailsToAnswer(Registry):
    def invoke(self, name: str, body: bytes) -> Answer:
        return (500, b"no such tensor", LINES) if name in self.models else (404, b"", LINES)


class AnswersForAll(Registry):
    def invoke(self, name: str, body: bytes) -> Answer:
        return summing(body)


class NeverUnloads(Registry):
    def unload(self, name: str) -> Answer:
        return 200, b"", LINES


class UnloadsWhatIsNotThere(Registry):
    def unload(self, name: str) -> Answer:
        super().unload(name)
        return 200, b"", LINES


class HasNoUnload(Registry):
    def unload(self, name: str) -> Answer:
        return 405, b"", LINES


class LoadsAnything(Registry):
    def exists(self, url: str) -> bool:
        return True


class AsksForRoom(Registry):
    def load(self, body: bytes) -> Answer:
        answer = super().load(body)
        return answer if answer[0] in {200, 409} else (507, b"", LINES)


class ListsBeforeItLoads(Registry):
    def load(self, body: bytes) -> Answer:
        answer = super().load(body)
        if answer[0] == 404:
            self.models[json.loads(body)["model_name"]] = ""
        return answer


class TwoWorkers:
    """Two processes that know nothing of each other, asked in turn."""

    def __init__(self) -> None:
        self.workers = (Registry(), Registry())
        self.turn = count()
        self.lock = Lock()

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        with self.lock:
            return self.workers[next(self.turn) // 3 % 2](method, path, body, headers)


MODEL_FAULTS: dict[Callable[[], Answers], tuple[str, str]] = {
    LoadsNothing: ("a_model_can_be_loaded", "POST /models answered 500, not 200: no weights"),
    TwoWorkers: ("every_worker_knows_the_models", "connections did not find the same model"),
    TakesTwice: ("a_model_is_loaded_once", "of a name that is loaded answered 200, not 409"),
    LosesOnSecond: ("a_model_is_loaded_once", "after a second POST /models answered 404, not 200"),
    ListsNames: ("loaded_models_are_listed", '"modelName": ".."'),
    ListsForEver: ("loaded_models_are_listed", "still gives a nextPageToken after 50 pages"),
    ListsOnePage: ("loaded_models_are_listed", "gives None as modelUrl of"),
    KnowsAll: ("a_model_is_described", "of a name that is not loaded answered 200, not 404"),
    HasNoDescription: ("a_model_is_described", "answered 405, not 200"),
    FailsToAnswer: ("a_model_answers", "answered 500, not 200: no such tensor"),
    AnswersForAll: ("a_model_that_is_not_loaded_is_404", "answered 200, not 404"),
    NeverUnloads: ("a_model_can_be_unloaded", "DELETE /models/{name} of a name that is not loaded answered 200, not 404"),
    UnloadsWhatIsNotThere: ("a_model_can_be_unloaded", "of a name that is not loaded answered 200, not 404"),
    HasNoUnload: ("a_model_can_be_unloaded", "DELETE /models/{name} answered 405, not 200"),
    LoadsAnything: ("a_bad_load_harms_nothing", "a url that does not exist answered 200"),
    AsksForRoom: ("a_bad_load_harms_nothing", "answered 507; an error other than 409 and 507"),
    ListsBeforeItLoads: ("a_bad_load_harms_nothing", "of a model that could not be loaded answered 200, not 404"),
}


@pytest.mark.parametrize(
    ("make", "rule", "words"),
    [(make, *told) for make, told in MODEL_FAULTS.items()],
    ids=[make.__name__ for make in MODEL_FAULTS],
)
def test_a_fault_of_a_multi_model_server_is_found_by_its_rule_alone(
    judged, make: Callable[[], Answers], rule: str, words: str
) -> None:
    verdicts = judged(multimodel.RULES, multi_model=make())
    assert names(verdicts, Status.FAILED) == [rule]
    assert words in verdicts[rule].seen


FORKED = f"""
import os, signal, sys
from http.server import ThreadingHTTPServer

sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from fakes import Registry, handler

server = ThreadingHTTPServer(("", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), handler(Registry()))
child = os.fork()
if child:
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGKILL), os._exit(0)))
server.serve_forever()
"""


def test_two_processes_behind_one_port_that_share_nothing_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "container").mkdir()
    (tmp_path / "container" / "serve").write_text(FORKED)
    model = archive(tmp_path, tmp_path)
    with closing(Subject(Processes(tmp_path), tmp_path / "run", payload=NUMBERS, model_tar=model)) as subject:
        verdicts = {verdict.rule.name: verdict for verdict in conformance.judge(subject, multimodel.RULES)}
    assert names(verdicts, Status.FAILED) == ["every_worker_knows_the_models"]


def test_what_could_not_be_loaded_blocks_the_rules_that_load(judged) -> None:
    verdicts = judged(multimodel.RULES, multi_model=LoadsNothing())
    assert names(verdicts, Status.PASSED) == [
        "starts_without_a_model",
        "a_model_that_is_not_loaded_is_404",
        "a_bad_load_harms_nothing",
    ]
    assert verdicts["loaded_models_are_listed"].seen == "blocked by H-24"


def test_a_right_registry_keeps_every_rule_of_multi_model_endpoints(judged) -> None:
    verdicts = judged(multimodel.RULES, multi_model=Registry())
    assert names(verdicts, Status.PASSED) == MODELS
    assert "what /invocations does" in verdicts["a_model_answers"].seen


def test_a_payload_that_the_model_never_takes_is_another_rules_affair(judged) -> None:
    verdicts = judged(multimodel.RULES, endpoint=invocations(lambda _: (400, b"no", LINES)), multi_model=FailsToAnswer())
    assert names(verdicts, Status.FAILED) == []
    assert "blocked by H-11" in verdicts["a_model_answers"].seen


def test_without_a_payload_loading_is_judged_and_asking_is_not(judged) -> None:
    verdicts = judged(multimodel.RULES, None, multi_model=Registry())
    assert names(verdicts, Status.UNJUDGED) == ["a_model_answers", "a_model_that_is_not_loaded_is_404"]
    assert names(verdicts, Status.FAILED) == []


SERVE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404)
        self.end_headers()

if os.environ.get("SAGEMAKER_MULTI_MODEL") or os.environ.get("SAGEMAKER_BATCH"):
    sys.exit("There is no model in model/")
HTTPServer(("", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def test_a_server_that_starts_at_an_endpoint_alone_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "container").mkdir()
    (tmp_path / "container" / "serve").write_text(SERVE)
    with closing(
        Subject(Processes(tmp_path), tmp_path / "run", payload=NUMBERS, model_tar=archive(tmp_path, tmp_path))
    ) as subject:
        verdicts = {verdict.rule.name: verdict for verdict in conformance.judge(subject, (*batch.RULES, *multimodel.RULES))}
    assert names(verdicts, Status.FAILED) == ["batch_starts", "starts_without_a_model"]
    assert "There is no model in model/" in verdicts["starts_without_a_model"].seen
    assert verdicts["records_are_answered_in_order"].seen == "blocked by H-25"
    assert verdicts["a_model_can_be_loaded"].seen == "blocked by H-23"


# --- Berth


def archive(folder: Path, target: Path) -> Path:
    path = target / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for part in folder.iterdir():
            if part != path:
                tar.add(part, part.name)
    return path


def all_of_berth(platform: Containers | Processes, model: Path, manifest: dict, folder: Path) -> list[Verdict]:
    payload = Payload(payloads.csv_body(manifest), "text/csv")
    with closing(Subject(platform, folder, payload=payload, model_tar=archive(model, folder))) as subject:
        return list(conformance.judge(subject, (*batch.RULES, *multimodel.RULES)))


def test_berth_keeps_every_rule_as_processes(model_dir: Path, manifest: dict, tmp_path: Path) -> None:
    verdicts = all_of_berth(Processes(), model_dir, manifest, tmp_path)
    assert [(verdict.rule.name, verdict.seen) for verdict in verdicts if verdict.status is not Status.PASSED] == []


def test_berths_image_keeps_every_rule(docker: str, image: str, model_dir: Path, manifest: dict, tmp_path: Path) -> None:
    verdicts = all_of_berth(Containers(image, docker), model_dir, manifest, tmp_path)
    assert [(verdict.rule.name, verdict.seen) for verdict in verdicts if verdict.status is not Status.PASSED] == []
