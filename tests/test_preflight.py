"""What `preflight` finds of an account, its roles, its registry, its quotas and this machine; it changes nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import registries
from botocore.loaders import Loader
from test_infra import ACCOUNT, REGION, may
from verbs import berth

from deploy.cloud import Cloud
from deploy.preflight import checks, preflight, quotas
from deploy.preflight.permissions import ACTIONS

ROLE = "arn:aws:iam::123456789012:role/"
SAGEMAKER = "sagemaker.amazonaws.com"
READS = ("Get", "List", "Describe", "Head", "Simulate")
XML = """<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><SimulatePrincipalPolicyResult>
<IsTruncated>false</IsTruncated><EvaluationResults>{members}</EvaluationResults>
</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"""
MEMBER = """<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{arn}</EvalResourceName>
<EvalDecision>{decision}</EvalDecision><MissingContextValues>{missing}</MissingContextValues></member>"""


class Account:
    """What the account may, and has: the parts of AWS that no stand-in knows."""

    def __init__(self) -> None:
        self.quotas: list[dict] = []
        self.denied: dict[str, str] = {}
        """Action, and which value of the request its policy asks for; empty where it is denied in any case."""
        self.simulated: list[tuple[str, str]] = []
        """Action and resource."""


@pytest.fixture(scope="module", autouse=True)
def models() -> Iterator[None]:
    """Have all sessions read the services' models once."""
    loader, patch = Loader(), pytest.MonkeyPatch()
    patch.setattr("botocore.session.create_loader", lambda *_, **__: loader)
    yield
    patch.undo()


@pytest.fixture
def account(aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account that has all it needs; its quotas and its policy simulator are played here, all else is the cloud's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    known = Account()
    for use in ("training job", "spot training job", "endpoint", "transform job"):
        name = f"ml.m5.large for {use} usage"
        known.quotas.append({"QuotaName": name, "QuotaCode": f"L-{len(known.quotas)}", "Value": 4.0})
    front = aws.url.removeprefix("http://")

    class Served(registries.Passing):
        def answer(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if self.headers.get("X-Amz-Target", "").endswith(".ListServiceQuotas"):
                assert json.loads(asked)["ServiceCode"] == "sagemaker"
                self.give(200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(page(known, asked)).encode())
            elif "Action=SimulatePrincipalPolicy" in asked:
                self.give(200, {"Content-Type": "text/xml"}, simulated(known, parse_qs(asked)).encode())
            else:
                self.give(*registries._ask(front, self.command, self.path, asked.encode(), dict(self.headers)))

    with registries.server(Served) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", f"http://{address}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", f"http://{address}")
        yield known


def page(known: Account, asked: str) -> dict:
    """Return two quotas, and where the next begin."""
    start = int(json.loads(asked).get("NextToken") or 0)
    more = {"NextToken": str(start + 2)} if start + 2 < len(known.quotas) else {}
    return {"Quotas": known.quotas[start : start + 2], **more}


def simulated(known: Account, asked: dict[str, list[str]]) -> str:
    """Return the simulator's answer."""
    arn = asked["ResourceArns.member.1"][0]
    actions = [text[0] for name, text in asked.items() if re.fullmatch(r"ActionNames\.member\.\d+", name)]
    known.simulated += [(action, arn) for action in actions]
    members = []
    for action in actions:
        missing = known.denied.get(action, "")
        decision = "implicitDeny" if action in known.denied else "allowed"
        told = f"<member>{missing}</member>" if missing else ""
        members.append(MEMBER.format(action=action, arn=arn, decision=decision, missing=told))
    return XML.format(members="".join(members))


@pytest.fixture
def role(aws) -> Callable[..., str]:
    """A function that makes a role with a trust policy, and returns its ARN."""

    def make(name: str, *statements: dict) -> str:
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        return aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(policy))["Role"]["Arn"]

    return make


def trust(service: str | list[str] = SAGEMAKER, effect: str = "Allow", action: str | list[str] = "sts:AssumeRole") -> dict:
    return {"Effect": effect, "Principal": {"Service": service}, "Action": action}


def rows(said: str) -> list[tuple[str, str, str]]:
    """Return what was found: how it stands, what, and in which words."""
    found = [re.fullmatch(r"(pass|warn|fail)  (\w+) +(.*)", line) for line in said.splitlines()]
    return [(row[1], row[2], row[3]) for row in found if row]


def look(*words: str, code: int = 0) -> list[tuple[str, str, str]]:
    ran = berth("preflight", *words)
    assert ran.exit_code == code, ran.output
    return rows(ran.output)


def of(title: str, found: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(status, seen) for status, what, seen in found if what == title]


def test_an_account_that_has_all_passes_within_seconds_and_nothing_is_changed(account: Account, aws, role) -> None:
    arn = role("berth", trust())
    aws.client("s3").create_bucket(Bucket="sagemaker-us-east-1-123456789012")
    aws.client("ecr").create_repository(repositoryName="berth", imageTagMutability="IMMUTABLE")
    made, began = len(aws.calls), time.monotonic()
    ran = berth("preflight", "--role", arn)
    assert time.monotonic() - began < 10
    assert ran.exit_code == 0, ran.output
    found = rows(ran.output)
    assert {title for _, title, _ in found} == {"account", *(title for title, _, _ in preflight.CHECKS)}
    assert {status for status, title, _ in found if title not in {"engine", "disk"}} == {"pass"}
    assert ran.output.splitlines()[-1] == "Next: python -m deploy push"
    assert {call.operation for call in aws.calls[made:] if not call.operation.startswith(READS)} == set()


def test_it_says_who_is_signed_in_and_where(account: Account, aws, role) -> None:
    found = look("--role", role("berth", trust()))
    assert of("account", found) == [("pass", "123456789012, Region us-east-1"), ("pass", "user moto")]


def test_an_assumed_role_is_named_and_asked_about_by_its_own_arn(account: Account, aws, role, monkeypatch) -> None:
    arn = role("deployer", trust())
    given = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="laptop")["Credentials"]
    for name, key in (
        ("ACCESS_KEY_ID", "AccessKeyId"),
        ("SECRET_ACCESS_KEY", "SecretAccessKey"),
        ("SESSION_TOKEN", "SessionToken"),
    ):
        monkeypatch.setenv(f"AWS_{name}", given[key])
    found = look("--role", arn)
    assert ("pass", "role deployer, as laptop") in of("account", found)
    assert of("permissions", found)[0][0] == "pass"


def test_nobody_signed_in_ends_it_at_once(aws, monkeypatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    ran = berth("preflight")
    assert ran.exit_code == 1
    assert "aws sso login" in ran.output


def test_a_region_without_sagemaker_is_told_of(account: Account, role, registry: str) -> None:
    found = look("--role", role("berth", trust()), "--region", "us-east-9", "--bucket", "mine", "--registry", registry)
    assert of("account", found)[0][0] == "warn"


# ---- roles


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        (trust(), "pass"),
        (trust(["ec2.amazonaws.com", SAGEMAKER], action=["sts:AssumeRole", "sts:TagSession"]), "pass"),
        ({**trust(), "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}}}, "pass"),
        (trust("ec2.amazonaws.com"), "fail"),
        (trust(effect="Deny"), "fail"),
        (trust(action="sts:TagSession"), "fail"),
        ({"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}, "fail"),
        ({"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}, "fail"),
    ],
    ids=[
        "sagemaker",
        "among others",
        "with a condition",
        "another service",
        "denied",
        "another action",
        "an account",
        "anybody",
    ],
)
def test_a_role_that_sagemaker_may_not_assume_stops_it(account: Account, role, statement: dict, status: str) -> None:
    found = look("--role", role("judged", statement), code=int(status == "fail"))
    assert [one[0] for one in of("roles", found)] == [status]


def test_a_role_that_is_not_there_stops_it(account: Account) -> None:
    assert of("roles", look("--role", f"{ROLE}missing", code=1)) == [
        ("fail", f"training and hosting: there is no role {ROLE}missing")
    ]


def test_without_a_role_the_stack_is_named_that_makes_one(account: Account) -> None:
    found = of("roles", look(code=1))
    assert [status for status, _ in found] == ["fail", "fail"]
    assert all("deploy/templates/roles.yaml" in seen for _, seen in found)


# ---- permissions


def test_what_is_denied_is_named(account: Account, role) -> None:
    account.denied = {"sagemaker:CreateEndpoint": "", "iam:PassRole": ""}
    status, seen = of("permissions", look("--role", role("berth", trust())))[0]
    assert status == "warn"
    assert "iam:PassRole, " in seen
    assert seen.endswith("sagemaker:CreateEndpoint")


def test_what_depends_on_the_rest_of_a_request_is_not_counted_as_denied(account: Account, role) -> None:
    account.denied = {"sagemaker:CreateTrainingJob": "sagemaker:VpcSubnets"}
    assert of("permissions", look("--role", role("berth", trust())))[0][0] == "pass"


def test_each_action_is_asked_about_on_the_projects_own_resource(account: Account, role) -> None:
    look("--role", role("berth", trust()), "--name", "Mine", "--repository", "their/image")
    asked = dict(account.simulated)
    assert len(asked) == sum(len(actions) for _, _, actions in ACTIONS) + 1
    assert asked["sagemaker:CreateEndpoint"] == "arn:aws:sagemaker:us-east-1:123456789012:endpoint/mine"
    assert asked["ecr:PutImage"] == "arn:aws:ecr:us-east-1:123456789012:repository/their/image"
    assert asked["ecr:GetAuthorizationToken"] == "*"
    assert asked["iam:PassRole"] == f"{ROLE}berth"


def test_who_may_not_ask_the_simulator_is_told_so_and_not_stopped(account: Account, aws, role, monkeypatch) -> None:
    arn = role("berth", trust())
    monkeypatch.setattr(Cloud, "pages", lambda *_, **__: (_ for _ in ()).throw(checks.NotThere("no simulator here")))
    found = look("--role", arn)
    assert of("permissions", found) == [("warn", "no simulator here")]
    assert of("quotas", found) == [("warn", "no simulator here")]


def test_every_action_that_is_asked_about_is_one_of_aws() -> None:
    load = cache(lambda service: Loader().load_service_model(service, "service-2")["operations"])
    apart = {"sagemaker:InvokeEndpoint": "sagemaker-runtime"}
    for action in (action for _, _, actions in ACTIONS for action in actions):
        service, _, name = action.partition(":")
        assert name in load(apart.get(action, service)), action


def test_the_deployer_of_the_templates_may_do_all_that_is_asked_about() -> None:
    for service, resource, actions in ACTIONS:
        arn = f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource.format(name='berth', repository='berth')}"
        asked = "*" if resource == "*" else arn
        assert [action for action in actions if not may("DeployerRole", action, asked)] == []


# ---- bucket and registry


def test_a_bucket_that_is_not_there_is_no_reason_to_stop(account: Account, role) -> None:
    assert of("bucket", look("--role", role("berth", trust()))) == [
        ("pass", "sagemaker-us-east-1-123456789012 is not there yet; train makes it")
    ]


def test_a_bucket_of_another_region_stops_it(account: Account, aws, role) -> None:
    there = {"LocationConstraint": "eu-west-1"}
    aws.client("s3", region_name="eu-west-1").create_bucket(Bucket="far", CreateBucketConfiguration=there)
    status, seen = of("bucket", look("--role", role("berth", trust()), "--bucket", "far", code=1))[0]
    assert status == "fail"
    assert "eu-west-1" in seen


def test_tags_that_can_be_moved_are_warned_of(account: Account, aws, role) -> None:
    aws.client("ecr").create_repository(repositoryName="berth", imageTagMutability="MUTABLE")
    assert [status for status, _ in of("registry", look("--role", role("berth", trust())))] == ["warn"]


def test_another_registry_is_asked_whether_it_answers(account: Account, role, registry: str) -> None:
    arn = role("berth", trust())
    assert of("registry", look("--role", arn, "--registry", registry))[0][0] == "pass"
    assert of("registry", look("--role", arn, "--registry", "127.0.0.1:9", code=1))[0][0] == "fail"


# ---- quotas


def test_a_quota_that_is_too_small_stops_it_and_the_request_for_more_is_given(account: Account, role) -> None:
    account.quotas[0]["Value"] = 0.0
    ran = berth("preflight", "--role", role("berth", trust()))
    assert ran.exit_code == 1
    assert "fail  quotas       ml.m5.large for training job usage: 1 wanted, 0 allowed" in ran.output
    asked = "request-service-quota-increase --service-code sagemaker --quota-code L-0 --desired-value 1 --region us-east-1"
    assert asked in ran.output


def test_the_quotas_are_those_of_what_is_set(account: Account, role) -> None:
    words = ("--spot", "--training-count", "3", "--instance-count", "5", "--batch-type", "ml.unknown.large")
    found = of("quotas", look("--role", role("berth", trust()), *words, code=1))
    assert ("pass", "ml.m5.large for spot training job usage: 3 wanted, 4 allowed") in found
    assert ("fail", "ml.m5.large for endpoint usage: 5 wanted, 4 allowed") in found
    assert [status for status, seen in found if seen.startswith("ml.unknown.large")] == ["warn"]


def test_what_is_in_use_is_counted_where_the_quota_says_how(account: Account, aws, role) -> None:
    dimensions = {"Service": "SageMaker", "Resource": "endpoint/ml.m5.large"}
    account.quotas[2]["UsageMetric"] = {
        "MetricNamespace": "AWS/Usage",
        "MetricName": "ResourceCount",
        "MetricDimensions": dimensions,
        "MetricStatisticRecommendation": "Maximum",
    }
    told = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    moment = datetime.now(UTC) - timedelta(minutes=1)
    data = [{"MetricName": "ResourceCount", "Dimensions": told, "Value": 4.0, "Timestamp": moment}]
    aws.client("cloudwatch").put_metric_data(Namespace="AWS/Usage", MetricData=data)
    found = of("quotas", look("--role", role("berth", trust())))
    assert ("warn", "ml.m5.large for endpoint usage: 1 wanted, 4 allowed, 4 in use") in found


def test_reading_quotas_ends_with_the_last_one_that_is_wanted(account: Account, role) -> None:
    account.quotas += [{"QuotaName": f"another {number}", "QuotaCode": "L", "Value": 1.0} for number in range(3000)]
    began = time.monotonic()
    assert {status for status, _ in of("quotas", look("--role", role("berth", trust())))} == {"pass"}
    assert time.monotonic() - began < 10
    assert quotas.RECENT.total_seconds() > 300  # AWS counts every five minutes


# ---- this machine


def test_without_an_engine_it_warns_as_only_some_verbs_need_one(account: Account, role, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = of("engine", look("--role", role("berth", trust())))
    assert [status for status, _ in found] == ["warn"]
    assert "docker is not installed" in found[0][1]


def test_a_full_disk_is_warned_of(account: Account, role, monkeypatch) -> None:
    monkeypatch.setattr(checks, "FREE_BYTES", 10**18)
    assert [status for status, _ in of("disk", look("--role", role("berth", trust())))] == ["warn"]


@pytest.mark.parametrize(("number", "kind"), [(2, "refused"), (3, "broken"), (4, "dropped"), (5, "refused")])
def test_a_call_that_fails_is_told_of_in_its_own_row(account: Account, aws, role, number: int, kind: str) -> None:
    arn = role("berth", trust())
    aws.fail(number, kind)
    ran = berth("preflight", "--role", arn)
    assert ran.exit_code in {0, 1}, ran.output
    assert {title for _, title, _ in rows(ran.output)} == {"account", *(title for title, _, _ in preflight.CHECKS)}
