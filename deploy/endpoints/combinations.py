"""What can't be combined in an endpoint, as one table: each row has its source, and is told before any call is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deploy.errors import BadSettings
from deploy.instances import ARM, LOCAL
from deploy.jobs.models import PACKAGE_ARN
from deploy.settings import Endpoint, Image, Network, Scaling, Update

KINDS = ("realtime", "serverless", "async", "multi-model")
STRATEGIES = ("canary", "linear", "rolling", "all-at-once")
BOUNDS = {"canary": (1, 50), "linear": (10, 50), "rolling": (5, 50)}
"""Per cent of the instances that a step may have: API:TrafficRoutingConfig, API:RollingUpdatePolicy."""
MOST_CONCURRENT = {"serverless": 200, "async": 1000}
"""H-33, H-32."""
GUARDRAILS = "DOC:deployment-guardrails-exclusions"
SHADOWS = "DOC:shadow-tests-exclusions"
ECR = re.compile(r"\d{12}\.dkr\.ecr(-fips)?\.[^/]+\.amazonaws\.com(\.cn)?")
HERE = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")
"""A registry on this machine, as a rehearsal has one."""


@dataclass(frozen=True)
class Asked:
    """All that is asked of an endpoint."""

    endpoint: Endpoint
    update: Update
    network: Network
    image: Image

    @property
    def serverless(self) -> bool:
        """Whether there are no instances to choose."""
        return self.endpoint.kind == "serverless"

    @property
    def has_shadow(self) -> bool:
        """Whether a second model gets copies of the requests."""
        return bool(self.endpoint.shadow_model_data)

    @property
    def registry(self) -> str:
        """The host that the image is pulled from; empty for the account's ECR."""
        host, slash, _ = self.image.uri.partition("/")
        return self.image.registry.partition("/")[0] or (host if slash else "")


@dataclass(frozen=True)
class Rule:
    """Two settings that don't go together, or one that has no such value."""

    source: str
    """A number of the platforms' rules, the shape of the API, or the page of AWS's guide."""
    reason: str
    broken: Callable[[Asked], object]


RULES = (
    Rule("--kind", f"The kind is one of {', '.join(KINDS)}.", lambda it: it.endpoint.kind not in KINDS),
    Rule(
        "--strategy", f"The strategy is one of {', '.join(STRATEGIES)}.", lambda it: it.update.strategy not in ("", *STRATEGIES)
    ),
    # Serverless
    Rule("H-33", "A serverless endpoint is in no VPC: leave out --subnets and --security-groups.", lambda it: _vpc(it)),
    Rule(
        "H-33",
        "A serverless endpoint can't be isolated: leave out --isolation.",
        lambda it: it.serverless and it.network.isolation,
    ),
    Rule(
        "H-33",
        "A serverless endpoint has no data capture: --capture-percent 0.",
        lambda it: it.serverless and it.endpoint.capture_percent,
    ),
    Rule(
        "H-33",
        "A serverless endpoint has one variant, so no shadow: leave out --shadow-model-data.",
        lambda it: it.serverless and it.has_shadow,
    ),
    Rule(
        "API:CreateEndpointConfigInput",
        "A serverless endpoint has no volume that a key could encrypt: leave out --volume-key.",
        lambda it: it.serverless and it.network.volume_key,
    ),
    Rule(
        "H-33",
        "The memory of a serverless endpoint is 1024, 2048, 3072, 4096, 5120 or 6144 MB.",
        lambda it: it.serverless and it.endpoint.memory_mb not in range(1024, 6145, 1024),
    ),
    # Shadow
    Rule(
        SHADOWS,
        "An asynchronous endpoint has no shadow: leave out --shadow-model-data.",
        lambda it: it.has_shadow and it.endpoint.kind == "async",
    ),
    Rule(
        SHADOWS,
        "A multi-model endpoint has no shadow: leave out --shadow-model-data.",
        lambda it: it.has_shadow and it.endpoint.kind == "multi-model",
    ),
    Rule(SHADOWS, "Inf1 instances have no shadow: choose another --instance-type.", lambda it: it.has_shadow and _inf1(it)),
    Rule(
        "API:ProductionVariant",
        "The share of requests that a shadow gets is 1 to 100 per cent.",
        lambda it: it.has_shadow and it.endpoint.shadow_percent not in range(1, 101),
    ),
    # Model data
    Rule(
        "H-23",
        "A multi-model endpoint takes the prefix under which the models are: --model-data s3://BUCKET/PREFIX/.",
        lambda it: it.endpoint.kind == "multi-model" and not re.fullmatch(r"s3://[^/]+/(.*/)?", it.endpoint.model_data),
    ),
    Rule(
        "H-5",
        "The model is a model.tar.gz in S3, or a model package: --model-data s3://BUCKET/../model.tar.gz or its ARN.",
        lambda it: (
            it.endpoint.kind != "multi-model"
            and not all(map(_is_model, (it.endpoint.model_data, it.endpoint.shadow_model_data)))
        ),
    ),
    # Image and instances
    Rule(
        "T-8",
        "SageMaker hosts images of ECR; push it there: leave out --registry.",
        lambda it: it.registry and not ECR.fullmatch(it.registry) and not HERE.fullmatch(it.registry),
    ),
    Rule(
        "T-7",
        "The image is made for linux/amd64, and that instance type is Arm: choose another --instance-type.",
        lambda it: not it.serverless and ARM.match(it.endpoint.instance_type),
    ),
    Rule(
        "API:CreateEndpointConfigInput",
        "That instance type has disks of its own, which the hardware encrypts: leave out --volume-key, or choose another.",
        lambda it: not it.serverless and it.network.volume_key and LOCAL.match(it.endpoint.instance_type),
    ),
    Rule(
        "API:ProductionVariant",
        "An endpoint begins with one instance at least: --instance-count 1.",
        lambda it: not it.serverless and it.endpoint.instance_count < 1,
    ),
    Rule("H-1", "The environment has 100 entries at most, each of 1024 bytes, and of 32 KB in all.", lambda it: not _fits(it)),
    # Asynchronous
    Rule(
        "API:AsyncInferenceConfig",
        "An asynchronous endpoint writes its answers to S3: name where with --async-output s3://BUCKET/PREFIX.",
        lambda it: _lacks(it, "async_output"),
    ),
    Rule(
        "H-32, H-33",
        "Requests at a time: 1 to 200 for a serverless endpoint, 1 to 1000 on an asynchronous one's instance.",
        lambda it: not 1 <= it.endpoint.concurrency <= MOST_CONCURRENT.get(it.endpoint.kind, 10**9),
    ),
    # Capture
    Rule(
        "API:DataCaptureConfig",
        "The share of requests that is captured is 0 to 100 per cent.",
        lambda it: it.endpoint.capture_percent not in range(101),
    ),
    Rule(
        "API:DataCaptureConfig",
        "What is captured is written to S3: name where with --capture-output s3://BUCKET/PREFIX.",
        lambda it: it.endpoint.capture_percent and not it.endpoint.capture_output,
    ),
    # Times
    Rule(
        "H-7",
        "--startup-s and --download-s are 60 to 3600.",
        lambda it: not all(60 <= each <= 3600 for each in (it.endpoint.startup_s, it.endpoint.download_s)),
    ),
    Rule(
        "H-42",
        "--bake-s and --keep-old-s are 0 to 3600.",
        lambda it: not all(0 <= each <= 3600 for each in (it.update.bake_s, it.update.keep_old_s)),
    ),
    Rule(
        "H-42",
        "--limit-s is 600 to 28800, or 0 for what the steps need.",
        lambda it: it.update.limit_s and not 600 <= it.update.limit_s <= 28800,
    ),
    # Updates
    Rule(
        "H-42",
        "A canary is 1 to 50 per cent of the instances, a linear step 10 to 50, a rolling one 5 to 50.",
        lambda it: not _step_fits(it.update),
    ),
    Rule(
        GUARDRAILS,
        "A serverless endpoint can't be updated by rolling: --strategy canary, linear or all-at-once.",
        lambda it: it.serverless and it.update.strategy == "rolling",
    ),
    Rule(
        GUARDRAILS,
        "An endpoint with two variants can't be updated by rolling: --strategy all-at-once.",
        lambda it: it.has_shadow and it.update.strategy == "rolling",
    ),
    Rule(
        GUARDRAILS,
        "Inf1 instances are updated all at once: --strategy all-at-once.",
        lambda it: _inf1(it) and it.update.strategy not in ("", "all-at-once"),
    ),
    Rule(
        "H-42",
        "A rolling update removes old instances as it goes and keeps none: --keep-old-s 0.",
        lambda it: it.update.strategy == "rolling" and it.update.keep_old_s,
    ),
    Rule("H-42", "An update takes 10 alarms at most.", lambda it: len(it.update.alarms) > 10),
    Rule(
        "--no-guard",
        "--alarms are for turning back, which --no-guard forbids: one or the other.",
        lambda it: it.update.alarms and not it.update.guard,
    ),
    Rule(
        "AWS/SageMaker Invocation5XXErrors",
        "--error-percent is over 0 and under 100, --latency-ms 0 or more.",
        lambda it: not 0 < it.update.error_percent < 100 or it.update.latency_ms < 0,
    ),
)


def refuse(asked: Asked) -> None:
    """Raise BadSettings where settings can't be combined; the message has every reason, not only the first."""
    _raise([f"{rule.reason} ({rule.source})" for rule in RULES if rule.broken(asked)])


def refuse_scaling(scaling: Scaling, kind: str = "") -> None:
    """Raise BadSettings where an endpoint can't be scaled like that; of a kind, where that is known."""
    _raise(list(_scaling_faults(scaling, kind)))


def _scaling_faults(scaling: Scaling, kind: str) -> Iterator[str]:
    if kind == "serverless":
        yield "A serverless endpoint scales by itself, up to --concurrency: there is nothing to set. (H-33)"
    if scaling.min_count < 1 and kind not in ("", "async"):
        yield "An endpoint has one instance at least; only an asynchronous one can do with --min-count 0. (H-32)"
    if not 0 <= scaling.min_count <= scaling.max_count:
        yield f"--min-count {scaling.min_count} is over --max-count {scaling.max_count}, or below 0. (API:ScalableTarget)"
    if scaling.max_count < 1:
        yield "--max-count is 1 or more. (API:ScalableTarget)"
    if scaling.invocations <= 0 or scaling.backlog <= 0:
        yield "--invocations and --backlog are over 0. (API:TargetTrackingScalingPolicyConfiguration)"
    if min(scaling.scale_in_s, scaling.scale_out_s) < 0:
        yield "--scale-in-s and --scale-out-s are 0 or more. (API:TargetTrackingScalingPolicyConfiguration)"


def _raise(reasons: list[str]) -> None:
    if reasons:
        raise BadSettings("These settings can't be combined:\n" + "\n".join(f"- {reason}" for reason in reasons))


def _vpc(it: Asked) -> bool:
    return it.serverless and bool(it.network.subnets or it.network.security_groups)


def _inf1(it: Asked) -> bool:
    return not it.serverless and it.endpoint.instance_type.startswith("ml.inf1.")


def _is_model(data: str) -> bool:
    return not data or bool(re.fullmatch(r"s3://[^/]+/.+\.tar\.gz", data) or PACKAGE_ARN.fullmatch(data))


def _lacks(it: Asked, setting: str) -> bool:
    return it.endpoint.kind == "async" and not getattr(it.endpoint, setting)


def _fits(it: Asked) -> bool:
    texts = [text.encode() for pair in it.endpoint.environment.items() for text in pair]
    return len(texts) <= 200 and all(len(text) <= 1024 for text in texts) and sum(map(len, texts)) <= 32 * 1024


def _step_fits(update: Update) -> bool:
    low, high = BOUNDS.get(update.strategy or "canary", (0, 100))
    return low <= update.step_percent <= high
