"""The rules that only containers can be judged by: reach, words, ports, isolation, each against a container with one fault."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from servers import server

from local_test.conformance import judge
from local_test.rules import RULES, ending, isolation, launch, words
from local_test.runners import Containers
from local_test.subject import Payload, Subject
from local_test.verdicts import Status

PLACE = "/opt/berth/container"
"""Where the image has its words: other programs are mounted over them."""
FAULTS = {
    "none": "",
    "it listens on another port": "PORT = 5000",
    "it listens on loopback": 'HOST = "127.0.0.1"',
    "it asks for an address": """
        def before():
            socket.getaddrinfo("pypi.org", 443)
    """,
    "it writes its model": """
        def before():
            (MODEL / "cache").write_text("")
    """,
    "it writes beside /tmp": """
        def before():
            Path("/var/tmp/state").write_text("")
    """,
    "it shares memory": """
        def before():
            import multiprocessing
            multiprocessing.Lock()
    """,
    "it wants root": """
        def before():
            if os.geteuid():
                sys.exit("not root")
    """,
    "it is large": """
        def before():
            global held
            held = b"1" * 200_000_000
    """,
    "it ignores the port": "PORT = 8080",
    "it listens on more ports": """
        def before():
            global held
            held = socket.create_server(("", 9999))
    """,
    "it serves where a job is laid out": "",
    "it does not serve without a word": "",
    "it has no handler": """
        def run():
            SERVER((HOST, PORT), Handler).serve_forever()
    """,
}
BROKEN = {
    "it listens on another port": ("listens_on_the_port", launch),
    "it listens on loopback": ("listens_on_every_interface", launch),
    "it asks for an address": ("starts_without_network", launch),
    "it writes its model": ("starts_with_a_read_only_model", launch),
    "it writes beside /tmp": ("serves_read_only", isolation),
    "it shares memory": ("serves_without_shared_memory", isolation),
    "it wants root": ("serves_without_root", isolation),
    "it is large": ("serves_in_small", isolation),
    "it ignores the port": ("port_can_be_chosen", words),
    "it listens on more ports": ("other_ports_are_safe", words),
    "it serves where a job is laid out": ("bare_start_trains", words),
    "it does not serve without a word": ("bare_start_serves", words),
    "it has no handler": ("stops_in_time", ending),
}
"""By fault, the rule that finds it, and the part of the rules that it is held against: no other rule there fails."""
TRAIN = """#!/usr/bin/env python3
from pathlib import Path
(Path("/opt/ml/model") / "model.json").write_text("{}")
"""
START = """#!/bin/sh
if [ -d /opt/ml/input/config ]; then exec "${0%/*}/train"; else exec "${0%/*}/serve"; fi
"""
STARTS = {
    "it serves where a job is laid out": '#!/bin/sh\nexec "${0%/*}/serve"\n',
    "it does not serve without a word": START.replace("/serve", "/no-such-program"),
}
"""By fault, what a start without a word runs, where that is not as it should be."""


@pytest.fixture(scope="module")
def judged(docker, image, tmp_path_factory):
    """What is said of each faulty container by its part of the rules, and of the sound one by all."""
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr("local_test.starts.ELSEWHERE_S", 2)
        shorter.setattr("local_test.subject.STOP_S", 1)
        shorter.setattr(ending, "IGNORES_S", 1)
        shorter.setattr(isolation, "SMALL", ("--memory", "100m", "--memory-swap", "100m"))
        folders = {fault: tmp_path_factory.mktemp("subject") for fault in FAULTS}
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda fault: judge_container(image, folders[fault], fault), FAULTS)
            return dict(zip(FAULTS, found, strict=True))


def judge_container(image, folder, fault):
    """Return the verdicts on a container whose `serve` is sound but for one fault, by the rules' names."""
    programs, data = folder / "programs", folder / "data"
    programs.mkdir()
    data.mkdir()
    (data / "rows.csv").write_text("1,2\n")
    for name, text in {"serve": server(FAULTS[fault]), "start": STARTS.get(fault, START), "train": TRAIN}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    folder.chmod(0o755)
    mounted = Containers(image, options=("--volume", f"{programs}:{PLACE}:ro"))
    subject = Subject(mounted, folder, train_data=data, payload=Payload(b"1,2\n" * 50, "text/csv"), start_s=15)
    with closing(subject):
        parts = (BROKEN[fault][1],) if fault in BROKEN else (launch, words, isolation, ending)
        rules = [rule for part in parts for rule in part.RULES]
        return {verdict.rule.name: verdict for verdict in judge(subject, rules)}


def failures(verdicts):
    return {name: verdict.seen for name, verdict in verdicts.items() if verdict.status is Status.FAILED}


def test_a_sound_container_breaks_no_rule(judged):
    told = {name: verdict.seen for name, verdict in judged["none"].items() if verdict.status is not Status.PASSED}
    assert told == {"workers_are_replaced": "it is one process: its death is the container's"}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found_by_its_rule_and_by_no_other(judged, fault):
    told = [
        (name, verdict.status, verdict.seen) for name, verdict in judged[fault].items() if verdict.status is not Status.PASSED
    ]
    assert list(failures(judged[fault])) == [BROKEN[fault][0]], told


@pytest.mark.parametrize(
    ("fault", "evidence"),
    [
        ("it listens on another port", "it listens on 0.0.0.0:5000, and not on port 8080"),
        ("it listens on loopback", "it listens on 127.0.0.1:8080, which only the container itself can reach"),
        ("it asks for an address", "name resolution"),
        ("it writes its model", "with a writable /opt/ml/model it becomes ready"),
        ("it writes beside /tmp", "Read-only file system: '/var/tmp/state'"),
        ("it wants root", "with --user 1000:1000: it ended with exit code 1: not root"),
        ("it ignores the port", "nothing became ready on port 8901; it listens on 0.0.0.0:8080"),
        ("it listens on more ports", "it also listens on 0.0.0.0:9999"),
        ("it serves where a job is laid out", "it has a training job's /opt/ml, and serves"),
        ("it does not serve without a word", "no-such-program: not found"),
        ("it has no handler", "its first process has no handler for it"),
    ],
)
def test_the_evidence_is_what_the_container_did(judged, fault, evidence):
    assert evidence in judged[fault][BROKEN[fault][0]].seen


def test_where_one_profile_fails_the_others_are_judged_by_themselves(judged):
    verdicts = judged["it writes beside /tmp"]
    assert verdicts["serves_in_small"].seen.endswith("it serves with --memory 100m --memory-swap 100m")


@pytest.mark.parametrize("line", ["sleep 60", "exit 0"], ids=["runs whatever the word", "ends well whatever the word"])
def test_a_container_that_takes_any_word_is_found(docker, image, tmp_path, monkeypatch, line):
    monkeypatch.setattr(words, "UNKNOWN_S", 2)
    (tmp_path / "entry").write_text(f"#!/bin/sh\n{line}\n")
    (tmp_path / "entry").chmod(0o755)
    options = ("--volume", f"{tmp_path / 'entry'}:/entry:ro", "--entrypoint", "/entry")
    with closing(Subject(Containers(image, options=options), tmp_path)) as subject:
        rules = [rule for rule in RULES if rule.name == "unknown_word_is_refused"]
        verdicts = {verdict.rule.name: verdict for verdict in judge(subject, rules)}
    assert list(failures(verdicts)) == ["unknown_word_is_refused"]
