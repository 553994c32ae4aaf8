"""More than the server can do at once: slots, deadlines, silent clients, too many connections."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from trees import copy_of_the_tree

from local_test.emulator import Endpoint, serving, stop
from local_test.procfs import children
from local_test.runners import Processes

GOOD = b"0,6.575,296,15.3,396.9,4.98\n"
LONG = GOOD * 10_000
ONE_WORKER = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}


@pytest.fixture(scope="module")
def hurried(trained: Path) -> Iterator[Endpoint]:
    """A server of one worker that waits for nobody."""
    environ = {**ONE_WORKER, "BERTH_QUEUE_TIMEOUT": "0", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "3", "BERTH_KEEPALIVE": "2"}
    with serving(Processes(), trained, environ) as running:
        yield running


def connect(endpoint: Endpoint) -> socket.socket:
    parts = urlsplit(endpoint.program.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def test_with_every_slot_busy_a_long_request_is_told_when_to_come_back(hurried: Endpoint) -> None:
    with ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(lambda _: hurried.invoke(LONG * 5), range(24)))
    statuses = {reply.status for reply in replies}
    assert statuses == {200, 503}
    refused = next(reply for reply in replies if reply.status == 503)
    assert json.loads(refused.body)["error"] == "overloaded"
    assert refused.headers["retry-after"] == "1"


def test_with_every_slot_busy_and_slow_clients_waiting_ping_and_small_requests_are_answered(trained: Path) -> None:
    stop = threading.Event()
    waits = []
    with serving(Processes(), trained, ONE_WORKER) as endpoint, ExitStack() as stack:
        clients = stack.enter_context(ThreadPoolExecutor(4))
        for _ in range(64):
            slow = stack.enter_context(connect(endpoint))
            slow.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: 60\r\n\r\n0")
        stack.callback(stop.set)
        busy = [clients.submit(keep_busy, endpoint, stop) for _ in range(4)]
        for _ in range(20):
            waits.append(endpoint.ping().seconds)
            assert endpoint.invoke(GOOD).status == 200
        stop.set()
        assert sum(future.result() for future in busy) > 0
    assert max(waits) < 2  # H-8


def keep_busy(endpoint: Endpoint, stop: threading.Event) -> int:
    done = 0
    while not stop.is_set():
        assert endpoint.invoke(LONG).status == 200
        done += 1
    return done


def test_a_body_that_does_not_arrive_in_time_is_408(hurried: Endpoint) -> None:
    with connect(hurried) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: 60\r\n\r\n0,6")
        answer = client.recv(4_096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"error":"slow_body"' in answer
        assert client.recv(4_096) == b""  # what is left of the body is nobody's next request


@pytest.mark.parametrize("begin", [b"", b"GET /ping HTTP/1.1\r\nhos"], ids=["silent", "half a header"])
def test_a_client_that_never_finishes_its_headers_is_let_go(hurried: Endpoint, begin: bytes) -> None:
    with connect(hurried) as client:
        client.sendall(begin)
        started = time.monotonic()
        assert client.recv(4_096) == b""
        assert time.monotonic() - started < 10


def test_hundreds_of_silent_clients_hold_up_nobody(endpoint: Endpoint) -> None:
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(connect(endpoint))
        assert endpoint.ping().status == 200
        assert endpoint.invoke(GOOD).status == 200


def test_closed_connections_leave_no_memory_behind(trained: Path) -> None:
    with serving(Processes(), trained, ONE_WORKER) as endpoint:
        (worker,) = children(endpoint.program.pid)

        def many(count: int) -> int:
            for _ in range(count):
                assert endpoint.invoke(GOOD).status == 200
            return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        before = many(500)
        assert many(1_000) < before + 2e6  # 8 MB where each leaves its parser


def test_one_connection_too_many_is_answered_503(trained: Path, tmp_path: Path) -> None:
    """The bound is 12,000 a worker; this copy of the tree has it at 20."""
    tree = copy_of_the_tree(tmp_path)
    code = tree / "serving" / "connection.py"
    bound = "MAX_CONNECTIONS = 12_000"
    assert bound in code.read_text()
    code.write_text(code.read_text().replace(bound, "MAX_CONNECTIONS = 20"))
    with serving(Processes(tree), trained, ONE_WORKER) as endpoint, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(endpoint))
        one_more = stack.enter_context(connect(endpoint))
        assert one_more.recv(4_096).startswith(b"HTTP/1.1 503 ")
        stack.close()
        time.sleep(0.2)
        assert endpoint.ping().status == 200


def test_bodies_together_hold_no_more_memory_than_is_kept_for_them(trained: Path) -> None:
    """Sixteen clients that send all of a 20 MB body but its end: some are refused, and the next request has room again."""
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: 20000001\r\n\r\n"
    environ = {**ONE_WORKER, "BERTH_BODIES_MB": "50", "BERTH_KEEPALIVE": "5"}
    with serving(Processes(), trained, environ) as endpoint, ExitStack() as stack:
        clients = [stack.enter_context(connect(endpoint)) for _ in range(4)]
        answers = list(ThreadPoolExecutor(4).map(lambda client: send_most(client, head), clients))
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) == 2
        stack.close()
        time.sleep(0.5)
        assert endpoint.invoke(LONG).status == 200


def send_most(client: socket.socket, head: bytes) -> bytes:
    client.settimeout(3)
    try:
        client.sendall(head + b"0" * 20_000_000)
        return client.recv(4_096)
    except TimeoutError:
        return b""
    except OSError:
        return client.recv(4_096)


def test_a_stop_does_not_wait_for_a_body_that_never_comes(trained: Path) -> None:
    platform = Processes()
    with serving(platform, trained, ONE_WORKER) as endpoint, connect(endpoint) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: 60\r\n\r\n0")
        time.sleep(0.2)
        started = time.monotonic()
        assert stop(endpoint.program, 30) == 0
        assert time.monotonic() - started < 10  # C-1
