"""What runs, what it costs, what it writes, and its end: `status`, `logs`, `delete` and the prices."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from projects import (
    BUCKET,
    ENDPOINT,
    MODEL,
    TAGS,
    WHERE,
    a_model,
    all_of_it,
    an_endpoint,
    an_image,
    an_updated_endpoint,
    good,
    served,
)
from snapshots import client, snapshot
from verbs import URI, berth

from deploy import prices
from deploy.cloud import TAG
from deploy.cloud import Cloud as Account
from deploy.project import inventory
from deploy.project.logs import Tail
from deploy.settings import Account as Settings

if TYPE_CHECKING:
    from local_test.cloud import Cloud

EVERYTHING = ("--models", "--images", "--jobs", "--data", "--logs")
GROUP = "/aws/sagemaker/Endpoints/berth"


def product(usage: str, *amounts: str, name: str = "ml.m5.large", family: str = "ML Instance", **more: str) -> dict[str, Any]:
    """Return a product as the Price List API has it, with a price for each amount."""
    dimensions = {str(number): {"pricePerUnit": {"USD": amount}} for number, amount in enumerate(amounts)}
    return {
        "serviceCode": "AmazonSageMaker",
        "publicationDate": more.get("day", "2026-11-25") + "T01:02:03Z",
        "product": {
            "productFamily": family,
            "attributes": {"usagetype": f"USE1-{usage}", "regionCode": "us-east-1", "instanceName": name},
        },
        "terms": {"OnDemand": {"sku": {"priceDimensions": dimensions}}},
    }


HOST = product("Host:ml.m5.large", "0.1150000000")
TRAIN = product("Train:ml.m5.large", "0.2500000000")
FAST = {"poll_s": 0.0, "region": "us-east-1"}


def account(**more: Any) -> Account:
    return Account(replace(Settings(**FAST), **more))


def told(aws: Cloud) -> dict[str, Any]:
    """Return what `status --json` says."""
    return json.loads(good("status", "--json").stdout)


# Prices


def test_a_price_is_the_one_of_the_list_with_its_day(aws: Cloud) -> None:
    aws.prices([HOST, TRAIN])
    assert prices.hourly(account(), "Hosting", "ml.m5.large") == "0.115 USD an hour (AWS Price List, 2026-11-25)"


def test_several_instances_cost_several_times_as_much(aws: Cloud) -> None:
    aws.prices([TRAIN])
    said = prices.hourly(account(), "Training", "ml.m5.large", 4)
    assert said == "0.25 USD an hour each, 4 instances 1 USD an hour (AWS Price List, 2026-11-25)"


@pytest.mark.parametrize("use", prices.USES)
def test_the_same_instance_has_a_price_for_each_use(aws: Cloud, use: str) -> None:
    names = {"Training": "Train", "Hosting": "Host", "Async": "AsyncInf", "Transform": "Tsform"}
    aws.prices([product(f"{name}:ml.m5.large", f"{number}.5") for number, name in enumerate(names.values(), 1)])
    assert prices.hourly(account(), use, "ml.m5.large").startswith(f"{[*names].index(use) + 1}.5 USD an hour ")


def test_a_serverless_endpoint_costs_by_the_second_whatever_is_free_at_first(aws: Cloud) -> None:
    aws.prices([product("ServerlessInf:Mem-2GB", "0.0000000000", "0.0000400000", family="ML Serverless")])
    said = prices.serverless(account(), 2048)
    assert said == "0.00004 USD for each second of answering, nothing while idle (AWS Price List, 2026-11-25)"


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        pytest.param([], "price unknown (the price list has none for Host:ml.m5.large in us-east-1)", id="none"),
        pytest.param(
            [product("Host:ml.m5.large", "1", "2")],
            "price unknown (the price list has 2 for Host:ml.m5.large in us-east-1)",
            id="two",
        ),
        pytest.param(
            [product("Host:ml.m5.large.large", "1"), product("VolHost:ml.m5.large", "1")],
            "price unknown (the price list has none for Host:ml.m5.large in us-east-1)",
            id="alike",
        ),
    ],
)
def test_a_price_that_can_not_be_told_is_unknown_and_why_is_said(aws: Cloud, listed: list[Any], why: str) -> None:
    aws.prices(listed)
    assert prices.hourly(account(), "Hosting", "ml.m5.large") == why


def test_a_price_that_may_not_be_asked_stops_nothing(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.fail(1, "refused", operation="GetProducts")
    said = prices.hourly(account(), "Hosting", "ml.m5.large")
    assert said.startswith("price unknown (pricing:GetProducts was refused: AccessDeniedException: ")


def test_a_region_without_a_price_list_is_said(aws: Cloud) -> None:
    said = prices.hourly(account(region="us-gov-west-1"), "Hosting", "ml.m5.large")
    assert said == "price unknown (the Price List API does not know us-gov-west-1)"


def test_a_price_is_asked_once(aws: Cloud) -> None:
    cloud = account()
    for _ in range(3):
        prices.hourly(cloud, "Hosting", "ml.m5.large")
    assert [call.operation for call in aws.calls] == ["GetProducts"]


# status


def test_status_of_nothing_says_so_and_what_comes_first(aws: Cloud) -> None:
    said = good("status").output
    assert said == "Project berth in us-east-1, account 123456789012: costs nothing an hour\n\nNext: python -m deploy push\n"


def test_status_tells_all_of_a_project(aws: Cloud) -> None:
    all_of_it(aws)
    an_image_of(aws)
    aws.prices([HOST, TRAIN])
    seen = told(aws)
    [endpoint] = seen["endpoints"]
    [variant] = endpoint["variants"]
    assert (endpoint["name"], endpoint["status"], endpoint["config"]) == ("berth", "InService", "berth-config")
    assert variant["images"] == [URI]
    assert (variant["count"], variant["instance_type"], variant["scales"]) == (2, "ml.m5.large", [1, 4])
    assert (variant["hourly"], variant["currency"]) == (0.23, "USD")
    assert {(job["kind"], job["name"], job["status"]) for job in seen["jobs"]} == {
        ("training", "berth-done", "Completed"),
        ("training", "berth-runs", "InProgress"),
        ("batch", "berth-batch", "InProgress"),
    }
    assert [(one["group"], one["version"], one["approval"]) for one in seen["packages"]] == [
        ("berth", 1, "PendingManualApproval")
    ]
    assert [(one["repository"], one["tags"]) for one in seen["images"]] == [("berth", ["1"])]
    assert seen["alarms"] == [{"name": "berth-errors", "state": "OK"}]
    assert {one["name"] for one in seen["others"]} == {"berth-config", "berth-model", BUCKET}
    assert seen["unread"] == []


def an_image_of(aws: Cloud) -> None:
    client(aws, "ecr").delete_repository(repositoryName="berth", force=True)
    an_image(aws)


def test_status_adds_up_what_is_known_and_says_what_is_not(aws: Cloud) -> None:
    all_of_it(aws)
    aws.prices([HOST, TRAIN])
    first = good("status").output.splitlines()[0]
    assert (
        "costs 0.48 USD an hour and price unknown of 1 (AWS Price List, 2026-11-25; the price list has none for Tsform" in first
    )


def test_status_shows_what_scaling_has_done(aws: Cloud) -> None:
    served(aws_with_model(aws))
    aws.activities(
        [
            {
                "ActivityId": "1",
                "ServiceNamespace": "sagemaker",
                "ResourceId": "endpoint/berth/variant/AllTraffic",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
                "Description": "Setting desired instance count to 3.",
                "Cause": "monitor alarm work was in ALARM",
                "StartTime": 1_795_000_000,
                "StatusCode": "Successful",
            }
        ]
    )
    said = good("status").output
    assert "AllTraffic: Setting desired instance count to 3. Successful. monitor alarm work was in ALARM" in said


def aws_with_model(aws: Cloud) -> Cloud:
    a_model(aws)
    return aws


def test_status_shows_an_update_that_goes_on_and_what_may_turn_it_back(aws: Cloud) -> None:
    an_endpoint(aws)
    aws.looks(50)
    good(*ENDPOINT, "--environment", "A=B", "--no-wait")
    [endpoint] = told(aws)["endpoints"]
    assert endpoint["status"] == "Updating"
    assert endpoint["update"]["config"] != endpoint["config"]
    assert list(endpoint["alarms"]) == ["berth-errors"]
    said = good("status").output
    assert f"  is updated to {endpoint['update']['config']} since 20" in said
    assert "  turned back by: berth-errors (" in said


def test_status_finds_an_endpoint_of_another_name_by_its_tag(aws: Cloud) -> None:
    a_model(aws)
    good(*ENDPOINT, "--endpoint", "boston")
    assert [one["name"] for one in told(aws)["endpoints"]] == ["boston"]


def test_a_long_name_is_found_although_some_names_are_cut(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a-project-of-a-long-name-Which-Goes-on"
    tags = [{"Key": TAG, "Value": name}]
    client(aws, "sagemaker").create_model_package_group(ModelPackageGroupName=name, Tags=tags)
    client(aws, "ecr").create_repository(repositoryName=name.lower(), tags=tags)
    a_model(aws)
    good(*ENDPOINT, "--name", name)
    monkeypatch.setattr(inventory, "_indexed", lambda cloud: iter(()))
    kinds = {thing.kind for thing in inventory.inventory(account(name=name))}
    assert kinds == {"endpoint", "endpoint-config", "model", "model-package-group", "repository"}


def test_status_shows_nothing_of_others(aws: Cloud) -> None:
    a_model(aws)
    good(*ENDPOINT, "--name", "berth2")
    sagemaker = client(aws, "sagemaker")
    container = {"Image": URI, "ModelDataUrl": MODEL}
    sagemaker.create_model(ModelName="berth-by-hand", PrimaryContainer=container, ExecutionRoleArn=WHERE[-1])
    seen = told(aws)
    assert (seen["endpoints"], [one["name"] for one in seen["others"]]) == ([], [BUCKET])


def test_what_the_index_of_tags_does_not_know_yet_is_found(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_it(aws)
    known = {(thing.kind, thing.name) for thing in inventory.inventory(account()) if thing.kind in inventory.LISTINGS}
    monkeypatch.setattr(inventory, "_indexed", lambda cloud: iter(()))
    assert {(thing.kind, thing.name) for thing in inventory.inventory(account())} == known
    assert len(known) == 9


def test_what_the_index_of_tags_has_not_forgotten_is_gone(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    arns = [f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/boston" for kind in ("endpoint", "model", "training-job")]
    monkeypatch.setattr(inventory, "_indexed", lambda cloud: iter([(arn, {TAG: "berth"}) for arn in arns]))
    assert inventory.inventory(account()) == []


def test_versions_are_shown_with_their_group_alone(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model-package/berth/1"
    monkeypatch.setattr(inventory, "_indexed", lambda cloud: iter([(arn, {TAG: "berth"})]))
    assert inventory.inventory(account()) == []


def test_status_shows_the_rest_where_something_may_not_be_read(aws: Cloud) -> None:
    all_of_it(aws)
    aws.fail(1, "refused", operation="DescribeImages")
    ran = berth("status")
    assert ran.exit_code == 1
    assert "Endpoint berth: InService" in ran.output
    assert "Error: Not all could be read:\necr:DescribeImages was refused" in ran.output


# logs


def lines(aws: Cloud, group: str, stream: str, *messages: str, at: float | None = None) -> None:
    """Write lines to a log, one a millisecond."""
    logs, first_ms = client(aws, "logs"), int(1000 * (at or time.time() - 60))
    for call, given in ((logs.create_log_group, {}), (logs.create_log_stream, {"logStreamName": stream})):
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            call(logGroupName=group, **given)
    events = [{"timestamp": first_ms + number, "message": message} for number, message in enumerate(messages)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_logs_of_one_stream_are_its_lines(aws: Cloud) -> None:
    served(aws_with_model(aws))
    lines(aws, GROUP, "AllTraffic/i-1", "first", "second")
    assert good("logs").stdout == "first\nsecond\n"


def test_logs_of_several_streams_say_whose_each_line_is(aws: Cloud) -> None:  # H-37
    served(aws_with_model(aws))
    now = time.time() - 10
    lines(aws, GROUP, "AllTraffic/i-1", "first", at=now)
    lines(aws, GROUP, "AllTraffic/i-2", "second", at=now + 1)
    assert good("logs", "endpoint").stdout == "AllTraffic/i-1: first\nAllTraffic/i-2: second\n"


def test_logs_of_a_job_are_of_the_newest_and_of_no_other(aws: Cloud) -> None:
    all_of_it(aws)
    lines(aws, "/aws/sagemaker/TrainingJobs", "berth-runs/algo-1-1", "it runs")
    lines(aws, "/aws/sagemaker/TrainingJobs", "berth-runs-2/algo-1-1", "another")
    assert good("logs", "training").stdout == "it runs\n"
    assert "another" in good("logs", "training", "berth-runs-2").stdout


def test_logs_go_as_far_back_as_is_said(aws: Cloud) -> None:
    served(aws_with_model(aws))
    lines(aws, GROUP, "AllTraffic/i-1", "old", at=time.time() - 7200)
    lines(aws, GROUP, "AllTraffic/i-1", "new")
    assert good("logs").stdout == "new\n"
    assert good("logs", "--since", "1d").stdout == "old\nnew\n"


def test_logs_are_filtered_by_a_text(aws: Cloud) -> None:
    served(aws_with_model(aws))
    lines(aws, GROUP, "AllTraffic/i-1", "GET /ping 200", "POST /invocations 500")
    assert good("logs", "--filter", "invocations 500").stdout == "POST /invocations 500\n"


def test_a_line_is_printed_once_however_often_it_is_read(aws: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    lines(aws, GROUP, "AllTraffic/i-1", *(f"line {number}" for number in range(5)))
    tail = Tail(account(), GROUP, "")
    assert [tail.show(), tail.show()] == [5, 0]
    lines(aws, GROUP, "AllTraffic/i-1", "late", at=time.time() - 61)  # before those that were seen
    assert tail.show() == 1
    assert capsys.readouterr().out.split("\n") == [*(f"line {number}" for number in range(5)), "late", ""]


def test_logs_of_a_job_are_followed_until_it_has_ended(aws: Cloud) -> None:
    all_of_it(aws)
    lines(aws, "/aws/sagemaker/TransformJobs", "berth-batch/i-1", "a record")
    ran = good("logs", "batch", "--follow")
    assert ran.stdout == "a record\n"
    status = client(aws, "sagemaker").list_transform_jobs()["TransformJobSummaries"][0]["TransformJobStatus"]
    assert status == "Completed"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("logs",), "Error: berth has no endpoint in us-east-1, account 123456789012. Make one: python -m deploy endpoint"),
        (("logs", "training"), "berth has no training in us-east-1, account 123456789012. Make one: python -m deploy train"),
        (("logs", "endpoint", "x"), "Error: x has written nothing yet: log group /aws/sagemaker/Endpoints/x is not there"),
        (("logs", "endpoint", "x", "--since", "soon"), "--since soon: a number and a unit were expected, such as 30s, 15m"),
    ],
)
def test_logs_that_can_not_be_shown_say_why(aws: Cloud, words: tuple[str, ...], told: str) -> None:
    ran = berth(*words)
    assert ran.exit_code != 0
    assert told in ran.output


def test_logs_of_several_endpoints_want_a_name(aws: Cloud) -> None:
    a_model(aws)
    for name in ("one", "two"):
        good(*ENDPOINT, "--endpoint", name)
    ran = berth("logs")
    assert ran.exit_code == 2
    assert "berth has several endpoints: one, two. Name one." in ran.output


# delete


def test_delete_ends_all_that_the_verbs_have_made(aws: Cloud) -> None:
    """Nothing but what no call of AWS's deletes: the record of a batch job."""
    good("train", *WHERE)
    good("approve")
    good("endpoint", *WHERE, "--instance-count", "2")
    good("endpoint", *WHERE, "--instance-count", "2", "--environment", "A=B")
    good("autoscale")
    good("batch", *WHERE, "--batch-input", f"s3://{bucket()}/berth/data/")
    good("delete", "--yes", *EVERYTHING)
    left = {key for key in snapshot(aws).things if not key[1].startswith("/aws/sagemaker/TrainingJobs")}
    assert {kind for kind, _ in left} == {"TransformJob"}
    assert "Nothing is left to delete" in good("delete", "--yes", *EVERYTHING).output


def bucket() -> str:
    return "sagemaker-us-east-1-123456789012"


def test_delete_without_more_keeps_models_images_data_and_records(aws: Cloud) -> None:
    all_of_it(aws)
    before = snapshot(aws).things
    said = good("delete", "--yes").output
    gone = {kind for kind, name in before.keys() - snapshot(aws).things.keys()}
    assert gone == {"Endpoint", "EndpointConfig", "Model", "alarm", "target"}
    for flag in ("--models", "--images", "--jobs", "--data"):
        assert f"goes with {flag}" in said


def test_delete_lists_with_costs_before_it_asks_and_no_means_no(aws: Cloud) -> None:
    all_of_it(aws)
    aws.prices([HOST, TRAIN])
    before = snapshot(aws)
    ran = berth("delete", given="n\n")
    assert ran.exit_code == 130
    assert "endpoint berth, and its scaling  InService   0.23 USD an hour" in ran.output
    assert "training job berth-runs          InProgress  0.25 USD an hour" in ran.output
    assert snapshot(aws).unlike(before) == {}


def test_delete_touches_nothing_of_others(aws: Cloud) -> None:
    a_model(aws)
    good(*ENDPOINT, "--name", "berth2")
    client(aws, "s3").put_object(Bucket=BUCKET, Key="berth2/data", Body=b"theirs")
    others = snapshot(aws)
    good(*ENDPOINT)
    good("delete", "--yes", *EVERYTHING, "--bucket", BUCKET)
    kept = {key for key in others.unlike(snapshot(aws)) if "/berth/" not in key[1]}
    assert kept == set()


def test_what_a_stack_has_made_stays_with_its_stack(aws: Cloud) -> None:
    tags = [*TAGS, {"Key": inventory.STACK, "Value": "berth-pipeline"}]
    client(aws, "ecr").create_repository(repositoryName="berth", tags=tags)
    said = good("delete", "--yes", *EVERYTHING).output
    assert "what stack berth-pipeline has made: aws cloudformation delete-stack --stack-name berth-pipeline" in said
    assert ("repository", "berth") in snapshot(aws).things


def test_delete_goes_on_where_one_thing_fails_and_names_what_is_left(aws: Cloud) -> None:
    all_of_it(aws)
    aws.fail(1, "refused", operation="DeleteAlarms")
    ran = berth("delete", "--yes")
    assert ran.exit_code == 1
    assert "Left:\n  alarm berth-errors: cloudwatch:DeleteAlarms was refused" in ran.output
    assert {kind for kind, _ in snapshot(aws).things} >= {"alarm"}
    assert {kind for kind, _ in snapshot(aws).things}.isdisjoint({"Endpoint", "EndpointConfig", "Model"})


def test_what_an_endpoint_uses_stays_with_an_endpoint_that_stays(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_it(aws)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    aws.fail(1, "broken", operation="DeleteEndpoint")
    ran = berth("delete", "--yes")
    assert "configuration berth-config: kept, as what goes before it is still there" in ran.output
    assert {kind for kind, _ in snapshot(aws).things} >= {"Endpoint", "EndpointConfig", "Model", "alarm"}


def test_an_endpoint_that_is_updated_is_deleted_when_that_has_ended(aws: Cloud) -> None:
    an_updated_endpoint(aws)
    aws.looks(6)
    good(*ENDPOINT, "--environment", "A=C", "--no-wait")
    said = good("delete", "--yes").output
    assert said.index("Endpoint berth: Updating") < said.index("Delete endpoint berth") < said.index("Endpoint berth: Deleted")


def test_delete_that_does_not_wait_is_finished_by_another(aws: Cloud) -> None:
    an_endpoint(aws)
    ran = berth("delete", "--yes", "--no-wait")
    assert ran.exit_code == 1
    assert "endpoint berth: it is being deleted; what it uses stays until it is gone." in ran.output
    good("delete", "--yes")
    assert {kind for kind, _ in snapshot(aws).things}.isdisjoint({"Endpoint", "EndpointConfig", "Model"})


def test_the_log_of_an_endpoint_that_is_gone_is_found_by_the_tag_it_got(aws: Cloud) -> None:
    served(aws_with_model(aws))
    lines(aws, GROUP, "AllTraffic/i-1", "a line")
    good("delete", "--yes")
    assert snapshot(aws).things["log-group", GROUP] == {TAG: "berth"}
    good("delete", "--yes", "--logs")
    assert ("log-group", GROUP) not in snapshot(aws).things


def test_scaling_that_its_endpoint_left_behind_is_found_by_its_tag(aws: Cloud) -> None:
    served(aws_with_model(aws))
    client(aws, "sagemaker").delete_endpoint(EndpointName="berth")
    good("delete", "--yes")
    said = good("delete", "--yes").output
    assert "target" not in {kind for kind, _ in snapshot(aws).things}
    assert "Nothing is left to delete" in said


def test_old_versions_of_what_was_overwritten_are_deleted_too(aws: Cloud) -> None:
    a_model(aws)
    s3 = client(aws, "s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for key in ("berth/one", "berth/one", "berth/two"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"data")
    s3.delete_object(Bucket=BUCKET, Key="berth/two")
    good("delete", "--yes", "--data", "--bucket", BUCKET)
    assert ("bucket", BUCKET) not in snapshot(aws).things


def test_a_bucket_that_others_use_too_stays(aws: Cloud) -> None:
    a_model(aws)
    client(aws, "s3").put_object(Bucket=BUCKET, Key="others/data", Body=b"theirs")
    good("delete", "--yes", "--data", "--bucket", BUCKET)
    assert {name for kind, name in snapshot(aws).things if kind == "object"} == {f"{BUCKET}/others/data"}
