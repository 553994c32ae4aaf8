"""The CloudFormation templates: valid, every reference leading somewhere, and no role allowed more than is used."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import boto3
import botocore.loaders
import cfnlint.decode.cfn_yaml
import grimp
import pytest
from botocore import xform_name
from cfnlint.data import AdditionalSpecs
from conftest import ROOT
from moto import mock_aws

TEMPLATES = sorted((ROOT / "deploy" / "templates").glob("*.yaml"))
PROGRAMS = Path(sys.executable).parent
REGION, ACCOUNT = "us-east-1", "123456789012"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
CONNECTION = f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:connection/11111111-2222-3333-4444-555555555555"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
SUBNETS = {"FirstSubnet": "subnet-1", "SecondSubnet": "subnet-2", "SecurityGroup": "sg-1"}
LEAST = {
    "roles": {},
    "registry": {},
    "market": {},
    "pipeline": {"Connection": CONNECTION, "Source": "someone/berth"},
    "freshness": {"Connection": CONNECTION, "SourceUrl": "https://git.example/someone/berth.git"},
}
MOST = {
    "roles": {
        **SUBNETS,
        "Connection": CONNECTION,
        "KmsKey": KEY,
        "NetworkIsolation": "true",
        "PermissionsBoundary": BOUNDARY,
        "DataPrefix": "other/data",
        "Bucket": "models",
        "Repository": "images/berth",
    },
    "registry": {"KmsKey": KEY},
    "market": {"PermissionsBoundary": BOUNDARY, "Bucket": "models", "Repository": "images/berth"},
    "pipeline": {**LEAST["pipeline"], "KmsKey": KEY, "ApproverEmail": "a@example.com"},
    "freshness": {**LEAST["freshness"], "KmsKey": KEY, "Email": "a@example.com", "PermissionsBoundary": BOUNDARY},
}
NOT_IN_MOTO = {"AWS::CodeBuild::Project", "AWS::CodePipeline::Pipeline", "AWS::S3::BucketPolicy"}
"""What moto's CloudFormation makes nothing of: cfn-lint alone has looked at these."""


# ---- the templates


def test_cfn_lint_finds_nothing() -> None:
    done = subprocess.run([PROGRAMS / "cfn-lint", *TEMPLATES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@cache
def template(name: str) -> dict:
    """A template, with CloudFormation's short words written out."""
    document: dict = cfnlint.decode.cfn_yaml.load(ROOT / "deploy" / "templates" / f"{name}.yaml")
    return document


@cache
def made(most: bool) -> dict:
    """What all stacks make in moto: for each role its statements and its boundary, the repository, the bucket."""
    environ = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": REGION}
    with pytest.MonkeyPatch.context() as patched, mock_aws(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for name, value in environ.items():
            patched.setenv(name, value)
        cloudformation = boto3.client("cloudformation")
        outputs = {name: create(cloudformation, name, given) for name, given in (MOST if most else LEAST).items()}
        (repository,) = boto3.client("ecr").describe_repositories()["repositories"]
        s3, bucket = boto3.client("s3"), outputs["pipeline"]["ArtifactBucket"]
        found = {
            "outputs": outputs,
            "roles": dict(roles()),
            "policies": {
                logical(policy["PolicyName"]): document_of(policy["Arn"])["Statement"]
                for policy in boto3.client("iam").list_policies(Scope="Local")["Policies"]
            },
            "repository": repository,
            "encryption": s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"],
            "rules": {
                rule["Name"]: (rule, boto3.client("events").list_targets_by_rule(Rule=rule["Name"])["Targets"])
                for rule in boto3.client("events").list_rules()["Rules"]
            },
        }
    told = [re.search(r"parse (\S+) but", str(one.message)) for one in warned if one.category is UserWarning]
    return {**found, "lacking": {one[1] for one in told if one}}


def create(cloudformation, name: str, given: dict[str, str]) -> dict[str, str]:
    """Make a stack, and return its outputs."""
    body = (ROOT / "deploy" / "templates" / f"{name}.yaml").read_text()
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    cloudformation.create_stack(
        StackName=f"berth-{name}", TemplateBody=body, Parameters=parameters, Capabilities=["CAPABILITY_IAM"]
    )
    (stack,) = cloudformation.describe_stacks(StackName=f"berth-{name}")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def roles() -> Iterator[tuple[str, dict]]:
    """Yield each role by its name in its template, with all it may, as IAM has it."""
    iam = boto3.client("iam")
    for role in iam.list_roles()["Roles"]:
        name = role["RoleName"]
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        documents = [document_of(each["PolicyArn"]) for each in attached]
        own = [
            parsed(iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"])
            for each in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        yield (
            logical(name),
            {
                "arn": role["Arn"],
                "managed": documents,
                "own": own,
                "statements": [one for document in [*documents, *own] for one in document["Statement"]],
                "trust": parsed(role["AssumeRolePolicyDocument"])["Statement"],
                "boundary": iam.get_role(RoleName=name)["Role"].get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
            },
        )


def logical(name: str) -> str:
    """The name that something has in its template: STACK-NAME-RANDOM as CloudFormation calls it."""
    return name.split("-")[-2]


def document_of(arn: str) -> dict:
    """A managed policy's document."""
    iam = boto3.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return parsed(iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])


def parsed(document: dict | str) -> dict:
    """A policy; of a role's own ones moto gives back the text of a Python dict."""
    return ast.literal_eval(document) if isinstance(document, str) else document


ROLES = (
    *("TrainingRole", "HostingRole", "ValidationRole"),
    *("BuilderRole", "DeployerRole", "WatcherRole", "PipelineRole", "SchedulerRole"),
)
every_size = pytest.mark.parametrize("most", [False, True], ids=["least", "most"])
every_role = pytest.mark.parametrize("role", ROLES)
every_grant = pytest.mark.parametrize("role", [*ROLES, "RemovePolicy", "SellPolicy"])


@every_size
def test_every_stack_is_made_and_every_reference_leads_somewhere(most: bool) -> None:
    assert set(made(most)["roles"]) == set(ROLES)
    assert made(most)["lacking"] == NOT_IN_MOTO
    assert made(most)["outputs"]["roles"]["TrainingRoleArn"] == made(most)["roles"]["TrainingRole"]["arn"]
    assert made(most)["outputs"]["roles"]["HostingRoleArn"] == made(most)["roles"]["HostingRole"]["arn"]


def test_what_one_stack_imports_another_exports() -> None:
    text = {path.stem: path.read_text() for path in TEMPLATES}
    exported = set(re.findall(r'Export: \{Name: !Sub "(.+?)"\}', text["roles"]))
    imported = set(re.findall(r'Fn::ImportValue: !Sub "(.+?)"', "".join(text.values())))
    assert imported == exported


@every_size
def test_the_repository_scans_keeps_tags_still_and_forgets_old_images(most: bool) -> None:
    repository = made(most)["repository"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    written = template("registry")["Resources"]["ImageRepository"]["Properties"]  # moto makes nothing of the rest
    assert written["ImageScanningConfiguration"] == {"ScanOnPush": True}
    text = written["LifecyclePolicy"]["LifecyclePolicyText"]
    rules = json.loads(text["Fn::Sub"].replace("${KeepImages}", "50"))["rules"]
    assert [rule["selection"]["tagStatus"] for rule in rules] == ["untagged", "any"]


@every_size
def test_what_the_pipeline_keeps_is_encrypted_and_nobody_elses(most: bool) -> None:
    (rule,) = made(most)["encryption"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert rule["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID") == (KEY if most else None)
    bucket = template("pipeline")["Resources"]["Artifacts"]["Properties"]  # moto makes nothing of this
    assert [set(bucket["PublicAccessBlockConfiguration"].values()), len(bucket["PublicAccessBlockConfiguration"])] == [
        {True},
        4,
    ]
    (statement,) = template("pipeline")["Resources"]["ArtifactsOverTls"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_every_log_is_kept_for_some_time_and_has_its_project() -> None:
    for name in ("pipeline", "freshness"):
        resources = template(name)["Resources"]
        logs = {key for key, each in resources.items() if each["Type"] == "AWS::Logs::LogGroup"}
        assert all("RetentionInDays" in resources[log]["Properties"] for log in logs)
        projects = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::CodeBuild::Project"]
        assert {each["LogsConfig"]["CloudWatchLogs"]["GroupName"]["Ref"] for each in projects} == logs


def test_nothing_is_deployed_before_a_person_approves() -> None:
    stages = template("pipeline")["Resources"]["Pipeline"]["Properties"]["Stages"]
    assert [stage["Name"] for stage in stages] == ["Source", "Build", "Approve", "Deploy"]
    assert stages[2]["Actions"][0]["ActionTypeId"]["Category"] == "Approval"
    build = template("pipeline")["Resources"]["Build"]["Properties"]["Environment"]
    assert {each["Name"] for each in build["EnvironmentVariables"]} >= {"PUSH", "BASE_IMAGE"}
    assert "APPROVED" not in {each["Name"] for each in build["EnvironmentVariables"]}


@every_size
def test_the_clock_starts_the_look_and_the_pipeline_and_may_start_nothing_else(most: bool) -> None:
    rules, scheduler = made(most)["rules"], made(most)["roles"]["SchedulerRole"]
    assert set(rules) == {"berth-look", "berth-rebuild"}
    assert {target["RoleArn"] for _, targets in rules.values() for target in targets} == {scheduler["arn"]}
    actions = {one["Action"] for one in scheduler["statements"]}
    assert actions == {"codebuild:StartBuild", "codepipeline:StartPipelineExecution"}


# ---- what each role may


def listed(value: str | Iterable[str]) -> list[str]:
    """One or several, as a list."""
    return [value] if isinstance(value, str) else list(value)


def statements(role: str, most: bool, effect: str = "Allow") -> list[dict]:
    """A role's statements of one effect; or a policy's."""
    found = made(most)
    return [one for one in found["policies"].get(role) or found["roles"][role]["statements"] if one["Effect"] == effect]


def may(role: str, action: str, resource: str = "", *, most: bool = False) -> bool:
    """Say whether a role's statements allow an action, their conditions aside."""
    return any(
        action in listed(one["Action"]) and any(fnmatchcase(resource, each) for each in listed(one["Resource"]))
        for one in statements(role, most)
    )


@cache
def known() -> dict:
    """What AWS's services know: actions, the resources of each, and how their ARNs look. As cfn-lint has it."""
    document: dict = json.loads((Path(AdditionalSpecs.__file__).parent / "Policies.json").read_text())
    return document


def formats(action: str) -> list[str]:
    """The ARNs an action may be about, as expressions; none where it knows no resources; KeyError for what is no action."""
    service, _, name = action.partition(":")
    resources = {key.lower(): each for key, each in known()[service].get("Resources", {}).items()}
    named = known()[service]["Actions"][name.lower()].get("Resources", [])
    written = [each for kind in named for each in resources[kind.lower()]["ARNFormats"]]
    return [re.sub(r"\$\{[^}]+\}", "[^:]*", each) for each in written]


@every_size
@every_grant
def test_every_action_exists_and_is_named_in_full(role: str, most: bool) -> None:
    both = [*statements(role, most), *statements(role, most, effect="Deny")]
    actions = {action for one in both for action in listed(one["Action"])}
    assert [action for action in sorted(actions) if "*" in action or formats(action) is None] == []


def nameless(role: str, most: bool) -> set[str]:
    """The actions that a role has on `*` though they know resources, or on an ARN with a wildcard and no name of ours."""
    pairs = {
        (action, each)
        for one in statements(role, most)
        for action in listed(one["Action"])
        for each in listed(one["Resource"])
        if "*" in each and formats(action)
    }
    return {action for action, each in pairs if not any(name in each for name in ("berth", "models", "other/data"))}


@every_size
@every_grant
def test_whatever_can_be_named_is_named(role: str, most: bool) -> None:
    assert nameless(role, most) - NAMELESS.keys() == set()


def test_no_exception_is_kept_for_what_is_named() -> None:
    assert NAMELESS.keys() - {action for role in (*ROLES, "SellPolicy") for action in nameless(role, most=True)} == set()


NAMELESS = {
    **dict.fromkeys(
        (
            "ec2:CreateNetworkInterface",
            "ec2:CreateNetworkInterfacePermission",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
        ),
        "AWS gives interfaces their names; a condition names their subnets",
    ),
    **dict.fromkeys(
        (
            "application-autoscaling:DeleteScalingPolicy",
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:RegisterScalableTarget",
            "application-autoscaling:TagResource",
        ),
        "AWS gives scalable targets their names; a condition names the service",
    ),
    **dict.fromkeys(
        ("logs:DescribeLogStreams", "logs:FilterLogEvents"),
        "the streams of a log group that is named",
    ),
    **dict.fromkeys(
        ("cloudwatch:ListTagsForResource", "logs:ListTagsForResource", "sagemaker:ListTags"),
        "whose something is, its tags tell",
    ),
    **dict.fromkeys(
        ("logs:CreateLogStream", "logs:PutLogEvents"),
        "AWS names the jobs of its validation; the other roles' streams are named, as a test below says",
    ),
    "sagemaker:ListModelPackages": "what is sold is in no group",
    "cloudwatch:DescribeAlarms": "asked by the beginning of a name, which IAM takes for all",
    "cloudwatch:PutMetricData": "a metric is no resource; a condition names the namespace",
}
"""Actions about what has no name of ours, and why."""
OLD_NAME = {"codestar-connections:UseConnection"}
"""A connection's ARN begins with the one or the other, by its age."""


@every_size
@every_grant
def test_every_action_stands_with_an_arn_that_it_can_be_about(role: str, most: bool) -> None:
    wrong = {
        action
        for one in statements(role, most)
        for action in listed(one["Action"])
        if formats(action)
        and action not in OLD_NAME | NAMELESS.keys()
        and not any(re.fullmatch(form, each) for form in formats(action) for each in listed(one["Resource"]))
    }
    assert wrong == set()


@every_size
@every_role
def test_a_role_is_one_services_in_this_account_alone(role: str, most: bool) -> None:
    (statement,) = made(most)["roles"][role]["trust"]
    assert list(statement["Principal"]) == ["Service"]
    assert statement["Principal"]["Service"].endswith(".amazonaws.com")
    assert statement["Condition"]["StringEquals"]["aws:SourceAccount"] == ACCOUNT


@every_role
def test_a_boundary_bounds_every_role(role: str) -> None:
    assert made(most=True)["roles"][role]["boundary"] == BOUNDARY
    assert not made(most=False)["roles"][role]["boundary"]


@every_role
def test_no_policy_is_longer_than_iam_takes(role: str) -> None:
    found = made(most=True)["roles"][role]
    sizes = [len(json.dumps(document, separators=(",", ":"))) for document in found["managed"]]
    assert max(sizes, default=0) <= 6_144
    assert sum(len(json.dumps(document, separators=(",", ":"))) for document in found["own"]) <= 10_240
    assert len(sizes) <= 10


def test_each_role_may_do_its_own_work_and_nobody_elses() -> None:
    sagemaker = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    assert may("DeployerRole", "sagemaker:CreateEndpoint", f"{sagemaker}:endpoint/berth")
    assert may("DeployerRole", "sagemaker:CreateTrainingJob", f"{sagemaker}:training-job/berth-0123456789")
    assert may("DeployerRole", "sagemaker:DescribeModelPackage", f"{sagemaker}:model-package/berth/3")
    assert not may("DeployerRole", "sagemaker:DeleteEndpoint", f"{sagemaker}:endpoint/another")
    assert not may("DeployerRole", "sagemaker:DeleteEndpoint", f"{sagemaker}:endpoint/berthing")
    assert not may("DeployerRole", "iam:PassRole", made(most=False)["roles"]["BuilderRole"]["arn"])
    for role in ("BuilderRole", "WatcherRole", "PipelineRole"):
        assert not may(role, "sagemaker:CreateEndpoint", f"{sagemaker}:endpoint/berth")
        assert not may(role, "iam:PassRole", made(most=False)["roles"]["HostingRole"]["arn"])
    objects = f"arn:aws:s3:::sagemaker-{REGION}-{ACCOUNT}"
    for role in ("TrainingRole", "HostingRole"):
        assert may(role, "s3:PutObject", f"{objects}/berth/job/output/model.tar.gz")
        assert not may(role, "s3:PutObject", f"{objects}/another/model.tar.gz")
        assert may(role, "ecr:BatchGetImage", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/berth")
        assert not may(role, "ecr:PutImage", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/berth")
    jobs = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:log-stream"
    assert may("TrainingRole", "logs:PutLogEvents", f"{jobs}:berth-0123456789/algo-1-1")
    assert not may("TrainingRole", "logs:PutLogEvents", f"{jobs}:another/algo-1-1")
    assert not may("HostingRole", "logs:PutLogEvents", f"{jobs.replace('Training', 'Transform')}:another/1")
    assert may("ValidationRole", "s3:PutObject", f"{objects}/berth-market/validation/models/model.tar.gz")
    assert not may("ValidationRole", "s3:PutObject", f"{objects}/berth/models/model.tar.gz")
    assert not may("DeployerRole", "sagemaker:CreateAlgorithm", f"{sagemaker}:algorithm/berth-0-1-0")
    assert may("TrainingRole", "s3:GetObject", "arn:aws:s3:::other/data/train.csv", most=True)
    assert not may("HostingRole", "s3:GetObject", "arn:aws:s3:::other/data/train.csv", most=True)
    assert may("HostingRole", "cloudwatch:DescribeAlarms", f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:berth-errors")


def test_what_the_parameters_ask_for_is_refused_otherwise() -> None:
    assert statements("DeployerRole", most=False, effect="Deny") == []
    denied = {
        (operator, key): value
        for one in statements("DeployerRole", most=True, effect="Deny")
        for operator, pairs in one["Condition"].items()
        for key, value in pairs.items()
    }
    assert denied == {
        ("BoolIfExists", "sagemaker:NetworkIsolation"): "false",
        ("Null", "sagemaker:VpcSubnets"): "true",
        ("ForAnyValue:StringNotEquals", "sagemaker:VpcSubnets"): ["subnet-1", "subnet-2"],
        ("ArnNotEquals", "sagemaker:VolumeKmsKey"): KEY,
        ("ArnNotEquals", "sagemaker:OutputKmsKey"): KEY,
    }


# ---- what the code calls, and what its role may


CALLS = {"read", "find", "pages", "change", "make"}
"""deploy/cloud.py's ways to AWS."""
OTHERWISE = {
    "s3:HeadBucket": ("s3:ListBucket",),
    "s3:HeadObject": ("s3:GetObject",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:ListObjectVersions": ("s3:ListBucketVersions",),
    "s3:DeleteObjects": ("s3:DeleteObject", "s3:DeleteObjectVersion"),
    "s3:PutBucketEncryption": ("s3:PutEncryptionConfiguration",),
    "s3:PutPublicAccessBlock": ("s3:PutBucketPublicAccessBlock",),
    "s3:GetBucketTagging": ("s3:GetBucketTagging",),
    "application-autoscaling:RegisterScalableTarget": (
        "application-autoscaling:RegisterScalableTarget",
        "iam:CreateServiceLinkedRole",
    ),
    "sts:GetCallerIdentity": (),  # anybody may
}
"""Operations that IAM has another word for, or several."""
PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}
"""Services whose requests are signed by another name than IAM has."""
TAGGING = {
    "sagemaker": "sagemaker:AddTags",
    "ecr": "ecr:TagResource",
    "cloudwatch": "cloudwatch:TagResource",
    "application-autoscaling": "application-autoscaling:TagResource",
}
REASONS = {
    **dict.fromkeys(
        (
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:CompleteLayerUpload",
            "ecr:GetDownloadUrlForLayer",
            "ecr:InitiateLayerUpload",
            "ecr:PutImage",
            "ecr:UploadLayerPart",
        ),
        "docker push and docker pull",
    ),
    **dict.fromkeys(("logs:CreateLogStream", "logs:PutLogEvents"), "CodeBuild's own log"),
    **dict.fromkeys(
        ("codebuild:BatchPutTestCases", "codebuild:CreateReport", "codebuild:CreateReportGroup", "codebuild:UpdateReport"),
        "CodeBuild's reports",
    ),
    "s3:GetObjectVersion": "the pipeline's artifacts",
    "sagemaker:UpdateEndpointWeightsAndCapacities": "Application Auto Scaling wants it of whoever sets scaling up",
    "s3:AbortMultipartUpload": "boto3's transfer of large files, when it is stopped",
    **dict.fromkeys(("codeconnections:UseConnection", "codestar-connections:UseConnection"), "the source"),
    **dict.fromkeys(("codeconnections:GetConnection", "codeconnections:GetConnectionToken"), "the source without a pipeline"),
    **dict.fromkeys(
        ("kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"), "what other services do with the key"
    ),
}
"""What is allowed although no call of deploy/ asks for it, and for whom."""


@cache
def models() -> dict[str, tuple[str, dict]]:
    """Service -> IAM's prefix, and its operations by boto3's names."""
    loader, found = botocore.loaders.Loader(), {}
    for service in {service for service, _, _ in calls()}:
        model = loader.load_service_model(service, "service-2")
        about = model["metadata"]
        prefix = about.get("signingName", about["endpointPrefix"])
        found[service] = PREFIXES.get(prefix, prefix), {xform_name(name): (name, model) for name in model["operations"]}
    return found


@cache
def calls() -> frozenset[tuple[str, str, str]]:
    """Every call of deploy/ to AWS: service, operation, module. A call that does not spell both out is an AssertionError."""
    found, services = set(), set(botocore.loaders.Loader().list_available_services("service-2"))
    for path in sorted((ROOT / "deploy").rglob("*.py")):
        if path.name == "cloud.py":
            found.add(("sts", "get_caller_identity", "deploy.cloud"))
            continue
        tree = ast.parse(path.read_text())
        named = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        alone = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]  # makes a client, and asks nothing
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {*CALLS, "client"}:
                is_cloud = ast.unparse(node.func.value).lower().endswith("cloud")
                if is_cloud and node.func.attr == "client":
                    assert node in alone, f"{path.name}:{node.lineno} goes past read and change"
                    continue
                if not is_cloud and not (node.args and literal(node.args[0]) in services):
                    continue
                said = [named.get(each.id) if isinstance(each, ast.Name) else literal(each) for each in node.args[:2]]
                assert [type(each) for each in said] == [str, str], (
                    f"{path.name}:{node.lineno} does not spell out service and operation"
                )
                found.add((said[0], said[1], ".".join(path.relative_to(ROOT).with_suffix("").parts)))
    return frozenset(found)


def literal(node: ast.expr) -> object:
    """What a constant is; None of anything else."""
    return node.value if isinstance(node, ast.Constant) else None


def actions(service: str, operation: str) -> set[str]:
    """The IAM actions that a call needs."""
    prefix, operations = models()[service]
    name, model = operations[operation]
    shape = model["shapes"][model["operations"][name]["input"]["shape"]] if "input" in model["operations"][name] else {}
    members = set(shape.get("members", {}))
    needed = set(OTHERWISE.get(f"{prefix}:{name}", (f"{prefix}:{name}",)))
    if members & {"Tags", "tags"} and name != "AddTags" and prefix in TAGGING:
        needed.add(TAGGING[prefix])  # deploy/cloud.py puts the project's tags in
    if prefix == "sagemaker" and members & {"RoleArn", "ExecutionRoleArn"}:
        needed.add("iam:PassRole")
    return needed


def needed(modules: set[str] | None = None) -> set[str]:
    """The IAM actions of all calls, or of those in some modules."""
    return {
        action for service, name, module in calls() if modules is None or module in modules for action in actions(service, name)
    }


def granted(*names: str) -> set[str]:
    """The IAM actions that roles and policies have in any way."""
    found = made(most=True)
    return {
        action
        for name in names
        for one in found["policies"].get(name) or found["roles"][name]["statements"]
        if one["Effect"] == "Allow"
        for action in listed(one["Action"])
    }


PERSON = ("ImagePolicy", "DeployPolicy", "OperatePolicy", "RemovePolicy", "WatchPolicy", "SellPolicy")
"""What a person has who may do everything with `python -m deploy`."""
ALL_VERBS = {
    *("preflight", "scan", "push", "fresh", "train", "tune", "approve", "endpoint", "rollback", "autoscale"),
    *("invoke", "batch", "async", "status", "logs", "delete"),
}
OTHERS = {"push": "BuilderRole", "scan": "BuilderRole", "fresh": "WatcherRole", "delete": "", "publish": "", "settings": ""}
"""Verbs that are not the deployer's, and whose role has what they ask; none's, where a person asks or nobody AWS."""


def verbs() -> dict[str, str]:
    """What `python -m deploy` does so far, and the module of each."""
    from deploy.__main__ import VERBS

    return {verb.name: verb.callback.__module__ for verb in VERBS if verb.name and verb.callback}


def test_the_policies_allow_all_that_the_code_asks_of_aws() -> None:
    assert {action: formats(action) for action in needed() - granted(*PERSON)} == {}


def test_the_policies_allow_nothing_that_the_code_does_not_ask_for() -> None:
    if lacking := ALL_VERBS - set(verbs()):
        pytest.skip(f"deploy can't {', '.join(sorted(lacking))} yet; what it will ask for can't be compared")
    assert granted(*PERSON) - needed() - REASONS.keys() == set()


def test_the_role_of_a_verb_may_do_all_that_the_verb_asks() -> None:
    graph, lacks = grimp.build_graph("deploy", cache_dir=None), {}
    for verb, module in verbs().items():
        if role := OTHERS.get(verb, "DeployerRole"):
            lacks[verb] = needed({module, *graph.find_upstream_modules(module)}) - granted(role)
    assert {verb: actions for verb, actions in lacks.items() if actions} == {}


def test_no_role_may_delete_what_the_project_has_made() -> None:
    removing = {action for action in granted("RemovePolicy") if "Delete" in action}
    assert removing
    assert {role: removing & granted(role) for role in ROLES if removing & granted(role)} == {}


def test_no_reason_is_kept_for_what_is_not_granted() -> None:
    assert REASONS.keys() - granted(*PERSON, "DeployerRole", "BuilderRole", "WatcherRole") == set()
