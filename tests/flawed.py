"""Products with one fault each: Berth's image with a few lines more in `train` or `serve`, or its request with one edit."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conftest import ROOT

PLACE = "/opt/berth/container"
ANSWER = """
import asyncio
from dataclasses import replace
from serving.app import App
sound = App.answer
async def answer(self, scope, receive, body=None):
    path = scope["path"]
    {before}
    got = await sound(self, scope, receive, body)
    {after}
    return got
App.answer = answer
"""
LOUD = """
def loud(receive):
    async def heard():
        message = await receive()
        print(message.get("body"), flush=True)
        return message
    return heard
"""
"""A body that did not come in one piece with its head is still to be received when it is answered."""
JOB = """
import os
if len(sys.argv) < 2:
    {line}
    print({metric!r}, flush=True)
    Path("/opt/ml/model/model.json").write_text("{{}}")
    os._exit(0)
"""
"""A job that is over at once, and sound but for one line."""
METRIC = "metric validation:rmse=3.2;"


@dataclass(frozen=True)
class Flaw:
    """A fault of an image, the rule that names it, and the part of the check that sees it."""

    name: str
    number: str
    word: str
    """`train` or `serve`."""
    lines: str
    """Put before the program's own import; with none, the program is taken away."""
    is_long: bool = False
    """Whether only `make soak` tries it, as others of its kind are tried by `make test`."""

    @property
    def part(self) -> str:
        """Which part of the check sees it."""
        return {"train": "training", "serve": "serving"}[self.word]

    @property
    def image(self) -> str:
        """Its image's name."""
        return f"certify-{self.name}:test"

    def build(self, docker: str, base: str) -> None:
        """Make its image."""
        program = (ROOT / "container" / self.word).read_text()
        own = re.search(r"^from (training|serving)\.", program, re.MULTILINE)
        assert own
        edited = program[: own.start()] + self.lines + program[own.start() :]
        step = f"COPY {self.word} {PLACE}/{self.word}" if self.lines else f"RUN rm {PLACE}/{self.word}"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, text in (("Dockerfile", f"FROM {base}\n{step}\n"), (self.word, edited)):
                about = tarfile.TarInfo(name)
                about.size, about.mode = len(text.encode()), 0o755
                archive.addfile(about, io.BytesIO(text.encode()))
        done = subprocess.run(
            [docker, "build", "--quiet", "--tag", self.image, "-"], input=context.getvalue(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()


def answering(before: str = "pass", after: str = "pass") -> str:
    """Return lines that change what `serve` answers."""
    return ANSWER.format(before=before, after=after)


def training(line: str = "pass", metric: str = METRIC) -> str:
    """Return lines that `train` runs in a job, in place of its own."""
    return JOB.format(line=line, metric=metric)


FETCH = "import urllib.request\n{indent}urllib.request.urlopen('http://weights.example.com/')\n"
ON_INVOKE = "if path == '/invocations' and got.status == 200: "
FLAWS = (
    Flaw("train-fetches", "M-7", "train", training(FETCH.format(indent="    "))),
    Flaw("train-wants-gpu", "M-5", "train", training("os.path.exists('/dev/nvidia0') or sys.exit('no GPU was found')")),
    Flaw("train-writes-root", "M-14", "train", training("Path('/var/lib/state').write_text('seen')")),
    Flaw(
        "train-logs-rows",
        "T-39",
        "train",
        training("print(next(Path('/opt/ml/input/data/training').glob('*.csv')).read_text())"),
    ),
    Flaw("train-prints-other-metrics", "T-37", "train", training(metric="metric validation:rmse is 3.2")),
    Flaw("train-says-more", "M-3", "train", "print('loading')\n" + training()),
    Flaw("serve-missing", "H-1", "serve", ""),
    Flaw("serve-fetches", "M-7", "serve", FETCH.format(indent="")),
    Flaw("ping-slow", "H-8", "serve", answering("if path == '/ping': await asyncio.sleep(3)")),
    Flaw("ping-logged", "H-37", "serve", answering("if path == '/ping': print('ping', flush=True)"), is_long=True),
    Flaw(
        "serve-logs-rows", "H-37", "serve", LOUD + answering("if path == '/invocations': print(body); receive = loud(receive)")
    ),
    Flaw("serve-other-type", "M-4", "serve", answering(after=ON_INVOKE + "got = replace(got, media_type='text/plain')")),
    Flaw("serve-one-more-row", "H-29", "serve", answering(after=ON_INVOKE + "got = replace(got, body=got.body + b'\\n0')")),
    Flaw(
        "serve-offers-too-much",
        "M-11",
        "serve",
        answering(
            after="if path == '/execution-parameters': "
            'got = replace(got, body=b\'{"MaxConcurrentTransforms": 30, "MaxPayloadInMB": 6}\')'
        ),
    ),
    Flaw(
        "serve-fails-on-much",
        "M-11",
        "serve",
        answering(after=ON_INVOKE + "got = replace(got, status=500) if len(got.body) > 1_000_000 else got"),
        is_long=True,
    ),
    Flaw(
        "serve-blames-itself",
        "H-15",
        "serve",
        answering(after="if got.status == 400: got = replace(got, status=500)"),
        is_long=True,
    ),
    Flaw("serve-writes-root", "M-14", "serve", "Path('/var/lib/state').write_text('seen')\n", is_long=True),
)
Edit = Callable[[dict[str, Any]], None]


def _profile(request: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = request["ValidationSpecification"]["ValidationProfiles"][0]
    return found


def _knob(request: dict[str, Any], kind: str) -> dict[str, Any]:
    knobs = request["TrainingSpecification"]["SupportedHyperParameters"]
    return next(knob for knob in knobs if knob["Type"] == kind)  # type: ignore[no-any-return]


def _image(request: dict[str, Any], old: str, new: str) -> None:
    for place, key in (
        (request["TrainingSpecification"], "TrainingImage"),
        (request["InferenceSpecification"]["Containers"][0], "Image"),
    ):
        assert old in place[key]
        place[key] = place[key].replace(old, new)


def _bounds(request: dict[str, Any]) -> dict[str, Any]:
    return _knob(request, "Integer")["Range"]["IntegerParameterRangeSpecification"]  # type: ignore[no-any-return]


EDITS: dict[str, tuple[str, Edit]] = {
    "the channel that the job reads is missing": (
        "M-5",
        lambda one: one["TrainingSpecification"]["TrainingChannels"].pop(0),
    ),
    "a required hyperparameter has a default": ("M-3", lambda one: _knob(one, "Integer").update(IsRequired=True)),
    "there are two profiles": (
        "M-5",
        lambda one: one["ValidationSpecification"]["ValidationProfiles"].append({**_profile(one), "ProfileName": "second"}),
    ),
    "the image has no tag": ("M-8", lambda one: _image(one, ":0.0.0", "")),
    "the image is in another Region": (
        "M-8",
        lambda one: one["InferenceSpecification"]["Containers"][0].update(
            Image=one["TrainingSpecification"]["TrainingImage"].replace("us-east-1", "us-west-2")
        ),
    ),
    "the image is of another account": ("M-8", lambda one: _image(one, "111122223333", "444455556666")),
    "a bound is a number": ("API", lambda one: _bounds(one).update(MinValue=1)),
    "a category has 31 values": (
        "API",
        lambda one: _knob(one, "Categorical")["Range"]["CategoricalParameterRangeSpecification"]["Values"].extend(
            f"more{number}" for number in range(31)
        ),
    ),
    "mini-batches are over-size": ("M-11", lambda one: _profile(one)["TransformJobDefinition"].update(MaxPayloadInMB=101)),
    "an objective is no metric": (
        "M-2",
        lambda one: one["TrainingSpecification"]["SupportedTuningJobObjectiveMetrics"][0].update(MetricName="accuracy"),
    ),
    "it is not to be certified": ("M-1", lambda one: one.update(CertifyForMarketplace=False)),
    "it answers nothing": ("M-1", lambda one: one.pop("InferenceSpecification")),
    "it is sold for Arm": (
        "T-7",
        lambda one: one["InferenceSpecification"]["SupportedRealtimeInferenceInstanceTypes"].append("ml.m7g.large"),
    ),
}
"""What is wrong with the request, the rule that names it, and the edit."""
