"""What can be wrong with a container, as one table: a function a cause, from observations to the evidence.

The order is that of telling: what is certain and explains the rest stands first, what would do harm later stands last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from local_test.doctor import answered, logged, started
from local_test.doctor.observations import Observations


@dataclass(frozen=True)
class Cause:
    """One reason for which an endpoint or a training job fails."""

    number: str
    """Of contract.md, empty where no platform's rule is behind it."""
    name: str
    """What is wrong, as a sentence for a person who knows no rule."""
    fix: str
    look: Callable[[Observations], str]
    """Returns the evidence, empty where it isn't this."""


@dataclass(frozen=True)
class Finding:
    """A cause and what speaks for it."""

    cause: Cause
    evidence: str


def diagnose(seen: Observations) -> list[Finding]:
    """Return what is wrong, the most likely first; nothing where nothing was found."""
    found = {cause: evidence for cause in CAUSES if (evidence := cause.look(seen))}
    if not seen.failed or any(cause in found for cause in (*START, *PROGRAM, *HEALTH)):
        found = {cause: evidence for cause, evidence in found.items() if cause not in RESORTS}
    return [Finding(cause, evidence) for cause, evidence in found.items()]


START = (
    Cause(
        "T-7",
        "The image is made for another processor.",
        "Build it with --platform linux/amd64 (a Graviton instance takes arm64).",
        started.wrong_architecture,
    ),
    Cause(
        "T-3",
        "ENTRYPOINT is written as a line for a shell: the word is lost, and signals do not arrive.",
        'Write it as a list, ENTRYPOINT ["python", "app.py"], or leave it out and put programs `train` and `serve` on PATH.',
        started.shell_form,
    ),
    Cause(
        "T-1",
        "There is no program of that name: containers are started as `docker run IMAGE serve`, and `train`.",
        "Copy an executable file of that name to /usr/local/bin, or set an ENTRYPOINT that takes the word.",
        started.not_on_path,
    ),
    Cause("T-1", "The program lacks its executable bit.", "Add RUN chmod +x FILE after the COPY.", started.not_executable),
    Cause(
        "T-1",
        "The script has Windows line ends, so that no program is found for its first line.",
        "Save it with LF: `sed -i 's/\\r$//' FILE`, and `*  text eol=lf` in .gitattributes.",
        started.carriage_returns,
    ),
    Cause(
        "T-1",
        "The script's first line names a program that the image does not have.",
        "Correct the line, such as #!/usr/bin/env python3, or install the program.",
        started.wrong_interpreter,
    ),
    Cause(
        "T-1",
        "The script does not say what runs it: it has no line `#!`.",
        "Make its first line #!/usr/bin/env python3, or that of its language.",
        started.no_interpreter,
    ),
)
PROGRAM = (
    Cause("H-4", "The model's archive can't be unpacked.", "Pack it with tar -czf.", answered.unreadable_model),
    Cause(
        "",
        "Memory ran out.",
        "Take a larger instance, load less, or start fewer workers: each holds its own copy of the model.",
        started.out_of_memory,
    ),
    Cause(
        "", "The code has an error of syntax.", "Correct the line; build with the Python you test with.", logged.syntax_error
    ),
    Cause(
        "T-6",
        "It wants a GPU's driver, which is never in the image and only on GPU instances.",
        "Use an ml.g or ml.p instance, or install the CPU build of the library.",
        logged.no_gpu,
    ),
    Cause(
        "",
        "A shared library is missing in the image.",
        "Install the package that has it: `apt-file search NAME` tells which (libGL.so.1: libgl1, libgomp.so.1: libgomp1).",
        logged.missing_library,
    ),
    Cause(
        "",
        "A Python module is missing.",
        "Add it to the image's requirements, in the environment that runs.",
        logged.import_error,
    ),
    Cause(
        "",
        "The pickled model names a class of the script that wrote it.",
        "Define the class in a module that both `train` and `serve` import.",
        logged.unpickled_elsewhere,
    ),
    Cause(
        "T-17",
        "An environment variable is missing. The platform sets no SM_* variables in an image of your own.",
        "Give it a default in the code, or set it in the job's or model's Environment (here: --env NAME=VALUE).",
        logged.environment_missing,
    ),
    Cause(
        "T-14",
        "A hyperparameter is used as text: every value arrives as a string.",
        "Convert what hyperparameters.json holds: int(value), float(value), value.lower() == 'true'.",
        logged.strings_for_numbers,
    ),
    Cause(
        "T-9",
        "A configuration file is looked for by a wrong name: all their names are in lower case.",
        "Read /opt/ml/input/config/resourceconfig.json.",
        logged.wrong_config_name,
    ),
    Cause(
        "T-10",
        "Data is looked for in a channel that the job does not have.",
        "Take channels from inputdataconfig.json, or name the job's channel as the code does (here: --channel NAME).",
        logged.wrong_channel,
    ),
    Cause(
        "H-4",
        "The model's archive has a folder around the files.",
        "Pack the files themselves: tar -czf model.tar.gz -C FOLDER .",
        logged.nested_model,
    ),
    Cause(
        "H-4",
        "A file of the model is missing.",
        "Give the model (here: --model model.tar.gz, or --train-data DIR), and look for it by the name it has.",
        logged.model_missing,
    ),
    Cause(
        "M-7",
        "It needs the network, which isolated jobs and Marketplace's do not have.",
        "Put models and packages into the image or the model's archive; ask no service while it starts.",
        logged.needs_network,
    ),
    Cause(
        "H-4",
        "It writes where the file system is read-only: /opt/ml/model is, while serving.",
        "Write below /tmp.",
        logged.read_only,
    ),
    Cause(
        "H-3",
        "Its user may not read or write a file.",
        "Run as root, as SageMaker expects, or give the user the rights: chmod -R a+rX, and /tmp for what is written.",
        logged.permission_denied,
    ),
    Cause("", "The disk is full.", "Take a larger volume, and clean up below /tmp; /dev/shm holds 64 MB.", logged.disk_full),
    Cause(
        "",
        "Two programs in the container want the same port.",
        "Give each its own: nginx 8080, the server behind it a socket.",
        logged.port_in_use,
    ),
    Cause("", "Native code crashed.", "Use builds of libraries for this base image and processor.", started.killed_by_signal),
    Cause(
        "H-10",
        "Workers die and are started again, over and over.",
        "Look at the first error in the log; have the server end where its workers can't start.",
        started.crash_loop,
    ),
    Cause(
        "H-1",
        "The first process ended, and the container with it: a server in the background does not hold it.",
        "Keep the server in the foreground: exec gunicorn without --daemon, nginx with `daemon off;`.",
        started.ended_well,
    ),
)
HEALTH = (
    Cause(
        "H-2",
        "It listens on another port.",
        "Listen on 8080, or on $SAGEMAKER_BIND_TO_PORT where that is set.",
        answered.wrong_port,
    ),
    Cause("H-2", "It is bound to 127.0.0.1.", "Bind to 0.0.0.0.", answered.bound_to_loopback),
    Cause("H-8", "/ping is redirected, and the platform follows no redirect.", "Route /ping itself.", answered.redirected),
    Cause("H-8", "It wants TLS on its port; the platform speaks plain HTTP.", "Serve HTTP.", answered.speaks_tls),
    Cause("H-8", "There is no route GET /ping.", "Answer it with 200 and an empty body once it is ready.", answered.no_ping),
    Cause(
        "H-9",
        "/ping fails.",
        "Answer 200 when a prediction can be made, else 503; the log has the error.",
        answered.broken_ping,
    ),
    Cause(
        "H-9",
        "The first health check is slow: the model is loaded in /ping.",
        "Load it before the server listens, in each worker, and answer from a stored result.",
        answered.loaded_in_ping,
    ),
    Cause("H-8", "/ping is too slow.", "Answer from a stored result; predict nothing in the probe.", answered.slow_ping),
    Cause(
        "H-9",
        "Requests starve the health check: one worker does one thing at a time.",
        "Use threads or an event loop: gunicorn --worker-class gthread --threads 4.",
        answered.starving,
    ),
    Cause(
        "H-12",
        "nginx refuses bodies over its limit of 1 MB.",
        "Set `client_max_body_size 25m;`.",
        answered.body_limit_of_nginx,
    ),
    Cause("H-12", "Bodies are refused that the platform sends: up to 25 MB.", "Raise the server's limit.", answered.body_limit),
    Cause("H-11", "There is no route POST /invocations.", "Answer it with the prediction.", answered.no_invocations),
    Cause(
        "H-11", "A prediction takes too long.", "Answer within 60 s, or use an asynchronous endpoint.", answered.slow_invocation
    ),
    Cause(
        "H-15",
        "The payload is not answered as it should be.",
        "Look at the answer and the log; check --content-type.",
        answered.refused_payload,
    ),
)
HINTS = (
    Cause(
        "H-4",
        "The model's archive has a folder around the files, which may be what is amiss.",
        "Pack the files themselves: tar -czf model.tar.gz -C FOLDER .",
        answered.folder_around_model,
    ),
    Cause(
        "M-7",
        "It tries to reach the network, which isolated jobs and Marketplace's do not have.",
        "Put all it needs into the image or the model's archive.",
        answered.tried_network,
    ),
)
"""What may well be the reason of a failure that does not explain itself."""
LESSER = (
    Cause("H-4", "The archive holds links; the platform takes none.", "Pack with tar --dereference.", answered.links_in_model),
    Cause("", "Memory is nearly used up.", "Take a larger instance or fewer workers.", answered.near_memory_limit),
    Cause(
        "",
        "It serves with a server for development.",
        "Use gunicorn, uvicorn or another server for production, without debug mode.",
        logged.development_server,
    ),
    Cause(
        "T-4",
        "It does not heed SIGTERM: it is killed after the platform's patience, and work is lost.",
        "Handle SIGTERM in the first process; in a shell script start the server with `exec`.",
        started.ignores_stop,
    ),
    Cause(
        "T-3",
        "ENTRYPOINT is an init such as tini, which the platform's guide rules out.",
        "Leave it out; let the server reap its own workers.",
        started.init_entrypoint,
    ),
    Cause("H-4", "It writes outside /tmp.", "Write below /tmp only; log to stdout.", started.writes_elsewhere),
    Cause("T-27", "Training left no model.", "Write it to /opt/ml/model.", started.no_artifacts),
)
RESORTS = (
    Cause(
        "H-7",
        "It was not ready in time.",
        "Load less, or allow more: SageMaker gives 8 minutes (here: --start-seconds 480).",
        answered.slow_start,
    ),
    Cause("", "It ended, and why is not known here.", "Look at the end of its log.", started.unexplained),
)
"""What is told where nothing certain was found."""
CAUSES = (*START, *PROGRAM, *HEALTH, *HINTS, *RESORTS, *LESSER)
