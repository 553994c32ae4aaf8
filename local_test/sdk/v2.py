"""Train and serve an image with the local mode of the SageMaker SDK 2.x, as most notebooks do: `Estimator`, `deploy`.

Run it in the environment of the lock's section `sdk2`; the first thing that is not right ends it with a message.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from local_test import sdk
from local_test.sdk import sandbox


def rehearse(job: sdk.Job) -> None:
    """Do everything, in order (contract 5.2)."""
    with job.account.step("import the SDK") as facts:
        import boto3
        from sagemaker.local import LocalSession

        session = LocalSession(boto_session=boto3.Session(region_name=sdk.REGION))
        session.config = job.local_config()
        facts["sdk"] = f"sagemaker {version('sagemaker')}"
    channels = dict(zip((sdk.CHANNEL, sdk.HELD_OUT), sdk.split_rows(job), strict=True))
    estimator, manifest = fit(job, session, channels)
    deploy(job, estimator, manifest)
    transform(job, estimator, manifest)
    fit_on_several_hosts(job, session, channels, manifest)


def fit(job: sdk.Job, session: sdk.Untyped, channels: Mapping[str, Path]) -> tuple[sdk.Untyped, dict[str, Any]]:
    """Fit an `Estimator` on one host; return it and its model's manifest."""
    with job.account.step("fit an Estimator") as facts:
        estimator = fit_estimator(job, session, channels)
        model = model_of(estimator)
        facts["model"] = model.name
        return estimator, sdk.read_manifest(model)


def fit_estimator(job: sdk.Job, session: sdk.Untyped, channels: Mapping[str, Path], hosts: int = 1) -> sdk.Untyped:
    """Return an `Estimator` that has been fitted on so many hosts, each a container of its own."""
    from sagemaker.estimator import Estimator
    from sagemaker.inputs import TrainingInput

    estimator = Estimator(
        image_uri=job.image,
        role=sdk.ROLE,
        instance_count=hosts,
        instance_type="local",
        sagemaker_session=session,
        output_path="file://" + tempfile.mkdtemp(dir=job.root),  # L-3: without it the SDK asks STS for a bucket
        hyperparameters={"estimator": "lightgbm", **job.hyperparameters},
        environment={"OMP_NUM_THREADS": "1"},  # else each host's container takes this machine for its own
    )
    estimator.fit({name: TrainingInput(f"file://{folder}", content_type="text/csv") for name, folder in channels.items()})
    return estimator


def model_of(estimator: sdk.Untyped) -> Path:
    """Return where a fit left its `model.tar.gz`."""
    return Path(estimator.model_data.removeprefix("file://"))


def deploy(job: sdk.Job, estimator: sdk.Untyped, manifest: dict[str, Any]) -> None:
    """Deploy the model, predict with each format, delete the endpoint."""
    with job.account.step("deploy"):
        # It returns when /ping answers; wait=True would then sleep 30 s before it asks the endpoint's state.
        predictor = estimator.deploy(1, "local", wait=False)

    def invoke(body: bytes, media_type: str) -> bytes:
        content: bytes = predictor.predict(body, initial_args={"ContentType": media_type, "Accept": media_type})
        return content

    sdk.invoke_with_each_format(job, manifest, invoke)
    # A transform job publishes its own server on the same port: the endpoint has to go first.
    with job.account.step("delete the endpoint"):
        predictor.delete_endpoint()


def transform(job: sdk.Job, estimator: sdk.Untyped, manifest: dict[str, Any]) -> None:
    """Run a transform job: one line out for each line in, in order."""
    folder, expected = sdk.write_batch(job, manifest, "batch-input", copies=7)
    with job.account.step("transform, split_type and assemble_with Line") as facts:
        output = job.folder("batch-output")
        uri = f"file://{output}"
        transformer = estimator.transformer(1, "local", output_path=uri, accept="text/csv", assemble_with="Line")
        # L-9: with wait=True it asks CloudWatch for logs, after the output is written, and raises NoCredentialsError.
        transformer.transform(f"file://{folder}", content_type="text/csv", split_type="Line", wait=False)
        facts["records"] = sdk.check_batch(output, expected)


def fit_on_several_hosts(job: sdk.Job, session: sdk.Untyped, channels: Mapping[str, Path], alone: dict[str, Any]) -> None:
    """Fit on several hosts what one was fitted on: the containers end in order, and the model is as good."""
    with job.account.step(f"fit an Estimator on {job.hosts} hosts") as facts:
        manifest = sdk.read_manifest(model_of(fit_estimator(job, session, channels, job.hosts)))
        facts["rows"] = manifest["data"]["hosts"]
        facts["containers"] = sdk.check_ends(sandbox.ends_of(facts["rows"]))
        facts["measured"] = sdk.check_scores(manifest, alone)


if __name__ == "__main__":
    sandbox.run(rehearse, __doc__)
