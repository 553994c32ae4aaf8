"""Containers with one fault each, for `doctor`: programs that are mounted into one image, and options of `docker run`."""

from __future__ import annotations

from dataclasses import dataclass, field

PACKAGES = "python3 python3-flask gunicorn nginx-light tini"
DOCKERFILE = f"""
FROM debian:trixie-slim
RUN apt-get update && apt-get install --yes --no-install-recommends {PACKAGES} && rm -rf /var/lib/apt/lists/*
RUN python3 -c 'import flask, gunicorn.app.wsgiapp, http.server' && mkdir /open && chmod 777 /open
"""

SERVER = """#!/usr/bin/env python3
import http.server, os, pathlib, signal, socket, subprocess, sys, threading, time, urllib.request
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
HOST, PORT, SERVER = "0.0.0.0", 8080, http.server.ThreadingHTTPServer
pings = 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global pings
        pings += 1
        status, headers = 200, {}
        #PING
        self.answer(status if self.path == "/ping" else 404, headers)

    def do_POST(self):
        status = 200
        #POST
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(status, {})

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

    def version_string(self):
        return "sound"

#START
SERVER((HOST, PORT), Handler).serve_forever()
"""
TRAINER = """#!/usr/bin/env python3
import json, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
ml = pathlib.Path("/opt/ml")
hyperparameters = json.loads((ml / "input/config/hyperparameters.json").read_text())
#START
(ml / "model" / "model.json").write_text("{}")
"""
SHELL = "#!/bin/sh\n"
APP = 'printf \'def app(e, start):\\n    start("200 OK", [])\\n    e["wsgi.input"].read()\\n    return []\\n\' > /tmp/app.py\n'
GUNICORN = "exec gunicorn --chdir /tmp --bind 0.0.0.0:8080 --workers"
NGINX = """cat > /tmp/nginx.conf <<'END'
daemon off; pid /tmp/nginx.pid; error_log stderr;
events {}
http { access_log off;
 client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
 server { listen 8080; location / { return 200 "{}"; } location /invocations { proxy_pass http://127.0.0.1:8080/ping; } }
}
END
exec nginx -e stderr -c /tmp/nginx.conf
"""
FLASK = (
    SHELL
    + """cd /tmp
cat > app.py <<'END'
import flask
app = flask.Flask("app")
app.add_url_rule("/ping", "ping", lambda: "")
app.add_url_rule("/invocations", "invocations", lambda: "", methods=["POST"])
END
exec flask --app app run --host 0.0.0.0 --port 8080
"""
)


NO_NAMES = ("--dns", "127.0.0.1", "--dns-option", "timeout:1", "--dns-option", "attempts:1")
BUSY = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"
DOWNLOAD = 'urllib.request.urlopen("http://{}/model.bin")'


def served(start: str = "", ping: str = "", post: str = "") -> str:
    """Return the program of a sound server with lines of a fault in it."""
    return SERVER.replace("#START", start).replace("#PING", ping).replace("#POST", post)


def trained(start: str) -> str:
    """Return the program of a sound training job with lines of a fault in it."""
    return TRAINER.replace("#START", start)


@dataclass(frozen=True)
class Ailing:
    """A container with one fault."""

    cause: str
    """The name of the function in the table that is to find it first; empty for a sound one."""
    program: str | bytes | None
    """What is mounted as /usr/local/bin/serve, or train; None for nothing."""
    options: tuple[str, ...] = ()
    entrypoint: str = ""
    """A line of a Dockerfile."""
    mode: int = 0o755
    patience_s: float = 20
    model: tuple[str, ...] = ("model.json",)
    word: str = "serve"
    also: frozenset[str] = field(default=frozenset())
    """What is rightly told besides."""


ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (0xB7).to_bytes(2, "little") + bytes(100)
"""The header of a program for arm64."""

CONTAINERS = {
    "a sound server": Ailing("", served()),
    "another port": Ailing("wrong_port", served("PORT = 5000"), patience_s=4),
    "bound to 127.0.0.1": Ailing("bound_to_loopback", served('HOST = "127.0.0.1"'), patience_s=4),
    "a slow start": Ailing("slow_start", served("time.sleep(60)"), patience_s=4),
    "loads the model in /ping": Ailing("loaded_in_ping", served(ping="time.sleep(2.2 if pings == 1 else 0)")),
    "loads the model while health checks wait": Ailing(
        "", f"{SHELL}{APP}echo '{BUSY}' >> /tmp/app.py\n{GUNICORN} 1 --threads 4 app:app\n", patience_s=60
    ),
    "a slow /ping": Ailing("slow_ping", served(ping="time.sleep(1.1)")),
    "a redirect on /ping": Ailing("redirected", served(ping='status, headers = 308, {"Location": "/ping/"}')),
    "no route /ping": Ailing("no_ping", served(ping='self.path = "/health"')),
    "a /ping that fails": Ailing("broken_ping", served(ping="status = 500"), patience_s=4),
    "a file that may not be run": Ailing("not_executable", served(), mode=0o644),
    "an entrypoint in shell form": Ailing(
        "shell_form", served(), entrypoint="ENTRYPOINT serve", also=frozenset({"ignores_stop"})
    ),
    "tini as the entrypoint": Ailing("init_entrypoint", served(), entrypoint='ENTRYPOINT ["/usr/bin/tini", "--"]'),
    "line ends of Windows": Ailing("carriage_returns", served().replace("\n", "\r\n")),
    "a program for arm64": Ailing("wrong_architecture", ELF),
    "a name that is not found": Ailing("needs_network", served(DOWNLOAD.format("models.example")), NO_NAMES),
    "an address that does not answer": Ailing(
        "tried_network", served(DOWNLOAD.format("192.0.2.1")), patience_s=4, also=frozenset({"slow_start"})
    ),
    "files outside /tmp": Ailing("writes_elsewhere", served('pathlib.Path("/var/lib/cache.db").write_text("")')),
    "more memory than there is": Ailing("out_of_memory", served("waste = b'x' * (200 << 20)"), ("--memory", "64m")),
    "no program `serve`": Ailing("not_on_path", None),
    "a missing library of C": Ailing("missing_library", served('import ctypes; ctypes.CDLL("libGL.so.1")')),
    "a missing module": Ailing("import_error", served("import pandas")),
    "code that is no Python": Ailing("syntax_error", served("if True print(1)")),
    "a folder around the model": Ailing(
        "nested_model", served('open("/opt/ml/model/model.json")'), model=("model/model.json",)
    ),
    "a missing model": Ailing("model_missing", served('open("/opt/ml/model/model.bin")')),
    "nginx's limit of 1 MB": Ailing("body_limit_of_nginx", SHELL + NGINX),
    "one worker of gunicorn": Ailing("starving", f"{SHELL}{APP}{GUNICORN} 1 app:app\n"),
    "one thread": Ailing("starving", served("SERVER = http.server.HTTPServer")),
    "Flask's own server": Ailing("development_server", FLASK, also=frozenset({"ignores_stop"})),
    "a server that ignores SIGTERM": Ailing("ignores_stop", served("signal.signal(signal.SIGTERM, signal.SIG_IGN)")),
    "a file of another user's": Ailing("permission_denied", served('open("/etc/x", "w")'), ("--user", "1000")),
    "a port that is taken": Ailing("port_in_use", served("taken = SERVER((HOST, PORT), Handler)")),
    "a missing variable": Ailing("environment_missing", served('os.environ["MODEL_NAME"]')),
    "workers that die": Ailing(
        "crash_loop", f"{SHELL}cd /tmp; echo 'import os; os._exit(9)' > app.py\n{GUNICORN} 1 app:app\n", patience_s=8
    ),
    "a full disk": Ailing("disk_full", served('open("/full/x", "wb").write(bytes(9 << 20))'), ("--tmpfs", "/full:size=1m")),
    "a file beside the model": Ailing("read_only", served('open("/opt/ml/model/cache", "w")')),
    "an interpreter that is missing": Ailing("wrong_interpreter", served().replace("python3", "python2", 1)),
    "a script without `#!`": Ailing("no_interpreter", served().partition("\n")[2]),
    "a server in the background": Ailing("ended_well", f"{SHELL}sleep 60 &\n"),
    "a crash in native code": Ailing("killed_by_signal", served("import ctypes; ctypes.string_at(0)")),
    "no route /invocations": Ailing("no_invocations", served(post="status = 404")),
    "a limit of its own": Ailing(
        "body_limit", served(post='status = 413 if int(self.headers.get("Content-Length")) > 1000000 else 200')
    ),
    "an error nobody knows": Ailing("unexplained", served('raise SystemExit("the moon is in the seventh house")')),
    "a sound job": Ailing("", trained(""), word="train"),
    "no program `train`": Ailing("not_on_path", None, word="train"),
    "a hyperparameter as text": Ailing("strings_for_numbers", trained('range(hyperparameters["epochs"])'), word="train"),
    "another channel": Ailing("wrong_channel", trained('open("/opt/ml/input/data/train/x.csv")'), word="train"),
    "a config file's wrong name": Ailing(
        "wrong_config_name", trained('open("/opt/ml/input/config/resourceConfig.json")'), word="train"
    ),
    "a variable of the toolkit": Ailing(
        "environment_missing", trained('import os; os.environ["SM_CHANNEL_TRAINING"]'), word="train"
    ),
    "no model": Ailing("no_artifacts", trained("sys.exit(0)"), word="train"),
    "packages at run time": Ailing(
        "needs_network",
        trained('import urllib.request; urllib.request.urlopen("https://packages.example/")'),
        word="train",
    ),
}
