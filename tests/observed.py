"""Observations of containers as they might be made, for `doctor`: what is seen, by the name of the cause that explains it."""

from __future__ import annotations

from local_test.doctor.observations import Answer, Observations
from local_test.entry import Entry
from local_test.procfs import Address, Memory

EVERYWHERE = frozenset({Address("0.0.0.0", 8080)})
PING = Answer(0.003, 200)
SCRIPT = Entry("serve", "/usr/local/bin/serve", 0o755, b"#!/usr/bin/env python3\nimport os\n")


def ready(**seen) -> Observations:
    """What is seen of a sound server, but for what is given."""
    sound = {"ready_s": 1.0, "early_pings": (PING,) * 21, "busy_ping": PING, "invoked": PING, "large": Answer(0.1, 400)}
    return Observations(
        "serve", **{"entry": SCRIPT, "listeners": EVERYWHERE, "stop_s": 0.1, "stop_patience_s": 30, **sound, **seen}
    )


def unready(**seen) -> Observations:
    """What is seen of a server that runs and was not ready, but for what is given."""
    return Observations("serve", **{"entry": SCRIPT, "listeners": frozenset(), "seconds": 60, "exit_code": 0, **seen})


def ended(output: str = "", code: int = 1, **seen) -> Observations:
    """What is seen of a server that ended by itself, but for what is given."""
    return Observations("serve", **{"entry": SCRIPT, "output": output, "exit_code": code, "ended": True, **seen})


def job(output: str = "", code: int = 1, **seen) -> Observations:
    """What is seen of a training job that ended, but for what is given."""
    return Observations("train", output=output, exit_code=code, ended=True, **seen)


def entry(head: bytes, mode: int = 0o755, path: str = "/usr/local/bin/serve", *, missing: bool = False) -> Entry:
    """A file that a container begins with."""
    return Entry("serve", path, mode, head, missing)


def pinged(status: int, said: str = "", location: str = "") -> tuple[Answer, ...]:
    """Health checks that all got the same answer."""
    return (Answer(0.01, status, said, location),) * 9


MADE = {
    "wrong_architecture": [ended(architecture="arm64"), ended(entry=entry(b"\x7fELF\2\1" + bytes(12) + b"\xb7\0"))],
    "shell_form": [ready(entrypoint=("/bin/sh", "-c", "python app.py"))],
    "not_on_path": [
        unready(refused="exec failed", entry=entry(b"", path="")),
        unready(refused='exec: "serve": executable file not found in $PATH', entry=None),
    ],
    "not_executable": [
        unready(refused="permission denied", entry=entry(b"#!/bin/sh\n", 0o644)),
        unready(refused='exec: "serve": permission denied', entry=None),
    ],
    "carriage_returns": [
        ended(entry=entry(b"#!/bin/sh\r\n", missing=True)),
        ended("env: 'python3\\r': No such file", entry=None),
    ],
    "wrong_interpreter": [ended(entry=entry(b"#!/usr/bin/python2\n", missing=True))],
    "no_interpreter": [unready(refused="exec format error", entry=entry(b"import os\n"))],
    "out_of_memory": [
        ended(code=137),
        ended(code=1, oom_killed=True),
        unready(memory=Memory(9, 10, 1)),
        unready(output="Worker (pid:8) was sent SIGKILL! Perhaps out of memory?"),
    ],
    "syntax_error": [ended('  File "/app.py", line 3\nSyntaxError: invalid syntax')],
    "no_gpu": [ended("RuntimeError: Found no NVIDIA driver on your system.")],
    "missing_library": [
        ended("ImportError: libGL.so.1: cannot open shared object file: No such file or directory"),
        ended("serve: error while loading shared libraries: libssl.so.1.1: cannot open"),
        ended("/lib/libc.so.6: version `GLIBC_2.38' not found (required by /app)"),
    ],
    "import_error": [
        ended("ModuleNotFoundError: No module named 'flask'"),
        ended("ImportError: cannot import name 'url_quote' from 'werkzeug.urls'"),
    ],
    "unpickled_elsewhere": [
        ended("AttributeError: Can't get attribute 'Scaler' on <module '__main__' from '/usr/bin/gunicorn'>")
    ],
    "environment_missing": [
        ended("  File \"<frozen os>\", line 717, in __getitem__\nKeyError: 'MODEL_NAME'"),
        ended("serve: 3: MODEL_NAME: parameter not set"),
        job("KeyError: 'SM_CHANNEL_TRAIN'\n os.environ"),
    ],
    "strings_for_numbers": [
        job("TypeError: '<' not supported between instances of 'str' and 'int'"),
        job("InvalidParameterError: The 'max_depth' parameter of X must be an int in the range [1, inf). Got '5' instead."),
    ],
    "wrong_config_name": [job("FileNotFoundError: No such file or directory: '/opt/ml/input/config/resourceConfig.json'")],
    "wrong_channel": [job("FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/input/data/train/a.csv'")],
    "nested_model": [
        ended("FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/model/m.bin'", model_files=("model/m.bin",))
    ],
    "model_missing": [
        ended("FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/model/m.bin'"),
        ended('MlflowException: Could not find an "MLmodel" configuration file at "/opt/ml/model/MLmodel"'),
    ],
    "needs_network": [
        ended("socket.gaierror: [Errno -3] Temporary failure in name resolution"),
        unready(output="Could not connect to the endpoint URL: https://s3.amazonaws.com/"),
        job("OSError: [Errno 101] Network is unreachable"),
    ],
    "read_only": [ended("OSError: [Errno 30] Read-only file system: '/opt/ml/model/x'")],
    "permission_denied": [ended("PermissionError: [Errno 13] Permission denied: '/var/log/x'", user="1000")],
    "disk_full": [ended("OSError: [Errno 28] No space left on device")],
    "port_in_use": [ended("OSError: [Errno 98] Address already in use"), ended("Connection in use: ('0.0.0.0', 8080)")],
    "killed_by_signal": [ended(code=139), ended(code=132)],
    "crash_loop": [unready(output="[8] [ERROR] Worker (pid:9) exited with code 9\n" * 2), unready(dead=("python app.py",) * 3)],
    "ended_well": [ended(code=0)],
    "wrong_port": [unready(listeners=frozenset({Address("0.0.0.0", 5000)}))],
    "bound_to_loopback": [
        unready(listeners=frozenset({Address("127.0.0.1", 8080)})),
        unready(listeners={Address("::1", 8080)}),
    ],
    "redirected": [unready(early_pings=pinged(307, location="/ping/"))],
    "speaks_tls": [unready(early_pings=pinged(400, "The plain HTTP request was sent to HTTPS port"))],
    "no_ping": [unready(early_pings=pinged(404))],
    "broken_ping": [unready(early_pings=pinged(500))],
    "loaded_in_ping": [
        ready(early_pings=(Answer(1.7, 200), *(PING,) * 20)),
        ready(early_pings=(Answer(2.0, said="timed out"), *(PING,) * 20)),
    ],
    "slow_ping": [ready(early_pings=(Answer(1.2, 200),) * 21), unready(early_pings=(Answer(1.2, 503),) * 9)],
    "starving": [ready(busy_ping=Answer(2.0, said="timed out")), ready(busy_ping=Answer(0.1, 503))],
    "body_limit_of_nginx": [ready(large=Answer(0.1, 413, "<center>nginx/1.26</center>"))],
    "body_limit": [
        ready(large=Answer(0.1, 413, '{"error": "too large"}', server="gunicorn")),
        ready(large=Answer(0.1, said="RemoteDisconnected: Remote end closed connection without response")),
    ],
    "no_invocations": [ready(invoked=Answer(0.1, 404))],
    "slow_invocation": [ready(has_payload=True, invoked=Answer(60, said="timed out"))],
    "refused_payload": [ready(has_payload=True, invoked=Answer(0.1, 415, "not text/csv"))],
    "unreadable_model": [unready(model_unreadable="model.tar.gz: not a gzip file")],
    "links_in_model": [ready(model_links=("a -> b",))],
    "folder_around_model": [ended("no model", model_files=("model/a", "model/b"))],
    "tried_network": [unready(without_route=4), unready(connecting=frozenset({Address("10.0.0.1", 443)}))],
    "near_memory_limit": [ready(memory=Memory(95, 100, 0))],
    "development_server": [
        ready(output="WARNING: This is a development server. Do not use it in a production deployment."),
        ready(invoked=Answer(0.1, 200, server="Werkzeug/3.1 Python/3.13")),
    ],
    "ignores_stop": [ready(stop_s=None), job(code=0, artifacts=("m",), heeds_stop=False)],
    "init_entrypoint": [ready(entrypoint=("/usr/bin/tini", "--"))],
    "writes_elsewhere": [ready(written=("/var/lib/x",))],
    "no_artifacts": [job(code=0)],
    "slow_start": [
        unready(),
        unready(early_pings=pinged(503)),
        unready(early_pings=(Answer(2.0, said="timed out"),) * 9),
        unready(listeners=frozenset({Address("0.0.0.0", 8081)}), output="HTTP server running on http://0.0.0.0:8080"),
    ],
    "unexplained": [ended("Traceback: the moon"), unready(refused="the engine is out of order")],
}
"""What is seen, by the name of the cause that is to be told first."""
