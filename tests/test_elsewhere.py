"""The rules of other platforms: kept by who claims them, not applicable to who doesn't, and judged of anybody when asked."""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sound import CSV, JSON, Refused, Served, Servers, Sound, named

from local_test.conformance import judge
from local_test.rules import kserve, platforms
from local_test.runners import Launch, Processes
from local_test.subject import Payload, Subject
from local_test.verdicts import Status, Verdict

OWN = [*platforms.RULES, *kserve.RULES]
# Judged by themselves: what other modules' rules say of the image is theirs.
RULES = [replace(rule, needs=tuple(need for need in rule.needs if need in {own.name for own in OWN})) for rule in OWN]
NAMES = {rule.name for rule in RULES}
KSERVE = {rule.name for rule in kserve.RULES}
INSTANCES = Payload(b'{"instances": [[1, 2, 3], [4, 5, 6.5]]}', JSON)
ROWS = Payload(b"1,2,3\n4,5,6.5\n", CSV)
ALL = frozenset({"vertex", "azure", "kserve", "cloudrun"})
MODEL = {
    "name": "sum",
    "platform": "own",
    "inputs": [{"name": "cells", "shape": [-1, 3], "datatype": "FP32"}],
    "outputs": [{"name": "sum", "shape": [-1], "datatype": "FP32"}],
}
GET = {
    "/ping": {},
    "/v2": {"name": "sound", "version": "1", "extensions": []},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    "/v2/models/sum": MODEL,
    "/v2/models/sum/ready": {"name": "sum", "ready": True},
    "/v1/models": {"models": ["sum"]},
    "/v1/models/sum": {"name": "sum", "ready": True},
}


class Protocols(Sound):
    """Sound on SageMaker, and in both of KServe's protocols."""

    pages = GET

    def get(self) -> None:
        found = self.pages.get(self.path)
        self.document(404, {"error": "there is no such page"}) if found is None else self.document(200, found)

    def post(self) -> None:
        if self.path == self.predict:
            return super().post()
        body = self.body()
        if self.path == "/v2/models/sum/infer":
            return self.infer(json.loads(body).get("inputs"))
        if self.path == "/v1/models/sum:predict":
            return self.document(200, {"predictions": [self.add_up(row) for row in json.loads(body)["instances"]]})
        return self.document(404, {"error": "there is no such path"})

    def infer(self, inputs: list | None) -> None:
        if not inputs:
            return self.document(400, {"error": "no inputs"})
        output = {"name": "sum", "shape": [1], "datatype": "FP32", "data": [sum(inputs[0]["data"])]}
        return self.document(200, {"model_name": "sum", "outputs": [output]})

    def document(self, status: int, document: dict) -> None:
        self.reply(status, json.dumps(document).encode(), JSON)


class Deaf(Sound):
    """Has no page that is asked for."""

    health = "/nowhere"


def everywhere(launch: Launch) -> type[Sound] | None:
    """Start as each platform wants it."""
    environ = launch.environ
    port = environ.get("AIP_HTTP_PORT") or environ.get("PORT") or "8080"
    if launch.words not in {(), ("serve",)} or port != str(launch.port):
        return None
    if environ.get("AIP_HTTP_PORT"):
        routes = {"health": environ["AIP_HEALTH_ROUTE"], "predict": environ["AIP_PREDICT_ROUTE"]}
        return type("Vertex", (Sound,), routes)
    below = environ.get("AZUREML_MODEL_DIR", "/opt/ml")
    return Protocols if any(mount.split(":")[1] == f"{below}/model" for mount in launch.mounts) else None


def sagemaker_alone(launch: Launch) -> type[Sound] | None:
    """End where there is no word."""
    return Sound if launch.words == ("serve",) else None


@pytest.fixture
def verdicts_on(tmp_path: Path):
    """A function: the verdicts on what a function starts, by the rules' names."""

    def judged(handler_of, payload=INSTANCES, asked=frozenset(), stop_s=0.0) -> dict[str, Verdict]:
        servers = Servers(handler_of, stop_s)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with closing(Served(servers, folder, payload=payload, start_s=1, asked=asked)) as subject:
            return {verdict.rule.name: verdict for verdict in judge(subject, RULES, RULES)}

    return judged


@pytest.mark.parametrize("asked", [frozenset(), ALL], ids=["unasked", "asked"])
@pytest.mark.parametrize("payload", [INSTANCES, ROWS], ids=["json", "csv"])
def test_a_container_that_serves_everywhere_passes_everywhere(verdicts_on, payload, asked) -> None:
    verdicts = verdicts_on(everywhere, payload, asked)
    assert {name: verdict.seen for name, verdict in verdicts.items() if verdict.status is not Status.PASSED} == {}
    assert "2 instances, 2 predictions" in verdicts["vertex_predicts_each_instance"].seen


def test_a_container_for_sagemaker_alone_is_judged_by_none(verdicts_on) -> None:
    assert named(verdicts_on(sagemaker_alone), Status.NOT_APPLICABLE) == NAMES


def test_a_container_for_sagemaker_alone_fails_where_it_is_asked_for(verdicts_on) -> None:
    verdicts = verdicts_on(sagemaker_alone, asked=ALL)
    failed = {"vertex_bare_start", "azure_probe_is_answered", "cloud_run_port_and_stop"}
    assert failed <= named(verdicts, Status.FAILED)
    assert {"vertex_predicts_each_instance", "azure_model_is_found"} <= named(verdicts, Status.BLOCKED)
    assert "ended with exit code 1" in verdicts["vertex_bare_start"].seen


def test_neither_of_kserves_protocols_is_a_failure_where_it_is_asked_for(verdicts_on) -> None:
    verdicts = verdicts_on(lambda launch: Sound, asked=frozenset({"kserve"}))
    assert KSERVE & named(verdicts, Status.PASSED) == set()
    assert "v2_health_is_answered" in named(verdicts, Status.FAILED)


def test_one_of_kserves_protocols_is_enough(verdicts_on) -> None:
    class First(Protocols):
        pages = {path: page for path, page in GET.items() if not path.startswith("/v2")}  # noqa: RUF012

    verdicts = verdicts_on(lambda launch: First, asked=frozenset({"kserve"}))
    assert KSERVE & named(verdicts, Status.FAILED) == set()
    assert KSERVE & named(verdicts, Status.PASSED) == {"v1_model_predicts"}


def test_a_server_that_answers_every_path_claims_no_protocol(verdicts_on) -> None:
    class Agreeable(Sound):
        def get(self) -> None:
            self.reply(200, b"<html>", "text/html")

    assert named(verdicts_on(lambda launch: Agreeable), Status.NOT_APPLICABLE) >= KSERVE


@pytest.mark.parametrize(
    ("bare", "told"), [(Deaf, "was not ready within 1 s"), (Sound, "/ping answers 200, and /vertex/health 404")]
)
def test_a_start_that_answers_on_no_route_of_vertex_does_not_claim_it(verdicts_on, bare, told) -> None:
    verdicts = verdicts_on(lambda launch: Sound if launch.words else bare)
    assert verdicts["vertex_bare_start"].status is Status.NOT_APPLICABLE
    assert "--platform vertex" in verdicts["vertex_bare_start"].seen
    assert told in verdicts["vertex_bare_start"].seen


def test_a_prediction_too_few_is_found_on_vertex_and_in_kserve(verdicts_on) -> None:
    def careless(launch: Launch) -> type[Sound] | None:
        found = everywhere(launch)

        class Careless(found):
            def encode(self, values, kind):
                return super().encode(values[:-1], kind)

            def document(self, status, document):
                cut = {name: value[:-1] if name == "predictions" else value for name, value in document.items()}
                super().document(status, cut)

        return Careless

    verdicts = verdicts_on(careless)
    assert named(verdicts, Status.FAILED) == {"vertex_predicts_each_instance", "v1_model_predicts"}
    assert "2 instances were answered with 1 predictions" in verdicts["vertex_predicts_each_instance"].seen


def test_rows_of_csv_that_are_refused_as_instances_are_nobodys_fault(verdicts_on) -> None:
    def strict(launch: Launch) -> type[Sound] | None:
        class Strict(everywhere(launch)):
            def rows(self, body, kind):
                if kind == JSON:
                    raise Refused(400, "names are needed")
                return super().rows(body, kind)

        return Strict

    verdicts = verdicts_on(strict, ROWS)
    assert verdicts["vertex_predicts_each_instance"].status is Status.UNJUDGED
    assert "give the payload as JSON" in verdicts["vertex_predicts_each_instance"].seen
    assert verdicts_on(strict, INSTANCES)["vertex_predicts_each_instance"].status is Status.FAILED


def test_a_container_that_outlives_sigterm_fails_on_cloud_run(verdicts_on, monkeypatch) -> None:
    monkeypatch.setattr(platforms, "CLOUD_RUN_STOP_S", 0.2)
    verdicts = verdicts_on(lambda launch: everywhere(launch) if "PORT" in launch.environ else Sound, stop_s=0.5)
    assert verdicts["cloud_run_port_and_stop"].status is Status.FAILED
    assert "after SIGTERM" in verdicts["cloud_run_port_and_stop"].seen


def test_a_model_that_is_not_found_on_azure_fails_where_it_is_asked_for(verdicts_on) -> None:
    class Lost(Sound):
        def rows(self, body, kind):
            raise RuntimeError("no model in /opt/ml/model")

    def lost(launch: Launch) -> type[Sound]:
        return Lost if "AZUREML_MODEL_DIR" in launch.environ else Sound

    assert verdicts_on(lost)["azure_model_is_found"].status is Status.NOT_APPLICABLE
    verdict = verdicts_on(lost, asked=frozenset({"azure"}))["azure_model_is_found"]
    assert verdict.status is Status.FAILED
    assert "no model in /opt/ml/model" in verdict.seen


def test_a_page_that_comes_before_the_model_is_not_taken_for_readiness_on_azure(verdicts_on) -> None:
    class Slow(Sound):
        pings = itertools.count()

        def get(self):
            late = self.path == "/ping" and next(self.pings) < 3
            self.reply(503 if late else 200, b"", "")

    def slow(launch: Launch) -> type[Sound]:
        return Slow if "AZUREML_MODEL_DIR" in launch.environ else Sound

    verdict = verdicts_on(slow)["azure_probe_is_answered"]
    assert verdict.status is Status.PASSED
    assert "GET /ping" in verdict.seen
    assert next(Slow.pings) > 3


def test_an_output_that_contradicts_its_shape_is_found(verdicts_on) -> None:
    class Short(Protocols):
        def document(self, status, document):
            for output in document.get("outputs", []):
                output["shape"] = [2]
            super().document(status, document)

    verdicts = verdicts_on(lambda launch: Short)
    assert KSERVE & named(verdicts, Status.FAILED) == {"v2_model_predicts"}
    assert "shape [2] and 1 values" in verdicts["v2_model_predicts"].seen


@pytest.mark.parametrize(
    ("page", "found", "rule"),
    [
        ("/v2/health/ready", None, "v2_health_is_answered"),
        ("/v2", {"name": "sound"}, "v2_health_is_answered"),
        ("/v2/models/sum/ready", None, "v2_model_predicts"),
        ("/v1/models/sum", None, "v1_model_predicts"),
    ],
)
def test_a_page_that_is_missing_or_lacks_a_field_is_found(verdicts_on, page, found, rule) -> None:
    changed = type("Changed", (Protocols,), {"pages": {**GET, page: found}})
    assert KSERVE & named(verdicts_on(lambda launch: changed), Status.FAILED) == {rule}


def test_errors_in_other_words_than_the_protocols_are_found(verdicts_on) -> None:
    class Terse(Protocols):
        def infer(self, inputs):
            if not inputs:
                return self.reply(400, b"no inputs", "text/plain")
            return super().infer(inputs)

    verdicts = verdicts_on(lambda launch: Terse)
    assert KSERVE & named(verdicts, Status.FAILED) == {"v2_errors_are_said"}
    assert "an empty request" in verdicts["v2_errors_are_said"].seen


def test_berth_speaks_kserve_as_a_process_and_other_starts_need_an_image(trained: Path, tmp_path: Path, manifest: dict) -> None:
    from local_test.payloads import csv_body

    rules = [replace(rule, needs=tuple(need for need in rule.needs if need in NAMES)) for rule in RULES]
    with closing(Subject(Processes(), tmp_path, payload=Payload(csv_body(manifest), CSV))) as subject:
        subject._made["model"] = (trained / "model", None)
        verdicts = {verdict.rule.name: verdict for verdict in judge(subject, rules)}
    assert named(verdicts, Status.PASSED) >= KSERVE
    assert named(verdicts, Status.UNJUDGED) == NAMES - KSERVE
