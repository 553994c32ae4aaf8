"""A small sound `serve` of the standard library, and the same with a fault: what rules are held against."""

from __future__ import annotations

import textwrap

SOUND = """#!/usr/bin/env python3
import os, signal, socket, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

PORT = int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or 8080)
HOST = "0.0.0.0"
SERVER = ThreadingHTTPServer
MODEL = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / "model"
METRICS = b"# TYPE requests_total counter\\nrequests_total 3\\n"
under_way = 0

class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def ping(self):
        self.answer(200)
    def do_GET(self):
        if self.path == "/ping":
            self.ping()
        else:
            self.answer(*((200, METRICS) if self.path == "/metrics" else (404,)))
    def predict(self):
        self.answer(200, b"1\\n")
    def do_POST(self):
        global under_way
        under_way += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.predict()
        under_way -= 1
    def log_message(self, *words):
        pass

def end(*_):
    ends = time.monotonic() + 5
    while under_way and time.monotonic() < ends:
        time.sleep(0.01)
    os._exit(0)

def stop(*_):
    threading.Thread(target=end).start()

def before():
    pass

def run():
    before()
    signal.signal(signal.SIGTERM, stop)
    SERVER.daemon_threads = True
    server = SERVER((HOST, PORT), Handler)
    server.serve_forever()
"""


def server(fault: str = "") -> str:
    """Return the program, with some of its parts replaced by those of a fault."""
    return SOUND + textwrap.dedent(fault) + "\nrun()\n"
