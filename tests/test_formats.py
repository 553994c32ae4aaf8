"""The rules of formats, errors, rows, headers and limits: a sound server keeps all, and each fault is found by its own."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from faults import FAULTS, CutsLarge, LikeNginx
from sound import CSV, JSON, Refused, Served, Servers, Sound, named

from local_test.conformance import judge
from local_test.rules import errors, formats, headers, limits, rows, wire
from local_test.rules.records import instances, padded, table
from local_test.runners import Processes
from local_test.subject import Payload, Subject
from local_test.verdicts import Rule, Status, Verdict

MINE = [*formats.RULES, *errors.RULES, *rows.RULES, *headers.RULES, *limits.RULES]
NAMES = {rule.name for rule in MINE}
RULES = [replace(rule, needs=tuple(need for need in rule.needs if need in NAMES)) for rule in MINE]
"""Without what goes before: here the server is ready."""
ROWS = Payload(b"1,2,3\n4,5,6.5\n", CSV)
HEADED = Payload(b"a,b,c\n1,2,3\n4,5,6.5\n", CSV)
INSTANCES = Payload(b'{"instances": [[1, 2, 3], [4, 5, 6.5]]}', JSON)


@pytest.fixture
def verdicts_on(tmp_path: Path):
    """A function: the verdicts on a server, by the rules' names."""

    def judged(handler: type[Sound], payload: Payload | None = ROWS, rules: list[Rule] = RULES) -> dict[str, Verdict]:
        with closing(Served(Servers(lambda launch: handler), tmp_path, payload=payload, start_s=5)) as subject:
            return {verdict.rule.name: verdict for verdict in judge(subject, rules, RULES)}

    return judged


# Sound servers


@pytest.mark.parametrize("payload", [ROWS, HEADED, INSTANCES], ids=["rows", "headed rows", "instances"])
def test_a_sound_server_breaks_no_rule(verdicts_on, payload) -> None:
    class Headed(Sound):
        def cells(self, text):
            return [row for row in super().cells(text) if row != ["a", "b", "c"]]

    verdicts = verdicts_on(Headed, payload)
    assert {name: verdict.seen for name, verdict in verdicts.items() if verdict.status is Status.FAILED} == {}
    not_csv = {"a_line_a_row", "line_ends_make_no_difference", "missing_cells_do_no_harm"}
    not_csv |= {"header_row_does_no_harm", "wrong_width_is_refused"}
    expected = not_csv if payload is INSTANCES else {"odd_json_does_no_harm"}
    assert named(verdicts, Status.NOT_APPLICABLE) == expected
    assert named(verdicts, Status.UNJUDGED) == set()


def test_without_a_payload_nothing_is_judged_and_nothing_fails(verdicts_on) -> None:
    verdicts = verdicts_on(Sound, None)
    assert named(verdicts, Status.UNJUDGED) == NAMES
    assert "--payload" in verdicts["payload_is_answered"].seen


def test_a_payload_that_is_refused_blocks_all_others_by_its_number(verdicts_on) -> None:
    verdicts = verdicts_on(Sound, Payload(b"1,2\n", CSV))
    assert named(verdicts, Status.FAILED) == {"payload_is_answered"}
    assert named(verdicts, Status.BLOCKED) == NAMES - {"payload_is_answered"}
    assert {verdicts[name].seen for name in named(verdicts, Status.BLOCKED)} == {"blocked by H-11"}
    assert "3 were expected" in verdicts["payload_is_answered"].seen


def test_a_server_that_does_not_look_at_accept_works_and_is_not_said_to_pass(verdicts_on) -> None:
    class Deaf(Sound):
        def wanted(self, kind):
            return kind

    verdicts = verdicts_on(Deaf)
    assert named(verdicts, Status.FAILED) == set()
    assert {"unknown_accept_is_refused", "default_accept_is_read"} <= named(verdicts, Status.NOT_APPLICABLE)


def test_answers_that_are_drawn_are_not_called_a_fault(verdicts_on) -> None:
    class Drawn(Sound):
        def add_up(self, row):
            return time.monotonic_ns()

    verdicts = verdicts_on(Drawn)
    assert named(verdicts, Status.FAILED) == set()
    assert verdicts["same_payload_has_same_answer"].status is Status.UNJUDGED


# Faults


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_by_its_rules_and_by_no_other(verdicts_on, fault: type[Sound]) -> None:
    is_large = any(rule.name in fault.finds for rule in limits.RULES)
    rules = [rule for rule in RULES if is_large or rule.name != "largest_bodies_are_answered"]  # which takes longest
    verdicts = verdicts_on(fault, rules=rules)
    told = {name: verdicts[name].seen for name in named(verdicts, Status.FAILED)}
    assert set(told) == set(fault.finds), told
    blocked = {verdicts[name].seen for name in named(verdicts, Status.BLOCKED)}
    assert blocked <= {f"blocked by {verdicts[name].rule.number}" for name in fault.finds}
    assert not any("the rule itself failed" in verdict.seen for verdict in verdicts.values())


def test_there_is_a_fault_for_every_rule_but_of_json() -> None:
    found = {name for fault in FAULTS for name in fault.finds}
    assert found == NAMES - {"payload_is_answered", "odd_json_does_no_harm"}


def test_json_of_another_shape_that_fails_is_found(verdicts_on) -> None:
    class Trusting(Sound):
        def rows(self, body, kind):
            if body == b"null":
                raise Refused(500, "TypeError: 'NoneType' object is not subscriptable")
            return super().rows(body, kind)

    verdicts = verdicts_on(Trusting, INSTANCES)
    assert named(verdicts, Status.FAILED) == {"odd_json_does_no_harm"}
    assert "a body of null: 500" in verdicts["odd_json_does_no_harm"].seen


def test_nginx_is_named_where_its_limit_refuses_a_body(verdicts_on) -> None:
    seen = verdicts_on(LikeNginx)["common_bodies_are_taken"].seen
    assert "2 MB" in seen
    assert "client_max_body_size" in seen


def test_a_cut_connection_is_told_as_one(verdicts_on) -> None:
    assert "the connection was cut without an answer" in verdicts_on(CutsLarge)["common_bodies_are_taken"].seen


def test_a_server_that_a_request_ended_is_started_again_for_the_rules_to_come(verdicts_on) -> None:
    class Ends(Sound):
        def unreadable(self, error):
            self.server.shutdown()
            self.server.server_close()
            return ConnectionAbortedError()

        def refuse(self, status, message):
            self.close_connection = status == 500
            if status != 500:
                super().refuse(status, message)

    verdicts = verdicts_on(Ends)
    assert named(verdicts, Status.FAILED) == {"odd_requests_are_survived"}
    assert {"pickles_are_not_loaded", "added_headers_make_no_difference"} <= named(verdicts, Status.PASSED)


def test_a_server_that_a_request_holds_up_is_replaced_for_the_rules_to_come(verdicts_on, monkeypatch) -> None:
    class Stuck(Sound):
        def unreadable(self, error):
            self.server.is_stuck = True
            time.sleep(3)

        def get(self):
            if getattr(self.server, "is_stuck", False):
                time.sleep(3)
            super().get()

    monkeypatch.setattr(wire, "PATIENCE_S", 0.5)
    verdicts = verdicts_on(Stuck)
    assert named(verdicts, Status.FAILED) == {"odd_requests_are_survived"}
    assert "no answer within" in verdicts["odd_requests_are_survived"].seen
    assert {"pickles_are_not_loaded", "added_headers_make_no_difference"} <= named(verdicts, Status.PASSED)


# The payload's records


def test_a_header_is_told_from_rows_by_its_lack_of_numbers() -> None:
    assert table(HEADED).head == b"a,b,c\n"
    assert table(ROWS).head == b""
    assert table(Payload(b"a,b\nc,d\n", CSV)).rows == (b"a,b", b"c,d")
    assert table(HEADED).body(3) == b"a,b,c\n1,2,3\n4,5,6.5\n1,2,3\n"


@pytest.mark.parametrize("payload", [ROWS, HEADED, INSTANCES, Payload(b"\x89PNG", "image/png")])
def test_a_padded_body_has_its_size_to_the_byte(payload: Payload) -> None:
    for size in (100_000, 100_001):
        body = padded(payload, size)
        assert len(body) == size
        if payload.content_type == JSON:
            assert json.loads(body) == json.loads(payload.body)
        if payload.content_type == CSV:
            assert {tuple(map(float, row.split(b","))) for row in body.splitlines()[-20:]} == {(1, 2, 3)}


def test_rows_of_csv_are_instances_that_nobody_vouches_for() -> None:
    assert instances(ROWS) == ([[1, 2, 3], [4, 5, 6.5]], False)
    assert instances(INSTANCES) == ([[1, 2, 3], [4, 5, 6.5]], True)
    assert instances(Payload(b"[]", "image/png")) == ([], False)


# Berth


def test_berth_keeps_them_all_as_processes(trained: Path, tmp_path: Path, manifest: dict) -> None:
    from local_test.payloads import csv_body

    payload = Payload(csv_body(manifest), CSV)
    with closing(Subject(Processes(), tmp_path, payload=payload)) as subject:
        subject._made["model"] = (trained / "model", None)
        verdicts = {verdict.rule.name: verdict for verdict in judge(subject, MINE)}
    assert {name: verdict.seen for name, verdict in verdicts.items() if verdict.status is Status.FAILED} == {}
    assert named(verdicts, Status.NOT_APPLICABLE) == {"odd_json_does_no_harm"}
    assert NAMES - named(verdicts, Status.PASSED) == {"odd_json_does_no_harm"}
