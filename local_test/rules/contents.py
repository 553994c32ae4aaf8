"""What lies in an image that should not: secrets, caches, known vulnerabilities, too many bytes. M-7, M-9, H-33."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Unjudged, Violated

GB, MB = 1_000_000_000, 1_000_000
MOST_BYTES = 10 * GB
"""What serverless endpoints take (H-33); every new instance pulls it all before the container starts."""
MOST_CACHE_BYTES = 5 * MB
"""Above an empty cache's folders and lock files."""
CACHES = {
    "apt's lists": "/var/lib/apt/lists",
    "apt's packages": "/var/cache/apt",
    "pip": ".cache/pip",
    "uv": ".cache/uv",
    "poetry": ".cache/pypoetry",
    "conda": "/opt/conda/pkgs",
    "apk": "/var/cache/apk",
    "dnf": "/var/cache/dnf",
    "yum": "/var/cache/yum",
}
"""By package manager, where it keeps what it downloads: from the root, or in the home of the first user."""
SCANNED = {
    *("almalinux", "alpine", "amzn", "centos", "chainguard", "debian", "fedora", "ol", "opensuse-leap"),
    *("photon", "rhel", "rocky", "sles", "ubuntu", "wolfi"),
}
"""ID of /etc/os-release, of systems whose packages the scanners of ECR know."""
SECRET_NAME = re.compile(
    r"(^|_)(password|passwd|secret|token|api_?key|access_key(_id)?|secret_key|private_key|credentials)$", re.IGNORECASE
)
SECRET_VALUE = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bgh[pousr]_\w{30,}|\bhf_[A-Za-z]{30,}"
    r"|\bsk-[\w-]{32,}|://[^/\s:@$]+:[^/\s@$]+@"
)
ASSIGNED = re.compile(r"\b([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|\S*)")
SECRET_FILES = (".aws/credentials", ".netrc", ".git-credentials", ".docker/config.json", ".pypirc")
"""In the home of the first user."""
SCAN_S = 120


def holds_no_secret(subject: Subject) -> str:
    """Judge whether the environment, the build steps or the usual files hold credentials."""
    entries = subject.inspected["Config"].get("Env") or []
    found = [f"ENV {name}" for name in secrets(dict(entry.partition("=")[::2] for entry in entries))]
    steps = subject.contents.steps()
    found += [f"the build step that sets {name}" for step in steps for name in secrets(_assigned(step))]
    found += ["a build step" for step in steps if SECRET_VALUE.search(step)]
    found += [path for name in SECRET_FILES if subject.contents.read(path := f"{_home(subject)}/{name}")]
    if found:
        raise Violated(f"credentials can be read by whoever has the image, in {', '.join(dict.fromkeys(found))}")
    return f"none in {len(entries)} variables, {len(steps)} build steps and {len(SECRET_FILES)} usual files"


def secrets(variables: Mapping[str, str]) -> list[str]:
    """Return the names of variables that hold a secret: by their name, or by how the value looks."""
    return [
        name
        for name, value in variables.items()
        if SECRET_VALUE.search(value) or (SECRET_NAME.search(name) and _may_be_secret(value))
    ]


def scanner_knows_the_system(subject: Subject) -> str:
    """Judge whether ECR's scanner can read the image's packages."""
    text = subject.contents.read("/etc/os-release")
    if text is None:
        raise Violated("there is no /etc/os-release: the scan ends with UnsupportedImageError")
    facts = dict(line.partition("=")[::2] for line in text.decode("utf-8", "replace").splitlines())
    system = facts.get("ID", "").strip("\"'")
    if system not in SCANNED:
        raise Violated(f"the system is {system or 'not named'}; the scanner knows {', '.join(sorted(SCANNED))}")
    return f"the system is {system} {facts.get('VERSION_ID', '').strip(chr(34))}".strip()


def has_no_grave_vulnerability(subject: Subject) -> str:
    """Judge whether a scanner of this machine finds a critical or high vulnerability."""
    image = subject.containers.image
    engine = subject.containers.docker
    for program, command, read in (
        ("grype", ("--quiet", "--output", "json", f"{engine}:{image}"), _of_grype),
        ("trivy", ("image", "--quiet", "--format", "json", "--severity", "HIGH,CRITICAL", image), _of_trivy),
    ):
        if scanner := shutil.which(program):
            return _judge(program, read(_scan([scanner, *command])))
    raise Unjudged("neither grype nor trivy is on PATH; ECR scans what is pushed: start that scan")


def is_not_too_large(subject: Subject) -> str:
    """Judge the image's size."""
    size = int(subject.inspected["Size"])
    if size > MOST_BYTES:
        raise Violated(f"the image has {size / GB:.1f} GB; serverless endpoints take {MOST_BYTES // GB} GB")
    return f"the image has {size / GB:.2f} GB"


def carries_no_caches(subject: Subject) -> str:
    """Judge whether package managers left behind what they downloaded."""
    folders = {name: folder if folder[0] == "/" else f"{_home(subject)}/{folder}" for name, folder in CACHES.items()}
    sizes = {name: sum(member.size for member in subject.contents.below(folder)) for name, folder in folders.items()}
    if sum(sizes.values()) > MOST_CACHE_BYTES:
        found = ", ".join(f"{folders[name]} {size / MB:.0f} MB" for name, size in sizes.items() if size > MB)
        raise Violated(f"package managers left {sum(sizes.values()) / MB:.0f} MB: {found}")
    return f"package managers left {sum(sizes.values()) / MB:.1f} MB"


def _home(subject: Subject) -> str:
    """Return the home of the user with the number 0, as the image itself names it; the root's where it names none."""
    text = (subject.contents.read("/etc/passwd") or b"").decode("utf-8", "replace")
    fields = [line.split(":") for line in text.splitlines()]
    return next((user[5].rstrip("/") for user in fields if len(user) > 5 and user[2] == "0"), "")


def _assigned(step: str) -> dict[str, str]:
    return {name: value.strip("\"'") for name, value in ASSIGNED.findall(step)}


def _may_be_secret(value: str) -> bool:
    """Say whether a value is a text of its own: no reference, no path, no switch."""
    return len(value) > 3 and not value.startswith(("$", "/", "{")) and value.lower() not in {"true", "false", "none", "null"}


def _scan(command: Sequence[str]) -> Any:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_S, check=True)
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise Unjudged(f"{command[0]} took over {SCAN_S} s; run it by itself") from error
    except subprocess.CalledProcessError as error:
        raise Unjudged(f"{command[0]} failed: {str(error.stderr).strip()[-500:]}") from error


def _judge(program: str, found: Iterable[tuple[str, str]]) -> str:
    grave = {name: severity for name, severity in found if severity.upper() in {"CRITICAL", "HIGH"}}
    if grave:
        counts = ", ".join(f"{count} {severity.lower()}" for severity, count in Counter(grave.values()).items())
        raise Violated(f"{program} found {counts}: {', '.join(sorted(grave)[:8])}")
    return f"{program} found nothing critical or high"


def _of_grype(report: Any) -> list[tuple[str, str]]:
    found = [match["vulnerability"] for match in report.get("matches") or []]
    return [(vulnerability["id"], vulnerability["severity"]) for vulnerability in found]


def _of_trivy(report: Any) -> list[tuple[str, str]]:
    results = report.get("Results") or []
    return [(found["VulnerabilityID"], found["Severity"]) for part in results for found in part.get("Vulnerabilities") or []]


RULES = (
    Rule(
        "M-7",
        "the image holds no secret",
        Severity.MARKETPLACE,
        "Take it out of ENV, ARG and COPY, build anew, and withdraw it: it is in the layers. Roles give credentials later.",
        holds_no_secret,
    ),
    Rule(
        "M-9",
        "the scanner knows the image's system",
        Severity.MARKETPLACE,
        "Build on a base that the scanner knows, and leave its /etc/os-release.",
        scanner_knows_the_system,
    ),
    Rule(
        "M-9",
        "no critical or high vulnerability is known",
        Severity.MARKETPLACE,
        "Build anew on the base's last version; remove what isn't needed.",
        has_no_grave_vulnerability,
    ),
    Rule(
        "H-33",
        "the image has at most 10 GB",
        Severity.WASTEFUL,
        "Build in stages and copy what runs; one variant of a framework is enough.",
        is_not_too_large,
    ),
    Rule(
        "H-33",
        "the image carries no package caches",
        Severity.WASTEFUL,
        "In the same RUN: rm -rf /var/lib/apt/lists/*; pip install --no-cache-dir; conda clean --all.",
        carries_no_caches,
    ),
)
