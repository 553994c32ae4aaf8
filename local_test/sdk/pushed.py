"""Train and serve an image with the SDK's local mode, version 3, as far as a deployment needs it, and keep the model.

Run it in the environment of the lock's section `sdk3`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from local_test import sdk
from local_test.sdk import sandbox, v3


def rehearse(job: sdk.Job) -> None:
    """Train on one host, keep its `model.tar.gz`, serve it and ask it with each format."""
    session = v3.open_session(job)
    model, manifest = v3.train(job, session.sagemaker_client)
    shutil.copyfile(model.removeprefix("file://"), job.options.keep)
    v3.serve(job, session, model, manifest)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add where the model is kept."""
    parser.add_argument("--keep", type=Path, required=True, metavar="FILE", help="where model.tar.gz is copied to")


if __name__ == "__main__":
    sandbox.run(rehearse, __doc__, declare)
