"""`publish check`: what certification does is done here first, on the image itself, so that a product passes the first time.

It asks AWS nothing. The parts stand in one table, the quickest first; one broken rule does not end it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from deploy.cloud import Request
from deploy.errors import BadSettings, Rejected, Unscanned
from deploy.images.engine import Engine, engine_of
from deploy.jobs.channels import SAMPLE
from deploy.jobs.samples import sample_body
from deploy.jobs.training import METRICS
from deploy.market import manifest, programs, rules, vulnerabilities
from deploy.market.product import Offer, algorithm_request
from deploy.market.served import SERVED
from deploy.market.trained import TRAINED, judged
from deploy.market.verdicts import BREAKS, NOT_JUDGED, Status, Verdict, exit_status, lines_of
from deploy.options import Pair, takes
from deploy.settings import Account, Image
from model import DECLARATION

STAND_IN = Offer(
    product="product",
    release="0.0.0",
    image="111122223333.dkr.ecr.us-east-1.amazonaws.com/product:0.0.0",
    digest="sha256:" + "0" * 64,
    role="arn:aws:iam::111122223333:role/validation",
    data="s3://product/rows",
    records="s3://product/records",
    outputs="s3://product/outputs",
)
"""What the request is made with where none is given: the places are no one's, all else is the declaration's."""


@dataclass(frozen=True)
class Choices:
    """What was asked for on the command line."""

    account: Account
    seller: str
    region: str
    request: Request
    given: programs.Rehearsed
    rule: tuple[str, ...]
    candidates: tuple[str, ...]
    unscanned_ok: bool

    @cached_property
    def engine(self) -> Engine:
        """What has the image."""
        return engine_of(self.given.engine)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What was seen of the validation's jobs: they are run once, for both parts that ask."""
        return programs.validation(replace(self.given, engine=self.engine.program), self.request)


def _request(choices: Choices) -> Iterator[Verdict]:
    """The request itself: whose it is, and what CreateAlgorithm takes."""
    broken = rules.judge(choices.request, choices.seller, choices.region)
    for number, title in [("API", "the request is what the API takes"), *((rule.number, rule.title) for rule in rules.RULES)]:
        if number not in {one.rule for one in broken}:
            yield Verdict(number, title, Status.KEPT, part="request")
    for one in broken:
        yield Verdict(
            one.rule, "the request is what CreateAlgorithm takes of a product", Status.BROKEN, one.found, one.fix, "request"
        )


def _image(choices: Choices) -> Iterator[Verdict]:
    """What the image is."""
    yield from manifest.judge(choices.engine, choices.given.image)


def _scan(choices: Choices) -> Iterator[Verdict]:
    """Known vulnerabilities, none allowed."""
    ok = choices.unscanned_ok
    yield vulnerabilities.judge(choices.account, choices.given.image, choices.candidates, unscanned_ok=ok)


def _training(choices: Choices) -> Iterator[Verdict]:
    """The validation's training job."""
    if "training" in choices.facts:
        yield from judged(TRAINED, choices.facts, choices.request, "training")


def _serving(choices: Choices) -> Iterator[Verdict]:
    """The validation's transform job, and what buyers may send."""
    if "serving" in choices.facts:
        yield from judged(SERVED, choices.facts, choices.request, "serving")
    else:
        yield Verdict("M-5", "the validation's transform job ends well", Status.UNJUDGED, "there is no model to serve")


def _rules(choices: Choices) -> Iterator[Verdict]:
    """The platforms' rules for containers."""
    yield from programs.conformance(replace(choices.given, engine=choices.engine.program), choices.request, choices.rule)


PARTS: Mapping[str, Callable[[Choices], Iterable[Verdict]]] = {
    "request": _request,
    "image": _image,
    "scan": _scan,
    "training": _training,
    "serving": _serving,
    "rules": _rules,
}
PLAYED = ("training", "serving", "rules")
"""What runs the request's jobs."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("image", default=Image.image)
@takes(Account)
@click.option("--engine", default="", help="docker or podman; without one, whichever is there.")
@click.option("--request", "asked", type=FILE, help="CreateAlgorithm's request as JSON; without one, the model's own.")
@click.option("--seller", default="", help="The seller's account; without one, that of the request's image is taken.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Only these parts.")
@click.option("--rule", multiple=True, metavar="NUMBER", help="Of the part `rules`, only these.")
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), default=SAMPLE, help="Folder of the validation's channels."
)
@click.option("--channel", type=Pair(), multiple=True, help="A folder for one channel.")
@click.option("--records", type=FILE, help="The transform job's input; without one, rows of the sample.")
@click.option("--model", type=FILE, help="A model.tar.gz to serve; then nothing is trained.")
@click.option("--base-candidates", multiple=True, metavar="IMAGE", help="Bases to scan where the image does not pass.")
@click.option("--unscanned-ok", is_flag=True, help="Pass although the image could not be scanned.")
@click.option("--start-s", default=480.0, help="Seconds until /ping has to answer 200 (H-7).")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdicts to this file.")
def check(account: Account, **given: Any) -> None:
    """Rehearse a product's certification on IMAGE, with no AWS account.

    Its request, its manifest, known vulnerabilities (allowed findings count as any other), a training job and a transform
    job without a network, buyers' limits, and the platforms' rules. Exit status: 0 passes, 1 a rule is broken, 2 a rule could
    not be judged.
    """
    file = given.pop("file")
    with tempfile.TemporaryDirectory(prefix="berth-check-") as folder:
        given["only"] = parts = given["only"] or tuple(PARTS)
        choices = _choices(account, Path(folder), **given)
        verdicts: list[Verdict] = []
        for part in PARTS:
            if part in parts:
                click.echo(f"{part}: {(PARTS[part].__doc__ or '').splitlines()[0]}")
                verdicts += _said(part, choices)
    code = exit_status(verdicts)
    if file:
        file.write_text(json.dumps({"exit_code": code, "verdicts": [one.as_json() for one in verdicts]}, indent=1) + "\n")
    for line in lines_of(verdicts):
        click.echo(line)
    _end(choices.given.image, code)


def _said(part: str, choices: Choices) -> list[Verdict]:
    """Return what a part says; where it could not be done, that."""
    title = f"the part {part} can be judged"
    if part in PLAYED and not _can_be_played(choices.request):
        lacking = "blocked by the request: it has no profile with jobs, or nothing that answers"
        return [Verdict("M-5", title, Status.UNJUDGED, lacking, part=part)]
    try:
        return list(PARTS[part](choices))
    except Unscanned as error:
        return [Verdict("M-5", title, Status.UNJUDGED, error.message, part=part)]


def _can_be_played(request: Request) -> bool:
    """Say whether a request has what its jobs are made of."""
    try:
        profile = request["ValidationSpecification"]["ValidationProfiles"][0]
        is_sold = bool(
            request["InferenceSpecification"]["Containers"][0] and profile["TransformJobDefinition"]["TransformInput"]
        )
        return is_sold and (_is_package(request) or bool(profile["TrainingJobDefinition"]["InputDataConfig"][0]["ChannelName"]))
    except (KeyError, IndexError, TypeError):
        return False


def _is_package(request: Request) -> bool:
    return "TrainingSpecification" not in request


def _end(image: str, code: int) -> None:
    if code == BREAKS:
        raise Rejected(f"{image} would not be certified: mend what is broken above, and run the same command again.")
    if code == NOT_JUDGED:
        raise Unscanned(f"Not all of {image} could be judged, and what was not seen is no pass. What is lacking stands above.")
    click.echo(f"{image} passes.")


def _choices(account: Account, folder: Path, **given: Any) -> Choices:
    request = _read(given["asked"]) if given["asked"] else algorithm_request(DECLARATION, METRICS, STAND_IN)
    if _is_package(request) and not given["model"]:
        raise BadSettings(
            "The request is a model package's, and there is no model to serve: --model model.tar.gz was expected."
        )
    owner, region = _place(request)
    records = given["records"] or _written(folder / "records.csv")
    rehearsed = programs.Rehearsed(
        given["image"],
        given["engine"],
        given["data"],
        dict(given["channel"]),
        records,
        serves="serving" in given["only"],
        model=given["model"],
        start_s=given["start_s"],
    )
    if account.region and given["asked"]:
        region = account.region  # where it would be sent; the places of a request that is made here are no one's
    rest = (given["rule"], given["base_candidates"], given["unscanned_ok"])
    return Choices(account, given["seller"] or owner, region, request, rehearsed, *rest)


def _read(path: Path) -> Request:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadSettings(f"The request {path} can't be read as JSON: {error}") from None
    if not isinstance(told, dict):
        raise BadSettings(f"{path} holds no JSON object; a request of CreateAlgorithm was expected.")
    return told


def _place(request: Request) -> tuple[str, str]:
    """Return account and Region of the image that answers; those of no one where it is not in ECR."""
    containers = request.get("InferenceSpecification", {}).get("Containers") or [{}]
    found = rules.ECR.fullmatch(str(containers[0].get("Image", "")))
    return (found[1], found[2]) if found else ("", "")


def _written(path: Path) -> Path:
    """Write rows of the sample, as buyers send them."""
    path.write_bytes(sample_body("text/csv"))
    return path
