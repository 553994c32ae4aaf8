"""Train and serve an image with the local mode of the SageMaker SDK 3.x: `LocalSession`'s client, then `ModelTrainer`.

Run it in the environment of the lock's section `sdk3`; the first thing that is not right ends it with a message.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from local_test import sdk
from local_test.sdk import sandbox

LEFTOVER = "left by an earlier run"


def rehearse(job: sdk.Job) -> None:
    """Do everything, in order."""
    session = open_session(job)
    model, manifest = train(job, session.sagemaker_client)
    serve(job, session, model, manifest)
    transform(job, session.sagemaker_client, manifest)
    train_with_model_trainer(job)


def open_session(job: sdk.Job) -> sdk.Untyped:
    """Import the SDK and return a session of its local mode."""
    with job.account.step("import the SDK") as facts:
        import boto3
        from sagemaker.core.local import LocalSession

        session = LocalSession(boto_session=boto3.Session(region_name=sdk.REGION))
        session.config = job.local_config()
        facts["sdk"] = f"sagemaker {version('sagemaker')}"
    return session


def train(job: sdk.Job, client: sdk.Untyped) -> tuple[str, dict[str, Any]]:
    """Train on one host; return the model's URI and its manifest (contract 5.3)."""
    with job.account.step("train on one host") as facts:
        model = run_training_job(job, client, job.data, job.folder("output"))
        manifest = sdk.read_manifest(model)
        facts["model"] = model.name
    return f"file://{model}", manifest


def run_training_job(job: sdk.Job, client: sdk.Untyped, data: Path, output: Path) -> Path:
    """Run a training job over a folder, named after that of its output; return its `model.tar.gz`."""
    client.create_training_job(
        TrainingJobName=output.name,
        AlgorithmSpecification={"TrainingImage": job.image, "TrainingInputMode": "File"},
        InputDataConfig=[channel(data)],
        OutputDataConfig={"S3OutputPath": f"file://{output}"},
        ResourceConfig={"InstanceType": "local", "InstanceCount": 1},
        HyperParameters=job.hyperparameters,
        Environment=job.environ,
    )
    uri: str = client.describe_training_job(output.name)["ModelArtifacts"]["S3ModelArtifacts"]
    return Path(uri.removeprefix("file://"))


def channel(folder: Path) -> dict[str, Any]:
    """Return the request's form of one channel on this machine's disk."""
    source = {"FileDataDistributionType": "FullyReplicated", "FileUri": f"file://{folder}"}
    return {"ChannelName": sdk.CHANNEL, "ContentType": "text/csv", "DataSource": {"FileDataSource": source}}


def serve(job: sdk.Job, session: sdk.Untyped, model: str, manifest: dict[str, Any]) -> None:
    """Create an endpoint, invoke it with each format, delete it."""
    client = session.sagemaker_client
    with job.account.step("create the endpoint"):
        create_endpoint(job, client, model)
    sdk.invoke_with_each_format(job, manifest, lambda body, media_type: invoke(session, body, media_type, Accept=media_type))
    # A transform job publishes its own server on the same port: the endpoint has to go first.
    with job.account.step("delete the endpoint"):
        delete_endpoint(client)


def create_endpoint(job: sdk.Job, client: sdk.Untyped, model: str) -> None:
    """Create an endpoint of a model; it is in service when this returns."""
    client.create_model("model", {"Image": job.image, "ModelDataUrl": model, "Environment": job.environ})
    hosts = {"InstanceType": "local", "InitialInstanceCount": 1}
    client.create_endpoint_config("config", [{"VariantName": "AllTraffic", "ModelName": "model", **hosts}])
    client.create_endpoint("endpoint", "config")


def delete_endpoint(client: sdk.Untyped) -> None:
    """Delete the endpoint and its configuration; the model stays."""
    client.delete_endpoint("endpoint")
    client.delete_endpoint_config("config")


def invoke(session: sdk.Untyped, body: bytes, content_type: str, **more: str) -> bytes:
    """Return what the endpoint answers; raises LocalModeError where that is no 200."""
    answer = session.sagemaker_runtime_client.invoke_endpoint(body, "endpoint", ContentType=content_type, **more)
    content: bytes = answer["Body"].read()
    # The real client raises on an error; this one hands its body over as an answer.
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if status != 200:
        raise sdk.LocalModeError(f"{content_type} was answered with {status}: {content.decode(errors='replace')}")
    return content


def transform(job: sdk.Job, client: sdk.Untyped, manifest: dict[str, Any]) -> None:
    """Run a transform job of 100,000 rows as many records a request, then a few as one; every answer is one line, in order."""
    for strategy, copies in (("MultiRecord", 33_334), ("SingleRecord", 7)):
        folder, expected = sdk.write_batch(job, manifest, f"batch-input-{strategy}", copies)
        with job.account.step(f"transform, {strategy}, SplitType and AssembleWith Line") as facts:
            output = job.folder(f"batch-{strategy}")
            run_transform_job(client, folder, output, "text/csv", BatchStrategy=strategy)
            facts["records"] = sdk.check_batch(output, expected)
    client.delete_model("model")


def run_transform_job(client: sdk.Untyped, folder: Path, output: Path, content_type: str, **more: str) -> None:
    """Run a transform job of the model over a folder of lines, named after that of its output."""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"file://{folder}"}}
    # Nothing waits here, so nothing asks CloudWatch for logs (L-9).
    client.create_transform_job(
        TransformJobName=output.name,
        ModelName="model",
        TransformInput={"DataSource": source, "ContentType": content_type, "SplitType": "Line"},
        TransformOutput={"S3OutputPath": f"file://{output}", "Accept": content_type, "AssembleWith": "Line"},
        TransformResources={"InstanceType": "local", "InstanceCount": 1},
        **more,
    )


def train_with_model_trainer(job: sdk.Job) -> None:
    """Train twice into one root with `ModelTrainer`, which passes no word (L-12); the second replaces the first's."""
    # It names its compose project after this folder: under a fixed name two runs would share their containers.
    root = job.folder(f"{job.root.name}-trainer")
    model = job.folder(f"{root.name}/model")  # else the engine makes it, as root
    with job.account.step("train with ModelTrainer, which passes no word"):
        fit(job, root)
        sdk.read_manifest(root / "compressed_artifacts" / "model.tar.gz")
    with job.account.step("train again into the same root") as facts:
        replaced = damage(model)
        fit(job, root)
        manifest = sdk.read_manifest(root / "compressed_artifacts" / "model.tar.gz")
        kept = [path.name for path in replaced if path.exists() and path.read_bytes() == LEFTOVER.encode()]
        if kept:
            raise sdk.LocalModeError(
                f"`train` left what was in /opt/ml/model before it: {', '.join(kept)}. It must replace it."
            )
        facts["replaced"] = ", ".join(sorted(path.name for path in replaced))
        facts["rows in the manifest"] = len(manifest["samples"])


def fit(job: sdk.Job, root: Path) -> None:
    """Run one `ModelTrainer`; offline it needs no session, no role and no credentials."""
    from sagemaker.core.training.configs import Compute, InputData
    from sagemaker.train import ModelTrainer
    from sagemaker.train.model_trainer import Mode

    trainer = ModelTrainer(
        training_mode=Mode.LOCAL_CONTAINER,
        training_image=job.image,
        compute=Compute(instance_type="local_cpu", instance_count=1),
        hyperparameters=job.hyperparameters,
        environment=job.environ,
        local_container_root=str(root),
    )
    data = InputData(channel_name=sdk.CHANNEL, data_source=str(job.data), content_type="text/csv")
    trainer.train(input_data_config=[data])


def damage(model: Path) -> list[Path]:
    """Replace every file of a model directory by one that says it is left over; return them."""
    files = [path for path in model.iterdir() if path.is_file()]
    for path in files:
        path.unlink()
        path.write_text(LEFTOVER)
    return files


if __name__ == "__main__":
    sandbox.run(rehearse, __doc__)
