"""Causes that lie in how a container is started: the file it begins with, its processor, and how it ended."""

from __future__ import annotations

import posixpath
import re
from collections import Counter

from local_test.doctor.logged import line_with
from local_test.doctor.observations import Observations

SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
INITS = {"tini", "tini-static", "dumb-init", "docker-init", "catatonit"}
SIGNALS = {132: "SIGILL, an instruction that this processor lacks", 135: "SIGBUS", 139: "SIGSEGV, a crash in native code"}
"""Exit codes of programs that the kernel ended; 128 and the signal's number."""
MOST_DEATHS = 2
"""Processes of one command line that may end while a server starts: more are crashes."""
WAITS = {"sleep", "curl", "wget", "nc"}
"""What scripts run over and over while they wait for something."""


def shell_form(seen: Observations) -> str:
    """Evidence that ENTRYPOINT is a line for a shell, which drops the word and keeps signals to itself (T-3)."""
    if len(seen.entrypoint) > 1 and posixpath.basename(seen.entrypoint[0]) in SHELLS and seen.entrypoint[1] == "-c":
        return f"ENTRYPOINT is {list(seen.entrypoint)}"
    return ""


def init_entrypoint(seen: Observations) -> str:
    """Evidence that ENTRYPOINT is tini or one of its kind, which the platform's guide rules out (T-3)."""
    if seen.entrypoint and posixpath.basename(seen.entrypoint[0]) in INITS:
        return f"ENTRYPOINT is {list(seen.entrypoint)}"
    return ""


def not_on_path(seen: Observations) -> str:
    """Evidence that there is no such program (T-1)."""
    if seen.entry and not seen.entry.path:
        return f"no file {seen.entry.asked!r} on the image's PATH"
    if seen.entry is None and re.search(r"executable file not found|no such file or directory", seen.refused):
        return seen.refused.splitlines()[0]
    return ""


def not_executable(seen: Observations) -> str:
    """Evidence that the file lacks the permission to be run."""
    if seen.entry and seen.entry.path and not seen.entry.mode & 0o111:
        return f"{seen.entry.path} has permissions {seen.entry.mode & 0o777:03o}"
    if seen.entry is None and "permission denied" in seen.refused:
        return seen.refused.splitlines()[0]
    return ""


def carriage_returns(seen: Observations) -> str:
    """Evidence that a script has the line ends of Windows."""
    if seen.entry and seen.entry.has_carriage_returns:
        return f"the first line of {seen.entry.path} is {seen.entry.head.splitlines(keepends=True)[0][:80]!r}"
    return line_with(seen, r"\\r|\r: (command )?not found|\$'\\r'")


def wrong_interpreter(seen: Observations) -> str:
    """Evidence that the program which the script's first line names is not in the image."""
    if seen.entry and seen.entry.interpreter_missing and not seen.entry.has_carriage_returns:
        return f"{seen.entry.path} begins with `#!{' '.join(seen.entry.interpreter)}`, which is not in the image"
    return ""


def no_interpreter(seen: Observations) -> str:
    """Evidence that a script does not say what it is written in."""
    entry = seen.entry
    if entry and entry.path and entry.head and not entry.is_program and not entry.head.startswith(b"#!"):
        return f"{entry.path} begins with {entry.head[:40]!r}, not with `#!`"
    return ""


def wrong_architecture(seen: Observations) -> str:
    """Evidence that the image is made for another processor (T-7)."""
    if seen.entry and seen.entry.machine not in {"", "amd64"}:
        return f"{seen.entry.path} is a program for {seen.entry.machine}"
    if seen.architecture not in {"", "amd64"}:
        return f"the image says that it is for {seen.architecture}"
    formatted = line_with(seen, r"(?i)exec format error|cannot execute binary file|wrong ELF class")
    return "" if no_interpreter(seen) else formatted


def out_of_memory(seen: Observations) -> str:
    """Evidence that memory ran out."""
    limit = seen.memory.limit_bytes if seen.memory else None
    told = f" of the limit of {limit / 2**20:.0f} MiB" if limit else ""
    if seen.oom_killed or (seen.memory and seen.memory.kills):
        return f"the kernel killed a process for want of memory{told}"
    if seen.ended and seen.exit_code == 137:
        return "it was killed (exit code 137), as the kernel does where memory runs out"
    return line_with(seen, r"\bMemoryError\b|Cannot allocate memory|[Pp]erhaps out of memory|std::bad_alloc|OutOfMemoryError")


def killed_by_signal(seen: Observations) -> str:
    """Evidence of a crash in native code."""
    code = seen.exit_code if seen.ended else None
    return f"exit code {code}: {SIGNALS[code]}" if code in SIGNALS else ""


def crash_loop(seen: Observations) -> str:
    """Evidence of workers that die and are started again (H-10)."""
    pattern = r"Worker failed to boot|Worker .*(exited with code [1-9]|was sent SIG(?!TERM))|worker .* died"
    if len(re.findall(pattern, seen.told)) > 1:
        return line_with(seen, pattern)
    dead = Counter(command for command in seen.dead if command and posixpath.basename(command.split()[0]) not in WAITS)
    for command, count in dead.most_common(1):
        if seen.failed and count > MOST_DEATHS:
            return f"{count} processes `{command[:100]}` came and went"
    return ""


def ended_well(seen: Observations) -> str:
    """Evidence that the first process left the server behind, as one that goes into the background does."""
    return f"exit code 0 after {seen.seconds:.1f} s" if seen.word == "serve" and seen.ended and seen.exit_code == 0 else ""


def ignores_stop(seen: Observations) -> str:
    """Evidence that SIGTERM does not end it (H-6, T-27)."""
    if seen.word == "train":
        ignored = seen.heeds_stop is False and not seen.failed
        return "its first process has no handler for SIGTERM, and so ignores it" if ignored else ""
    if seen.stop_patience_s and seen.stop_s is None:
        why = ": its first process has no handler for it" if seen.heeds_stop is False else ""
        return f"it still ran {seen.stop_patience_s:g} s after SIGTERM{why}"
    return ""


def writes_elsewhere(seen: Observations) -> str:
    """Evidence of files that a server wrote where it may not be let (H-4); a training job's disk is its own."""
    if seen.word == "train":
        return ""
    shown = ", ".join(seen.written[:5])
    return f"{shown}{f' and {len(seen.written) - 5} more' if len(seen.written) > 5 else ''}"


def no_artifacts(seen: Observations) -> str:
    """Evidence that training left nothing to serve."""
    empty = seen.word == "train" and seen.exit_code == 0 and seen.ended and not seen.artifacts
    return "exit code 0, and /opt/ml/model is empty" if empty else ""


def unexplained(seen: Observations) -> str:
    """Evidence of a start that failed, without more: the end of what it said."""
    if not seen.failed or not (seen.ended or seen.refused):
        return ""
    last = "\n".join(seen.told.strip().splitlines()[-6:]) or "it printed nothing"
    return last if seen.refused else f"exit code {seen.exit_code}: {last}"
