"""Containers that nobody here wrote: `conformance` runs over them to its end, and says of them what is known to be true."""

from __future__ import annotations

import re

import pytest
from conftest import long

from local_test.foreign import RECIPES, SERVERS, Server, build, judge, main, report
from local_test.rules import RULES
from local_test.verdicts import Status

# What each server fails in: a rule's name, and how that is known but for `conformance`. (Source: the pinned version's.)
LOGS_PINGS = "its access log has a line a request"
FAILS = {
    "litserve": {
        "ping_has_no_body": "LitServer.health answers `ok`",
        "pings_are_not_logged": LOGS_PINGS,
        "stops_in_time": "LitServer.run has no handler of SIGTERM, and the kernel drops it for process 1",
        "garbage_is_refused": "RegularRequestHandler makes every exception a 500, request.json()'s too",
        "empty_body_is_refused": "as garbage",
        "unheard_type_is_refused": "the body is read as JSON whatever its type",
        "unnamed_type_does_no_harm": "a form is handed over in place of the JSON",
        "odd_json_does_no_harm": "what decode_request raises is a 500",
    },
    "bentoml": {
        "pings_are_not_logged": LOGS_PINGS,
        "serves_read_only": "it makes ~/bentoml, where BENTOML_HOME names no other place",
        "serves_without_root": "it makes ~/bentoml",
        "unheard_type_is_refused": "ALL_SERDE.get takes JSON for every type that it does not know",
    },
    "bentoml-3000": {"listens_on_the_port": "it listens on 3000"},
    "mlserver": {"becomes_ready": "it has no route /ping: 404"},
    "mlserver-routes": {
        "pings_are_not_logged": LOGS_PINGS,
        "serves_read_only": "MLServer makes .metrics where it was started (Settings.metrics_dir)",
        "serves_without_root": "MLServer makes .metrics where it was started",
        "serves_without_shared_memory": "mlserver.parallel talks over multiprocessing's queues, which need semaphores",
        "finishes_requests": "MLServer.stop closes the pool of its workers before the HTTP server",
        "v2_errors_are_said": "handle_mlserver_error is for its own errors: FastAPI's 422 has `detail`, and no `error`",
    },
    "mlflow": {
        "bare_start_serves": "its ENTRYPOINT reads sys.argv[1]",
        "pings_are_not_logged": "nginx and uvicorn each have an access log",
        "serves_read_only": "container/__init__.py links /var/log/nginx/access.log",
        "serves_without_root": "container/__init__.py links /var/log/nginx/access.log",
        "finishes_requests": "_sigterm_handler exits at once, and it is process 1",
        "media_type_is_compared_alone": "scoring_server.invocations compares the type as it is spelled",
        "unnamed_type_does_no_harm": "scoring_server.invocations splits a missing Content-Type: None has no split",
        "errors_have_no_trace": "MlflowException has the stack trace among its JSON",
    },
    "sagemaker-inference": {
        "ping_has_no_body": "Multi Model Server answers {'status': 'Healthy'}",
        "pings_are_not_logged": LOGS_PINGS,
        "serves_read_only": "model_server.py writes /etc/sagemaker-mms.properties",
        "serves_without_root": "model_server.py writes /etc/sagemaker-mms.properties",
        "finishes_requests": "Multi Model Server closes its channels as it ends",
        "media_type_is_compared_alone": "decoder.py looks the whole header up in its table",
        "accept_lists_are_read": "parse_accept cuts at commas and leaves parameters on",
        "unknown_accept_is_refused": "UnsupportedFormatError is no BaseInferenceToolkitError, so 500",
        "garbage_is_refused": "transformer.py answers 500 to every other exception",
        "empty_body_is_refused": "transformer.py answers 500 to every other exception",
        "unheard_type_is_refused": "UnsupportedFormatError is a 500",
        "unnamed_type_does_no_harm": "UnsupportedFormatError is a 500",
        "wrong_width_is_refused": "transformer.py answers 500 to every other exception",
        "header_row_does_no_harm": "transformer.py answers 500 to every other exception",
        "errors_are_short": "the whole stack trace is the body",
        "errors_have_no_trace": "handle_error puts the stack trace into the body",
        "other_methods_do_no_harm": "Multi Model Server hands every method to the handler",
        "pickles_are_not_loaded": "decoder.py: np.load(allow_pickle=True) (contract.md H-20)",
        "output_has_no_blank_lines": "encoder.py: np.savetxt ends the last line too",
    },
}
LESS = {"H-8": "no body", "H-37": "no lines"}
MULTI_MODEL = {rule.name for rule in RULES if rule.number in {"H-23", "H-24"}}
# What holds, and must be said to: not skipped over.
READY = {
    "serve_is_a_program",
    "listens_on_the_port",
    "becomes_ready",
    "ping_is_not_redirected",
    "ping_is_quick",
    "payload_is_answered",
}
HOLDS = {
    "litserve": READY,
    "bentoml": {*READY, "stops_in_time", "metrics_are_readable"},
    "bentoml-3000": {"serve_is_a_program"},
    "mlserver": {"serve_is_a_program", "listens_on_the_port"},
    "mlserver-routes": READY,
    "mlflow": READY,
    "sagemaker-inference": {*READY, *MULTI_MODEL, "port_can_be_chosen", "a_line_a_row"},
}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_a_server_has_a_stage_a_start_and_pins(server: Server) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (RECIPES / "Dockerfile").read_text(), re.MULTILINE)
    assert server.stage in stages
    assert re.fullmatch(r"\d+(\.\d+)+", server.version)
    pins = (RECIPES / server.stage / "requirements.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", pin) for pin in pins)


def test_the_report_counts_all_and_names_what_failed() -> None:
    failed = {"number": "H-6", "title": "serve ends in time", "severity": "fails on SageMaker", "status": "failed"}
    less = [{**failed, "number": number, "title": title, "severity": "wasteful"} for number, title in LESS.items()]
    held = [{"status": "passed"}, {"status": "passed"}, {"status": "not judged"}]
    text = report({"litserve": [*less, {**failed, "seen": "it ran | on\nand on"}, *held], "mlflow": held})
    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")
    }
    assert rows["LitServe"][3:] == ["2", "3", "0", "0", "1"]
    assert rows["container"][3:] == [*Status]
    assert rows["MLflow"][3:] == ["2", "0", "0", "0", "1"]
    assert "- fails on SageMaker: H-6 serve ends in time: it ran \\| on\n- wasteful: H-8 no body; H-37 no lines\n" in text
    assert text.endswith("\n**MLflow**: none failed")


def test_a_name_that_is_none_is_told_with_those_there_are(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["foreign", "litserv"])
    assert main() == 1
    assert "litserv. There are: litserve, bentoml," in capsys.readouterr().err


def test_every_rule_that_is_known_to_fail_or_hold_exists() -> None:
    named = {name for names in (*FAILS.values(), *HOLDS.values()) for name in names}
    assert named <= {rule.name for rule in RULES}


@long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_what_is_said_of_a_server_is_what_is_known_of_it(server: Server, docker: str) -> None:
    verdicts = {verdict["name"]: verdict for verdict in judge(server, build(server, "debian:trixie-slim", docker), docker)}
    failed = {name: verdict["seen"] for name, verdict in verdicts.items() if verdict["status"] == Status.FAILED}
    assert failed.keys() == FAILS[server.name].keys(), failed
    assert {name for name in HOLDS[server.name] if verdicts[name]["status"] != Status.PASSED} == set()
    assert not [name for name, verdict in verdicts.items() if verdict["seen"].startswith("the rule itself failed")]
