"""What an image says of itself and what is started for its words, seen without starting it: T-1, T-3, T-5, T-7, H-1 to H-3."""

from __future__ import annotations

import difflib
import posixpath
from typing import Any

from local_test.entry import Entry, read_entry
from local_test.runners import Processes
from local_test.subject import CAPABILITIES, Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Unjudged, Violated

SHELLS = {"sh", "bash", "dash", "ash"}
INITS = {"tini", "tini-static", "docker-init"}
KNOWN = ("accept-bind-to-port", "multi-models", "bidirectional-streaming")
"""H-2, H-23, H-22."""
ROOTS = {"", "0", "root"}
OCI = "application/vnd.oci.image."


def train_is_a_program(subject: Subject) -> str:
    """Judge whether the engine finds something to start for `train`; an image may be for serving alone."""
    try:
        return _program(subject, "train")
    except _NotThere as error:
        if subject.train_data is None:
            raise DoesNotApply(f"{error}, and no --train-data was given: it is an image for serving") from error
        raise


def serve_is_a_program(subject: Subject) -> str:
    """Judge whether the engine finds something to start for `serve`."""
    return _program(subject, "serve")


def entrypoint_takes_the_word(subject: Subject) -> str:
    """Judge whether ENTRYPOINT is a program and no line for a shell, which would swallow the word and the signals."""
    if isinstance(subject.platform, Processes):
        return "a source tree has no ENTRYPOINT"
    words = _config(subject).get("Entrypoint") or []
    if _is_shell_line(words) and not any(sign in words[2] for sign in ("$@", "$*", "$0")):
        raise Violated(f"ENTRYPOINT is a line for a shell: {' '.join(words)}; the word is lost, and so are signals")
    return f"ENTRYPOINT is {words}" if words else "there is no ENTRYPOINT: the word itself is started"


def entrypoint_is_no_init(subject: Subject) -> str:
    """Judge whether ENTRYPOINT is an init program that the platform's guide says not to use."""
    words = _config(subject).get("Entrypoint") or []
    if words and posixpath.basename(words[0]) in INITS:
        raise Violated(f"ENTRYPOINT is {words}: tini takes `train` and `serve` for itself")
    return f"ENTRYPOINT is {words}" if words else "there is no ENTRYPOINT"


def command_is_no_shell_line(subject: Subject) -> str:
    """Judge whether what a start without a word runs gets the signals."""
    words = _config(subject).get("Cmd") or []
    if not words:
        raise DoesNotApply("there is no CMD")
    if _is_shell_line(words) and not words[2].lstrip().startswith("exec "):
        raise Violated(f"CMD is a line for a shell: {' '.join(words)}; a SIGTERM does not arrive")
    return f"CMD is {words}"


def nothing_is_baked_in(subject: Subject) -> str:
    """Judge whether files lie where the platform's mounts hide them; /opt/ml/code is the toolkits' own place."""
    found = [
        member.name
        for member in subject.contents.below("/opt/ml")
        if not member.isdir() and not member.name.startswith("/opt/ml/code/")
    ]
    if found:
        raise Violated(f"{len(found)} files lie below /opt/ml, such as {', '.join(sorted(found)[:3])}")
    return "no file lies below /opt/ml where a mount would hide it"


def architecture_is_amd64(subject: Subject) -> str:
    """Judge what processor the image says it is for."""
    inspected = subject.inspected
    found = f"{inspected.get('Os')}/{inspected.get('Architecture')}"
    if found != "linux/amd64":
        raise Violated(f"the image is for {found}")
    return f"the image is for {found}"


def manifest_is_accepted(subject: Subject) -> str:
    """Judge the media type that the image would be pushed with, where the engine keeps one."""
    kind = stored_media_type(subject.inspected)
    if kind is None:
        return (
            "the engine keeps no manifest: `docker push` writes Docker's, schema 2; what buildx pushes itself isn't seen here"
        )
    if kind.startswith(OCI):
        raise Violated(f"the image is stored as {kind}, and is pushed so")
    return f"the image is stored as {kind}"


def labels_are_well_formed(subject: Subject) -> str:
    """Judge how the image writes its claims; each claim is judged by rules of its own."""
    claims = {name: value for name, value in subject.labels.items() if name.startswith(CAPABILITIES)}
    if not claims:
        raise DoesNotApply(f"the image has no label {CAPABILITIES}…")
    for name, value in claims.items():
        if value not in {"true", "false"}:
            raise Violated(f"label {name} is {value!r}; only true and false are understood")
        meant = difflib.get_close_matches(name.removeprefix(CAPABILITIES), KNOWN, 1, 0.8)
        if meant and name.removeprefix(CAPABILITIES) not in KNOWN:
            raise Violated(f"label {name} is read by nobody; {CAPABILITIES}{meant[0]} is probably meant")
    return ", ".join(f"{name}={value}" for name, value in claims.items())


def user_is_root(subject: Subject) -> str:
    """Judge whom the image starts as."""
    user = _config(subject).get("User") or ""
    if not starts_as_root(subject):
        raise Violated(f"USER is {user}: model and channel files arrive owned by root")
    return "USER is root" + ("" if user else ", as none is named")


def starts_as_root(subject: Subject) -> bool:
    """Say whether the image starts as root."""
    return str(_config(subject).get("User") or "").partition(":")[0] in ROOTS


def fault_of(entry: Entry) -> str:
    """Say why an engine can't start a file; nothing where it can."""
    if not entry.path:
        return f"there is no {entry.asked} on PATH"
    if not entry.mode & 0o111:
        return f"{entry.path} is not executable: its mode is {entry.mode & 0o777:o}"
    if entry.is_program:
        return ""
    if not entry.interpreter:
        return f"{entry.path} is neither a program nor a script whose first line begins with #!"
    if entry.head.partition(b"\n")[0].endswith(b"\r"):
        first = entry.head.partition(b"\n")[0].decode("utf-8", "replace")
        return f"{entry.path} has Windows line ends: its interpreter is taken to be {first[2:]!r}"
    if entry.interpreter_missing:
        return f"{entry.path} is to be run by {' '.join(entry.interpreter)}, and that is not in the image"
    return ""


def stored_media_type(inspected: dict[str, Any]) -> str | None:
    """Return an image's media type from what the engine says of it; None where the engine keeps layers only.

    Docker's older store writes a manifest at each push; its containerd store keeps the one that was built and shows it as
    `Descriptor`; Podman calls it `ManifestType`.
    """
    described = inspected.get("Descriptor") or {}
    return described.get("mediaType") or inspected.get("ManifestType") or None


class _NotThere(Violated):
    """What is to be started is nowhere."""


def _config(subject: Subject) -> dict[str, Any]:
    return dict(subject.inspected["Config"])


def _is_shell_line(words: list[str]) -> bool:
    return len(words) > 2 and posixpath.basename(words[0]) in SHELLS and words[1] in {"-c", "-lc", "-ec"}


def _program(subject: Subject, word: str) -> str:
    """Judge the file that is started for a word: the word's own, or ENTRYPOINT's."""
    if isinstance(subject.platform, Processes):
        return f"a source tree's container/{word} is started by this Python"
    entry = read_entry(subject.containers, _config(subject), word)
    if entry is None:
        raise Unjudged("the engine can't make a container to look into")
    fault = fault_of(entry)
    if fault:
        raise (Violated if entry.path else _NotThere)(fault)
    return f"{entry.asked} is {entry.path}, " + ("a program" if entry.is_program else f"run by {' '.join(entry.interpreter)}")


PROGRAM = "Put an executable file of that name on PATH: chmod +x, a first line such as #!/usr/bin/env python3, Unix line ends."

RULES = (
    Rule("T-1", "train is a program on PATH", Severity.SAGEMAKER, PROGRAM, train_is_a_program),
    Rule("H-1", "serve is a program on PATH", Severity.SAGEMAKER, PROGRAM, serve_is_a_program),
    Rule(
        "T-3",
        "ENTRYPOINT takes the platform's word",
        Severity.SAGEMAKER,
        'Write it as a list: ENTRYPOINT ["python3", "/app/entry.py"], or leave it away and have train and serve on PATH.',
        entrypoint_takes_the_word,
    ),
    Rule(
        "T-3",
        "ENTRYPOINT is not tini",
        Severity.SAGEMAKER,
        "Start the program itself, and let it handle SIGTERM and its children.",
        entrypoint_is_no_init,
    ),
    Rule(
        "T-3",
        "CMD gets the signals of a start without a word",
        Severity.ELSEWHERE,
        'Write it as a list: CMD ["serve"].',
        command_is_no_shell_line,
    ),
    Rule(
        "T-5",
        "no file lies below /opt/ml",
        Severity.SAGEMAKER,
        "Put code elsewhere, such as /opt/program; models come from the model's archive.",
        nothing_is_baked_in,
    ),
    Rule(
        "T-7", "the image is for linux/amd64", Severity.SAGEMAKER, "Build with --platform linux/amd64.", architecture_is_amd64
    ),
    Rule(
        "T-7",
        "the manifest's media type is Docker's",
        Severity.SAGEMAKER,
        "Build with --provenance=false --sbom=false and --output type=docker; with Podman, --format docker.",
        manifest_is_accepted,
    ),
    Rule("H-2", "capability labels are well-formed", Severity.SAGEMAKER, "Write LABEL name=true.", labels_are_well_formed),
    Rule(
        "H-3",
        "the image starts as root",
        Severity.SAGEMAKER,
        "Leave USER away; give up privileges inside, once the port is bound and the model read.",
        user_is_root,
    ),
)
