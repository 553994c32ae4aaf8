"""Why a verb ended without having done what it was asked to.

    DeployError (click.ClickException)               exit
    ├── BadSettings     what was given                 2
    ├── Refused         AWS, or a registry, said no    1
    │   ├── AlreadyThere                               1
    │   ├── NotThere                                   1
    │   └── Unknown     it may have been done          1
    ├── Rejected        a gate that the image fails    1
    ├── Unscanned       it could not be looked at      2
    └── Failed          what was started ended badly   1

A message says what was found, what was expected and what to do. Every verb can be run again: it looks before it makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError


class DeployError(click.ClickException):
    """A failure whose message is meant for the person at the terminal."""


class BadSettings(DeployError):
    """Settings are missing, unknown, or can't be combined."""

    exit_code = 2


class Refused(DeployError):
    """AWS or a registry said no."""


class AlreadyThere(Refused):
    """What was to be made is there."""


class NotThere(Refused):
    """What was asked about is not there."""


class Unknown(Refused):
    """No answer came: whether it was done is not known."""


class Rejected(DeployError):
    """The image does not pass a gate."""


class Unscanned(DeployError):
    """What a gate asks could not be answered; that is no pass."""

    exit_code = 2


class Failed(DeployError):
    """What was started has ended, but not well."""


AGAIN = "Run the same command again: it looks at what is there and carries on."
MAY_NOT = "These credentials may not do that; deploy/templates/roles.yaml lists what the deployer needs."
CURES = {
    "AccessDenied": MAY_NOT,
    "403": MAY_NOT,  # S3 says no more than that where its answer has no body
    "Throttling": f"AWS is asked too often at the moment. {AGAIN}",
    "SlowDown": f"AWS is asked too often at the moment. {AGAIN}",
    "TooManyRequests": f"AWS is asked too often at the moment. {AGAIN}",
    "ExpiredToken": "The credentials have expired: sign in again, such as with `aws sso login`.",
    "InvalidAccessKeyId": "AWS does not know these credentials: check the profile, or sign in again.",
    "InvalidClientTokenId": "AWS does not know these credentials: check the profile, or sign in again.",
    "SignatureDoesNotMatch": "The secret key is not that of the access key, or this machine's clock is wrong.",
    "UnrecognizedClient": "AWS does not know these credentials: check the profile, or sign in again.",
    "ResourceLimitExceeded": "The account's quota is used up: delete what is not needed, choose another instance type, or ask "
    "for more under Service Quotas. `python -m deploy preflight` lists the quotas.",
    "InternalFailure": f"AWS failed. {AGAIN}",
    "InternalServerError": f"AWS failed. {AGAIN}",
    "ServiceUnavailable": f"AWS failed. {AGAIN}",
}
"""The beginning of an error's code, and what to do about it."""
ALREADY = ("already exist", "already existing", "AlreadyExists", "BucketAlreadyOwnedByYou")
MISSING = ("Could not find", "does not exist", "NotFound", "NoSuch", "not found", "No Model", "Cannot find")
NO_SUCH = "404"
"""The whole code where an answer has no body; in a message it may be a part of an account's number."""


FAILURES = (BotoCoreError, ClientError, ResponseParserError)
"""What a call of boto3's raises, whatever comes back: a load balancer's page in place of an answer, for instance."""


def explained(error: Exception, action: str) -> DeployError:
    """Return what an error of boto3's means for who typed the command.

    Args:
        error: one of FAILURES, as it was raised.
        action: what was asked, such as `sagemaker:CreateModel`.
    """
    if isinstance(error, ClientError):
        return _refusal(error, action)
    if isinstance(error, ParamValidationError):
        return BadSettings(f"{action} can't be asked with these settings: {error.kwargs['report']}")
    if isinstance(error, NoCredentialsError):
        return Refused("No AWS credentials were found. Sign in (`aws sso login`), or name a profile: --profile NAME.")
    if isinstance(error, (NoRegionError, ProfileNotFound)):
        return BadSettings(f"{error} Name it: --region us-east-1, --profile NAME, or in the settings file's [account].")
    if isinstance(error, ResponseParserError):
        return Unknown(f"{action}: the answer can't be read. Whether it was done is not known. {AGAIN}")
    if isinstance(error, (NoConnection, HTTPClientError)):
        return Unknown(f"{action}: the connection broke ({error}). Whether it was done is not known. {AGAIN}")
    return Refused(f"{action}: {error}")


def whole(body: Any, action: str) -> bytes:
    """Return all of a streamed answer; raises Unknown where it breaks off."""
    try:
        content: bytes = body.read()
    except BotoCoreError as error:
        raise Unknown(f"{action}: the answer broke off ({error}). {AGAIN}") from None
    return content


def _refusal(error: ClientError, action: str) -> Refused:
    told: dict[str, Any] = error.response.get("Error", {})
    code, text = str(told.get("Code", "")), str(told.get("Message", ""))
    if code == "ModelError":
        return Refused(_model_error(error.response))
    message = f"{action} was refused: {code}: {text}"
    if any(word in code or word in text for word in ALREADY):
        return AlreadyThere(message)
    cure = next((cure for start, cure in CURES.items() if code.startswith(start)), "")
    if not cure and (code == NO_SUCH or any(word in code or word in text for word in MISSING)):
        return NotThere(message)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if not cure and status >= 500:
        return Unknown(f"{message}. AWS failed; whether it was done is not known. {AGAIN}")
    return Refused(f"{message}. {cure}".rstrip())


def _model_error(response: Mapping[str, Any]) -> str:
    """Return what the container answered, in its own words (H-15), and where to look."""
    status, text = int(response.get("OriginalStatusCode", 500)), str(response.get("OriginalMessage", ""))
    try:
        told = json.loads(text)
        text = str(told["message"])
    except (ValueError, KeyError, TypeError):
        text = text or "no reason was given"
    where = response.get("LogStreamArn", "")
    cure = "Change the request." if status < 500 else f"`python -m deploy logs endpoint` shows why ({where})."
    return f"The model answered {status}: {text} {cure}"
