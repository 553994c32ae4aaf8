"""A verb of `python -m deploy`, run in this process as __main__ runs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
import click
from click.testing import CliRunner

from deploy.__main__ import main

# The services' models are parsed once a process, not once a verb.
botocore.session.create_loader = cache(botocore.session.create_loader)

URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/berth@sha256:" + "a" * 64
ROLE = "arn:aws:iam::123456789012:role/berth"


@dataclass(frozen=True)
class Ran:
    """How it ended, and what it printed."""

    exit_code: int
    output: str
    stdout: str

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What --dry-run printed."""
        decoder, found, at = json.JSONDecoder(), [], 0
        while (at := self.output.find('{\n  "service"', at)) >= 0:
            request, length = decoder.raw_decode(self.output[at:])
            found.append(request)
            at += length
        return found


def berth(*words: str, given: str | bytes | None = None) -> Ran:
    """Run a verb without pauses; with its messages as a person sees them."""
    verb, command, flags = [words[0]], main.commands[words[0]], words[1:]
    if isinstance(command, click.Group) and flags[0] in command.commands:
        verb, command, flags = [*verb, flags[0]], command.commands[flags[0]], flags[1:]
    polled = ["--poll-s", "0"] if any(one.name == "poll_s" for one in command.params) else []
    done = CliRunner().invoke(main, [*verb, *polled, *flags], input=given, standalone_mode=False)
    error = done.exception
    if error is None or isinstance(error, SystemExit):
        return Ran(done.exit_code, done.output, done.stdout)
    if isinstance(error, click.ClickException):
        return Ran(error.exit_code, f"{done.output}Error: {error.format_message()}\n", done.stdout)
    if isinstance(error, click.exceptions.Abort):
        return Ran(130, done.output, done.stdout)
    raise error
