"""Whether who is signed in may do what the verbs do, asked of IAM's policy simulator: nothing is tried out."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.cloud import TAG, Cloud
from deploy.images.registry import ecr_name
from deploy.network import role_of
from deploy.preflight.checks import Asked, Finding, Status

ACTIONS = (
    ("ecr", "*", ("ecr:GetAuthorizationToken", "pricing:GetProducts")),
    (
        "ecr",
        "repository/{repository}",
        (
            "ecr:CreateRepository",
            "ecr:PutLifecyclePolicy",
            "ecr:DescribeImages",
            "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:PutImage",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
        ),
    ),
    ("sagemaker", "training-job/{name}-preflight", ("sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob")),
    ("sagemaker", "hyper-parameter-tuning-job/{name}-preflight", ("sagemaker:CreateHyperParameterTuningJob",)),
    ("sagemaker", "transform-job/{name}-preflight", ("sagemaker:CreateTransformJob",)),
    ("sagemaker", "model/{name}-preflight", ("sagemaker:CreateModel",)),
    ("sagemaker", "endpoint-config/{name}-preflight", ("sagemaker:CreateEndpointConfig",)),
    (
        "sagemaker",
        "endpoint/{name}",
        ("sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint", "sagemaker:InvokeEndpoint"),
    ),
    ("sagemaker", "model-package-group/{name}", ("sagemaker:CreateModelPackageGroup",)),
)
"""Service, resource and actions, of what decides whether a verb can end: the templates' deployer may do all of it."""


def permissions(asked: Asked) -> Iterator[Finding]:
    """Say which of the verbs' actions are denied to who is signed in."""
    who = principal(asked.cloud)
    if not who:
        yield Finding(Status.WARN, "the simulator knows users and roles alone, so that what may be done can't be asked")
        return
    denied = sorted(_denied(asked, who))
    if denied:
        yield Finding(
            Status.WARN,
            f"not allowed, as far as IAM's simulator can tell: {', '.join(denied)}",
            "Attach the policies of deploy/templates/roles.yaml (docs/pipeline.md).",
        )
    else:
        count = sum(len(actions) for _, _, actions in ACTIONS)
        yield Finding(Status.PASS, f"{count} actions of the verbs are allowed, and so is handing over the roles")


def principal(cloud: Cloud) -> str:
    """Return the ARN of the user or the role that is signed in; empty of the account itself and of others."""
    arn = str(cloud.read("sts", "get_caller_identity")["Arn"])
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    if kind == "user":
        return arn
    if kind == "assumed-role":  # the role's path is not in it
        return str(cloud.read("iam", "get_role", RoleName=rest.partition("/")[0])["Role"]["Arn"])
    return ""


def _denied(asked: Asked, who: str) -> Iterator[str]:
    cloud = asked.cloud
    names = {"name": cloud.account.name.lower(), "repository": ecr_name(cloud.account.name, asked.image)}
    for service, resource, actions in ACTIONS:
        arn = "*" if resource == "*" else cloud.arn(service, resource.format(**names))
        yield from _simulated(cloud, who, arn, actions)
    for use in ("training", "hosting"):
        yield from _simulated(cloud, who, role_of(cloud, asked.network, use), ("iam:PassRole",))


def _simulated(cloud: Cloud, who: str, arn: str, actions: tuple[str, ...]) -> Iterator[str]:
    """Yield actions that are denied on a resource, whatever else a request holds."""
    context = {f"aws:RequestTag/{TAG}": cloud.account.name, "iam:PassedToService": "sagemaker.amazonaws.com"}
    results = cloud.pages(
        "iam",
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=who,
        ActionNames=list(actions),
        ResourceArns=[arn],
        ContextEntries=[
            {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"} for name, value in context.items()
        ],
    )
    for result in results:
        # What depends on the rest of a request, such as its subnets, can't be told.
        if result["EvalDecision"] != "allowed" and not result.get("MissingContextValues"):
            yield result["EvalActionName"]
