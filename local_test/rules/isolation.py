"""Starts with less than a plain container has: no writable root, no root user, no shared memory, one CPU and 1 GB.

One start has all that root can be denied: where it is sound, each rule is kept. Only where it is not, each is tried alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from local_test.starts import Start
from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Violated

READ_ONLY = ("--read-only", "--tmpfs", "/tmp")  # noqa: S108  # a place in the container
NO_SHM = ("--ipc", "none")
"""A namespace of its own, in which /dev/shm is not mounted."""
SMALL = ("--cpus", "1", "--memory", "1g", "--memory-swap", "1g")
USER = ("--user", "1000:1000")


def serves_read_only(subject: Subject) -> str:
    """Judge whether nothing but /tmp is written to."""
    return _judge(subject, READ_ONLY)


def serves_without_shared_memory(subject: Subject) -> str:
    """Judge whether it does without /dev/shm, as on serverless endpoints."""
    return _judge(subject, NO_SHM)


def serves_in_small(subject: Subject) -> str:
    """Judge whether it fits the smallest serverless endpoint."""
    return _judge(subject, SMALL)


def serves_without_root(subject: Subject) -> str:
    """Judge whether it starts as a user without rights, which Kubernetes' restricted profile wants."""
    return _judge_alone(subject, USER)


def _judge(subject: Subject, options: tuple[str, ...]) -> str:
    together = (*READ_ONLY, *NO_SHM, *SMALL)
    if _fault(subject, together):
        return _judge_alone(subject, options)
    return f"it serves with {' '.join(options)} (tried at once: {' '.join(together)})"


def _judge_alone(subject: Subject, options: tuple[str, ...]) -> str:
    fault = _fault(subject, options)
    if fault:
        raise Violated(f"with {' '.join(options)}: {fault}")
    return f"it serves with {' '.join(options)}"


def _fault(subject: Subject, options: tuple[str, ...]) -> str:
    """Return what goes wrong in a start with some options; nothing where it serves."""
    _ = subject.containers

    def make() -> str:
        model = _readable(subject) if options[0] == "--user" else None
        with subject.watched(options=options, model=model) as start:
            return _fault_of(subject, start)

    return subject.once(" ".join(options), make)


def _fault_of(subject: Subject, start: Start) -> str:
    try:
        endpoint = start.ready()
    except Violated as error:
        return str(error)
    first = subject.first_start.first
    if isinstance(first, str) or first.status != 200 or subject.payload is None:
        return ""  # there is no payload, or none that is answered elsewhere
    reply = endpoint.invoke(subject.payload.body, subject.payload.content_type)
    return "" if reply.status == 200 else f"a request is answered {reply.status}: {reply.text[:300]}"


def _readable(subject: Subject) -> Path:
    """Return the model in files that everybody may read, as platforms without root lay it out."""
    model = subject.folder / "readable" / "model"
    if not model.exists():
        shutil.copytree(subject.model, model)
        for path in (model, *model.rglob("*")):
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    return model


READY = ("becomes_ready",)

RULES = (
    Rule(
        "H-4",
        "serve writes to /tmp only",
        Severity.ELSEWHERE,
        "Write below /tmp: caches, sockets, process numbers, logs; set HOME and the libraries' cache variables to it.",
        serves_read_only,
        READY,
    ),
    Rule(
        "H-33",
        "serve does without /dev/shm",
        Severity.SAGEMAKER,
        "Serverless endpoints have none: no multiprocessing locks or queues there; gunicorn: no --worker-tmp-dir /dev/shm.",
        serves_without_shared_memory,
        READY,
    ),
    Rule(
        "H-33",
        "serve does with one CPU and 1 GB",
        Severity.WASTEFUL,
        "Start fewer workers where there is little memory; serverless endpoints begin at 1 GB.",
        serves_in_small,
        READY,
    ),
    Rule(
        "C-2",
        "serve does without root",
        Severity.ELSEWHERE,
        "Give everybody read and execute rights on what is in the image; bind no port below 1024; write below /tmp only.",
        serves_without_root,
        READY,
    ),
)
