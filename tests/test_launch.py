"""The rules of starting, health checks and ending, each held against a small server with one fault."""

from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from servers import server

from local_test.conformance import judge
from local_test.rules import RULES, ending, launch, ping
from local_test.runners import Processes
from local_test.subject import Payload, Subject
from local_test.verdicts import Status

FAULTS = {
    "none": "",
    "it ends": """
        def before():
            print("no such setting: X")
            sys.exit(3)
    """,
    "it wants a network": """
        def before():
            print("<urlopen error [Errno -3] Temporary failure in name resolution>")
            sys.exit(1)
    """,
    "it never listens": """
        def before():
            time.sleep(60)
    """,
    "it listens on another port": """
        def before():
            global PORT
            with socket.socket() as probe:
                probe.bind(("", 0))
                PORT = probe.getsockname()[1]
    """,
    "it listens on loopback": """
        HOST = "127.0.0.1"
    """,
    "it is never ready": """
        Handler.ping = lambda self: self.answer(503)
    """,
    "it knows no ping": """
        Handler.ping = lambda self: self.answer(404)
    """,
    "it redirects": """
        def get(self):
            if self.path == "/ping":
                self.answer(307, Location="/ping/")
            else:
                self.answer(200 if self.path == "/ping/" else 404)
        Handler.do_GET = get
    """,
    "it redirects to nothing": """
        Handler.do_GET = lambda self: self.answer(307 if self.path == "/ping" else 404, Location="/ping/")
    """,
    "its ping is slow": """
        def ping(self):
            time.sleep(2.3)
            self.answer(200)
        Handler.ping = ping
    """,
    "its ping loads the model": """
        loaded, lock = [], threading.Lock()
        def ping(self):
            with lock:
                loaded or time.sleep(1.5)
                loaded.append(1)
            self.answer(200)
        Handler.ping = ping
    """,
    "its ping has a body": """
        Handler.ping = lambda self: self.answer(200, b"healthy")
    """,
    "its ping is followed by a failure": """
        asked = []
        def predict(self):
            asked.append(1)
            self.answer(200 if len(asked) > 1 else 500, b"no model yet")
        Handler.predict = predict
    """,
    "it has one thread": """
        SERVER = HTTPServer
    """,
    "it logs pings": """
        Handler.log_message = lambda self, *words: print("GET /ping 200", flush=True)
    """,
    "its metrics are HTML": """
        METRICS = b"<html><body>none</body></html>"
    """,
    "it ignores the signal": """
        def stop(*_):
            pass
    """,
    "it drops what is under way": """
        def stop(*_):
            os._exit(0)
    """,
    "its workers die": """
        def before():
            import http.client
            worker = HTTPServer(("127.0.0.1", 0), Handler)
            if os.fork() == 0:
                worker.serve_forever()
            worker.socket.close()
            def predict(self):
                connection = http.client.HTTPConnection(*worker.server_address, timeout=2)
                connection.request("POST", "/", b"1")
                connection.getresponse().read()
                self.answer(200, b"1")
            Handler.predict = predict
    """,
}
BROKEN = {
    "it ends": {"serve_stays"},
    "it wants a network": {"starts_without_network"},
    "it never listens": {"listens_in_time"},
    "it listens on another port": {"listens_on_the_port"},
    "it listens on loopback": {"listens_on_every_interface"},
    "it is never ready": {"becomes_ready"},
    "it knows no ping": {"becomes_ready"},
    "it redirects": {"ping_is_not_redirected"},
    "it redirects to nothing": {"ping_is_not_redirected"},
    "its ping is slow": {"ping_is_quick"},
    "its ping loads the model": {"model_is_loaded_before_ping"},
    "its ping has a body": {"ping_has_no_body"},
    "its ping is followed by a failure": {"answers_when_ready"},
    "it has one thread": {"ping_passes_unfinished_requests"},
    "it logs pings": {"pings_are_not_logged"},
    "its metrics are HTML": {"metrics_are_readable"},
    "it ignores the signal": {"stops_in_time"},
    "it drops what is under way": {"finishes_requests"},
    "its workers die": {"workers_are_replaced"},
}
"""By fault, the rules that find it; no other one fails."""
BLOCKED_BY = {
    "it ends": "H-1",
    "it wants a network": "M-7",
    "it never listens": "H-7",
    "it listens on another port": "H-2",
    "it listens on loopback": "H-2",
    "it is never ready": "H-7",
    "it knows no ping": "H-7",
    "it redirects": "H-8",
    "it redirects to nothing": "H-8",
    "its ping is slow": "H-8",
    "its ping is followed by a failure": "H-9",
    "it has one thread": "H-9",
    "it ignores the signal": "H-6",
}
"""By fault, what blocks each rule that it leaves nothing to judge."""
PATIENCE_S = {"it listens on another port": 60, "it knows no ping": 60}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """What is said of each faulty server by every rule of starting, health checks and ending."""
    with pytest.MonkeyPatch.context() as shorter:
        shorter.setattr("local_test.starts.ELSEWHERE_S", 1.5)
        shorter.setattr("local_test.subject.STOP_S", 0.5)
        for name, value in {"BUSY_CLIENTS": 2, "BUSY_S": 0.3}.items():
            shorter.setattr(ping, name, value)
        for name, value in {"STOP_SERVING_S": 3, "RECOVERY_S": 2}.items():
            shorter.setattr(ending, name, value)
        folders = {fault: tmp_path_factory.mktemp("tree") for fault in FAULTS}
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda fault: judge_server(folders[fault], FAULTS[fault], PATIENCE_S.get(fault, 5)), FAULTS)
            return dict(zip(FAULTS, found, strict=True))


def judge_server(folder, fault, patience_s):
    """Return the verdicts on a source tree whose `serve` is sound but for one fault, by the rules' names."""
    program = folder / "tree" / "container" / "serve"
    program.parent.mkdir(parents=True)
    program.write_text(server(fault))
    archive = folder / "model.tar.gz"
    with tarfile.open(archive, "w:gz"):
        pass
    subject = Subject(
        Processes(folder / "tree"),
        folder / "work",
        payload=Payload(b"1,2\n" * 50, "text/csv"),
        model_tar=archive,
        start_s=patience_s,
    )
    subject.folder.mkdir()
    with closing(subject):
        rules = [rule for rule in RULES if rule in (*launch.RULES, *ping.RULES, *ending.RULES)]
        return {verdict.rule.name: verdict for verdict in judge(subject, rules)}


def of_status(verdicts, status):
    return {name for name, verdict in verdicts.items() if verdict.status is status}


def test_a_sound_server_breaks_no_rule(judged):
    told = {name: verdict.seen for name, verdict in judged["none"].items() if verdict.status is not Status.PASSED}
    assert told == {"workers_are_replaced": "it is one process: its death is the container's"}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found_by_its_rule_and_by_no_other(judged, fault):
    failed = {name: judged[fault][name].seen for name in of_status(judged[fault], Status.FAILED)}
    assert set(failed) == BROKEN[fault], failed


@pytest.mark.parametrize("fault", BROKEN)
def test_what_a_fault_leaves_nothing_to_judge_of_names_its_number(judged, fault):
    blocked = {judged[fault][name].seen.split(":")[0] for name in of_status(judged[fault], Status.BLOCKED)}
    assert blocked == ({f"blocked by {BLOCKED_BY[fault]}"} if fault in BLOCKED_BY else set())


@pytest.mark.parametrize(
    ("fault", "rule", "evidence"),
    [
        ("it ends", "serve_stays", "exit code 3 after"),
        ("it ends", "serve_stays", "no such setting: X"),
        ("it wants a network", "starts_without_network", "name resolution"),
        ("it listens on loopback", "listens_on_every_interface", "which only the container itself can reach"),
        ("it is never ready", "becomes_ready", "the last GET /ping answered 503"),
        ("it knows no ping", "becomes_ready", "it has no path /ping: GET /ping answered 404"),
        ("it redirects", "ping_is_not_redirected", "GET /ping answered 307, location /ping/"),
        ("its ping is slow", "ping_is_quick", " s; 2 s are allowed"),
        ("its ping is followed by a failure", "answers_when_ready", "the next request was answered 500: no model yet"),
        ("its metrics are HTML", "metrics_are_readable", "<html><body>none"),
        ("its workers die", "workers_are_replaced", "after its workers were killed, and a request has no answer"),
    ],
)
def test_the_evidence_is_what_the_server_did(judged, fault, rule, evidence):
    assert evidence in judged[fault][rule].seen


@pytest.mark.parametrize("fault", ["it listens on another port", "it knows no ping"])
def test_a_server_at_the_wrong_place_is_not_waited_for(judged, fault):
    verdict = judged[fault]["serve_stays"]
    assert verdict.seconds < 30  # of 60 s patience; a quiet machine takes 5


def test_without_a_model_a_server_that_knows_no_ping_is_judged(tmp_path):
    program = tmp_path / "container" / "serve"
    program.parent.mkdir()
    program.write_text(server("Handler.ping = lambda self: self.answer(404)"))
    subject = Subject(Processes(tmp_path), tmp_path, start_s=3)
    with closing(subject):
        verdicts = {verdict.rule.name: verdict for verdict in judge(subject, launch.RULES)}
    assert of_status(verdicts, Status.FAILED) == {"becomes_ready"}


def test_without_a_model_a_server_that_ends_is_not_judged(tmp_path):
    program = tmp_path / "container" / "serve"
    program.parent.mkdir()
    program.write_text("import sys; sys.exit('there is no model')")
    subject = Subject(Processes(tmp_path), tmp_path, start_s=5)
    with closing(subject):
        verdicts = {verdict.rule.name: verdict for verdict in judge(subject, launch.RULES)}
    assert of_status(verdicts, Status.FAILED) == of_status(verdicts, Status.BLOCKED) == set()
    assert "no model was given, and it may want one: --model model.tar.gz" in verdicts["serve_stays"].seen
