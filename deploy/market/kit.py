"""`publish kit`: all that a listing wants beside the algorithm (M-12), written from the declaration and real answers."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from contract.tuning import tuning_job
from deploy.errors import BadSettings
from deploy.images.engine import engine_of
from deploy.jobs.channels import SAMPLE
from deploy.jobs.training import METRICS
from deploy.market import logo
from deploy.market.answers import ROOT, Container, Runner, Tree
from deploy.market.delivery import REPOSITORY, version
from deploy.market.notebook import filled, notebook
from deploy.market.pages import PAGES, TEMPLATES, Material, page, table, values_of
from deploy.market.samples import BATCH_FILE, DIMENSION, literal, sampled, written
from deploy.market.settings import Kit, Listing
from deploy.options import takes
from deploy.settings import Image
from model import DECLARATION

MARK = ".listing-kit"
"""In a folder that this verb has written, and may write again."""


@click.command()
@takes(Image, Listing, Kit)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/listing"),
    show_default=True,
    help="Folder that it is written to; what an earlier run left there is replaced.",
)
@click.option("--from-source", is_flag=True, help="Let the source tree answer the samples instead of the image.")
def kit(image: Image, listing: Listing, kit: Kit, *, out: Path, from_source: bool) -> None:
    """Write what a listing wants beside the algorithm: texts, samples, notebook, logo and license text.

    The image trains on the sample and is asked about its rows; what it answers is what the listing shows.
    """
    data = _checked(out, listing, kit)
    runner: Runner = Tree()
    if not from_source:
        engine = engine_of(image.engine)
        runner = Container(engine, engine.image(image.image).name)
    release = listing.release or released()
    notes = notes_of(release)
    click.echo(f"Train on {data} and ask the model: {'the source tree' if from_source else image.image}")
    samples = sampled(runner, DECLARATION, data, listing.metering or DIMENSION)
    files = dict(_files(Material(DECLARATION, METRICS, samples, listing, kit, release, notes), image, data))
    _write(out, files)
    click.echo(f"{out} has {len(files)} files for {DECLARATION.title}, version {release}.")
    click.echo(f"Left to you: {', '.join(_left(kit))}. {out / 'README.md'} says where each file goes.")


def released(root: Path = ROOT) -> str:
    """Return the version that pyproject.toml names."""
    release: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return release


def notes_of(release: str, root: Path = ROOT) -> str:
    """Return what CHANGELOG.md says of a version.

    Raises:
        BadSettings: it says nothing.
    """
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(rf"^## \[?{re.escape(release)}(?![\w.+-])[^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise BadSettings(f"CHANGELOG.md has nothing under '## {release}': buyers read there what is new. Write it first.")
    return found[1].strip() + "\n"


def notebook_values(material: Material, image: str) -> dict[str, Any]:
    """Return what the notebook's template is filled with."""
    declaration = material.declaration
    search = tuning_job(declaration, material.metrics, declaration.estimators[0])
    config = search["HyperParameterTuningJobConfig"]
    objective = config["HyperParameterTuningJobObjective"]
    static = search["TrainingJobDefinition"]["StaticHyperParameters"]
    channel = material.specification["TrainingChannels"][0]
    return {
        "title": declaration.title,
        "about": declaration.about,
        "name": _short(declaration.name),
        "algorithms": dict(material.kit.algorithm_arn) or {"us-east-1": "ALGORITHM_ARN"},
        "image": image,
        "instance": material.listing.validation_type,
        "data": "samples/training",
        "realtime": "samples/realtime",
        "batch": "samples/batch",
        "batch_file": BATCH_FILE,
        "requests": literal(material.samples),
        "channel": channel["Name"],
        "training": f"{channel['Description']} The hyperparameters are described in training.md.",
        "metric": objective["MetricName"],
        "goal": objective["Type"],
        "hyperparameters": static,
        "static": static,
        "ranges": config["ParameterRanges"],
    }


def _files(material: Material, image: Image, data: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and what it holds."""
    yield "README.md", _guide(material).encode()
    for name in PAGES:
        yield f"{name}.md", page(name, material).encode()
    yield "notebook.ipynb", notebook(notebook_values(material, image.image)).encode()
    yield "release-notes.md", material.notes.encode()
    yield "eula.txt", _eula(material).encode()
    yield "logo.svg", logo.svg().encode()
    yield "logo.png", logo.png()
    yield "version.json", (json.dumps(version(material), indent=2, ensure_ascii=False) + "\n").encode()
    for name, body in written(material.samples, data):
        yield f"samples/{name}", body


def _eula(material: Material) -> str:
    text = (TEMPLATES / "eula.txt").read_text()
    known = {"[SELLER]": material.kit.seller, "[PRODUCT]": material.declaration.title, "[SUPPORT]": material.kit.support}
    for place, value in known.items():
        text = text.replace(place, value or place)
    return text


def _guide(material: Material) -> str:
    """Return which file goes where, in the order of the portal's pages."""
    portal = table(("the portal asks for", "give it"), PORTAL.items())
    values = {**values_of(material), "portal": portal, "left": ", ".join(_left(material.kit))}
    return filled(TEMPLATES / "guide.md", values)


def _left(kit: Kit) -> list[str]:
    """Return what only the seller can say."""
    missing = {
        "--seller": kit.seller,
        "--support": kit.support,
        "--kit-url": kit.kit_url,
        "--algorithm-arn (REGION=ARN, for the notebook)": kit.algorithm_arn,
    }
    return [*(name for name, value in missing.items() if not value), "eula.txt in the brackets", "prices", "a logo of your own"]


def _checked(out: Path, listing: Listing, kit: Kit) -> Path:
    """Return the folder of the sample; refuse a folder to write to that holds anything else, and addresses that are none."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise BadSettings(f"{out} holds files that this verb did not write. Name an empty or a new folder: --out DIR.")
    if kit.kit_url and not kit.kit_url.startswith("https://"):
        raise BadSettings(f"kit_url is {kit.kit_url!r}; such as {REPOSITORY} was expected: buyers follow it.")
    for region, arn in kit.algorithm_arn.items():
        if not arn.startswith(f"arn:aws:sagemaker:{region}:"):
            raise BadSettings(
                f"algorithm_arn {region} is {arn!r}; arn:aws:sagemaker:{region}:ACCOUNT:algorithm/NAME was expected."
            )
    data = Path(listing.sample or SAMPLE)
    if not data.is_dir():
        raise BadSettings(f"sample is {listing.sample!r}; a folder here was expected, for the kit holds what is in it.")
    return data


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Replace the folder's content."""
    if out.exists():
        shutil.rmtree(out)
    for name, body in {**files, MARK: b""}.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def _short(name: str) -> str:
    """Return a name that jobs can begin with: a time follows, and a tuning job's has 32 characters (H-44)."""
    return re.sub("[^A-Za-z0-9]+", "-", name).strip("-")[:16].strip("-") or "listing"


PORTAL = {
    "Product title, descriptions, use cases": "the beginning of usage.md",
    "Product logo": "logo.png, logo.svg: placeholders",
    "Support information": "support.md",
    "Version number and release notes": "release-notes.md; version.json has both",
    "Sample notebook, Git repository": "notebook.ipynb and this folder, as public addresses",
    "Training data inputs": "training.md, samples/training",
    "Input details": "inputs.md, samples/realtime, samples/batch",
    "Output details": "outputs.md, samples/realtime, samples/batch-answer",
    "Usage information": "usage.md",
    "Pricing": "pricing.md",
    "End user license agreement": "eula.txt, a template",
    "All of a version at once (Catalog API, AddDeliveryOptions)": "version.json, after the words in capitals are filled in",
}
"""Where the portal's pages ask for what (MK: publishing your product)."""
