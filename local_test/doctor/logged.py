"""Causes that a container tells by itself: lines of its log, in the words of Python, libraries, shells and servers."""

from __future__ import annotations

import posixpath
import re

from local_test.doctor.observations import Observations

MODEL, CHANNELS = "/opt/ml/model", "/opt/ml/input/data"
MOST_SHOWN = 300
ABSENT = (
    r"(?i)no such file|not found|(could|can) ?not (find|open)|unable to find|does(n't| not) exist|can't open"
    r"|failed to (open|load)|no file"
)
"""How programs say that a file is not there."""


def line_with(seen: Observations, *patterns: str) -> str:
    """Return the last line that one of the patterns matches, of what a failed container said; empty without one."""
    if not seen.failed:
        return ""
    found = ""
    for line in seen.told.splitlines():
        if any(re.search(pattern, line) for pattern in patterns):
            found = line.strip()[:MOST_SHOWN]
    return found


def syntax_error(seen: Observations) -> str:
    """Evidence that Python could not read the code."""
    found = line_with(seen, r"^\s*(SyntaxError|IndentationError|TabError): ")
    place = line_with(seen, r'^\s*File ".+", line \d+$') if found else ""
    return f"{place}: {found}" if place else found


def missing_library(seen: Observations) -> str:
    """Evidence that the loader did not find a library of C."""
    return line_with(
        seen, r"error while loading shared libraries", r"cannot open shared object file", r"version `GLIBC\w*_[\d.]+' not found"
    )


def no_gpu(seen: Observations) -> str:
    """Evidence that the program wants a GPU's driver, which is not in the image (T-6)."""
    return line_with(
        seen, r"libcuda\.so|libnvidia-", r"no NVIDIA driver|NVIDIA driver on your system", r"CUDA driver version is"
    )


def import_error(seen: Observations) -> str:
    """Evidence that Python did not find a module, or a name in one."""
    return "" if missing_library(seen) else line_with(seen, r"\b(ModuleNotFoundError|ImportError): ")


def unpickled_elsewhere(seen: Observations) -> str:
    """Evidence that a pickle names a class of the script that wrote it."""
    return line_with(seen, r"Can't get attribute '.+' on <module")


def wrong_config_name(seen: Observations) -> str:
    """Evidence that a configuration file is looked for by a name that it does not have (T-9)."""
    return line_with(seen, r"/opt/ml/input/config/\w*[A-Z]\w*\.json")


def wrong_channel(seen: Observations) -> str:
    """Evidence that data is looked for where no channel is (T-10)."""
    line = line_with(seen, rf"(No such file|FileNotFound|not found|does not exist).*{CHANNELS}/")
    asked = re.search(rf"{CHANNELS}/([\w.-]+)", line)
    if not asked or asked[1] == seen.channel:
        return ""
    return f"{line} (this job's channel is {seen.channel!r})"


def nested_model(seen: Observations) -> str:
    """Evidence that the model's archive has a folder around the files that the server looks for."""
    if seen.word != "serve" or not seen.model_files:
        return ""
    for path in reversed(_absent(seen)):
        wanted = posixpath.relpath(path, MODEL)
        inside = [
            file for file in seen.model_files if file != wanted and posixpath.basename(file) == posixpath.basename(wanted)
        ]
        if inside:
            return f"it looked for {path}; the archive has that file as {inside[0]}"
    return ""


def model_missing(seen: Observations) -> str:
    """Evidence that the server looks for a file of the model that is not there."""
    absent = _absent(seen)
    if seen.word != "serve" or not absent or nested_model(seen):
        return ""
    there = ", ".join(seen.model_files[:5]) or "nothing"
    return f"it looked for {absent[-1]}; there is {there}"


def environment_missing(seen: Observations) -> str:
    """Evidence that a variable is wanted that nobody set."""
    shell = line_with(
        seen,
        r"\b[A-Z][A-Z0-9_]+: (unbound variable|parameter (null or )?not set)",
        r"(?i)environment variable.{0,40}(not set|unset|missing|required|must be)",
        r"(?i)(missing|required|set the).{0,20}environment variable",
    )
    if shell:
        return shell
    from_python = re.search(r"(<frozen os>|/os\.py|os\.environ|getenv)", seen.told)
    return line_with(seen, r"KeyError: '[A-Z][A-Z0-9_]+'") if from_python else ""


def strings_for_numbers(seen: Observations) -> str:
    """Evidence that a hyperparameter was used as the string that it is (T-14)."""
    if seen.word != "train":
        return ""
    return line_with(
        seen,
        r"TypeError: .*\bbetween instances of ('str'|.* and 'str')",
        r"TypeError: (unsupported operand type|can only concatenate str|must be real number, not str)",
        r"TypeError: 'str' object cannot be interpreted",
        r"TypeError: can't multiply sequence by non-int",
        r"(must be|should be|expected).{0,60}\b(int|float|number|bool)\w*\b.{0,80}\b[Gg]ot '",
        r"InvalidParameterError: .* Got '",
    )


def needs_network(seen: Observations) -> str:
    """Evidence that a name could not be resolved, or an address not be reached."""
    return line_with(
        seen,
        r"Temporary failure in name resolution|Name or service not known|No address associated with hostname",
        r"getaddrinfo|nodename nor servname|NameResolutionError|Failed to resolve|Could not resolve host|Unable to resolve",
        r"Network is unreachable|No route to host|ENETUNREACH|EHOSTUNREACH",
        r"Could not connect to the endpoint URL|EndpointConnectionError|ConnectTimeoutError|Unable to locate credentials",
        r"couldn't connect to .*huggingface|Failed to establish a new connection: (?!\[Errno 111\])",
    )


def port_in_use(seen: Observations) -> str:
    """Evidence that two programs in the container want one port."""
    return line_with(seen, r"[Aa]ddress already in use|EADDRINUSE|[Cc]onnection in use: ")


def disk_full(seen: Observations) -> str:
    """Evidence that there was no room to write."""
    return line_with(
        seen, r"No space left on device|ENOSPC|Disk quota exceeded", r"insufficient shared memory|out of shared memory"
    )


def read_only(seen: Observations) -> str:
    """Evidence that it writes where nothing can be written (H-4)."""
    return line_with(seen, r"Read-only file system|EROFS")


def permission_denied(seen: Observations) -> str:
    """Evidence that its user may not read or write a file."""
    found = "" if seen.refused else line_with(seen, r"Permission denied|EACCES|Operation not permitted")
    return f"{found} (the image's user is {seen.user})" if found and seen.user else found


def development_server(seen: Observations) -> str:
    """Evidence of a server that is made for trying out; told of a healthy container too."""
    for line in seen.output.splitlines():
        if re.search(r"(?i)development server|debugger is active|debug mode: on|started reloader process", line):
            return line.strip()[:MOST_SHOWN]
    servers = [answer.server for answer in (*seen.early_pings, seen.invoked) if answer]
    return next((f"answers say Server: {name}" for name in servers if re.match("Werkzeug|WSGIServer|SimpleHTTP", name)), "")


def _absent(seen: Observations) -> list[str]:
    """Return paths below the model's folder that the log calls missing."""
    if not seen.failed:
        return []
    lines = [line for line in seen.told.splitlines() if re.search(ABSENT, line)]
    return [path.rstrip(".") for line in lines for path in re.findall(rf"{MODEL}/[\w./-]+", line)]
