"""What all verbs of `python -m deploy` share: settings, options, the calls of AWS, names, waiting, errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from click.testing import CliRunner
from conftest import ROOT
from verbs import ROLE, URI, berth

import deploy.errors
from deploy import waiting
from deploy.__main__ import VERBS, main
from deploy.cloud import TAG, Cloud
from deploy.errors import AGAIN, CURES, AlreadyThere, BadSettings, DeployError, Failed, NotThere, Refused, Unknown, whole
from deploy.jobs.attempts import attempt
from deploy.names import checked, fingerprint, is_named, named, without
from deploy.options import defaults_of, flags_of, rows_of_settings, takes
from deploy.settings import SECTIONS, Account, Pairs, Texts
from deploy.waiting import State, wait
from local_test.runners import free_port

PAGE = ROOT / "docs" / "deploy.md"
EVERY = [(section, one.name) for section in SECTIONS for one in fields(section)]


# Settings and where they come from


def kind_of(section: type, name: str) -> Any:
    return get_type_hints(section, include_extras=True)[name].__origin__


def values(section: type, name: str) -> list[tuple[str, Any]]:
    """Return three values of a setting that differ from each other and from the default, as text and as the verb gets them."""
    default = next(one.default for one in fields(section) if one.name == name)
    kind = kind_of(section, name)
    if kind is bool:
        return [(str(value).lower(), value) for value in (not default, default, not default)]
    if kind == Pairs:
        return [(f"{key}=1", {key: "1"}) for key in "abc"]
    if kind == Texts:
        return [(key, (key,)) for key in "abc"]
    if kind is str:
        return [(key, key) for key in "abc"]
    return [(str(kind(default + step)), kind(default + step)) for step in (1, 2, 3)]


def flag(name: str, text: str) -> list[str]:
    word = name.replace("_", "-")
    return [f"--{word}"] if text == "true" else [f"--no-{word}"] if text == "false" else [f"--{word}", text]


def line(section: type, name: str, text: str, value: Any) -> str:
    """Return a settings file."""
    shown = text if isinstance(value, (bool, int, float)) else json.dumps([*value] if isinstance(value, tuple) else value)
    if isinstance(value, dict):
        shown = "{" + ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items()) + "}"
    return f"[{vars(section)['section']}]\n{name} = {shown}\n"


def resolved(section: type, name: str, words: list[str], settings: Path | None, environ: dict[str, str]) -> Any:
    """Return what a verb gets, by the ways that main has."""
    seen: list[Any] = []

    @click.group()
    @click.pass_context
    def group(context: click.Context) -> None:
        context.default_map = defaults_of(group, settings)

    @group.command()
    @takes(section)
    def verb(given: Any) -> None:
        seen.append(getattr(given, name))

    done = CliRunner().invoke(group, ["verb", *words], env=environ, standalone_mode=False, catch_exceptions=False)
    assert done.exit_code == 0
    return seen[0]


@pytest.mark.parametrize(("section", "name"), EVERY, ids=[f"{vars(section)['section']}.{name}" for section, name in EVERY])
def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(section, name, tmp_path) -> None:
    by_flag, by_environ, by_file = values(section, name)
    variable = f"BERTH_{vars(section)['section']}_{name}".upper()
    settings = tmp_path / "deploy.toml"
    settings.write_text(line(section, name, *by_file))
    default = getattr(section(), name)
    assert resolved(section, name, [], None, {}) == default
    assert resolved(section, name, [], settings, {}) == by_file[1]
    assert resolved(section, name, [], settings, {variable: by_environ[0]}) == by_environ[1]
    assert resolved(section, name, flag(name, by_flag[0]), settings, {variable: by_environ[0]}) == by_flag[1]


def test_every_setting_has_a_name_of_its_own_a_meaning_and_a_verb_that_takes_it() -> None:
    names = [name for _, name in EVERY]
    assert len(set(names)) == len(names)
    assert all(meaning for *_, meaning in rows_of_settings())
    taken = {option.name for verb in VERBS for one in (verb, *words_of(verb)) for option in one.params}
    assert set(names) <= taken


def words_of(verb: click.Command) -> list[click.Command]:
    """Return what a verb with words of its own can be followed by."""
    return list(verb.commands.values()) if isinstance(verb, click.Group) else []


def test_flags_of_a_section_say_the_section_again() -> None:
    given = Account(name="other", tag={"team": "a b"}, dry_run=True, wait=False, poll_s=1.5)
    seen: list[Any] = []

    @click.command()
    @takes(Account)
    def verb(account: Account) -> None:
        seen.append(account)

    CliRunner().invoke(verb, flags_of(given), catch_exceptions=False)
    assert seen == [given]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[acount]\nname = 'a'\n", "has [acount]; the tables are account, image"),
        ("[account]\nregoin = 'a'\n", "[account] has regoin; it takes"),
        ("name = 'a'\n", "has [name]"),
        ("[account\n", "can't be read"),
    ],
    ids=["table", "setting", "no table", "no TOML"],
)
def test_a_settings_file_that_cant_be_meant_is_refused(tmp_path: Path, text: str, why: str) -> None:
    settings = tmp_path / "deploy.toml"
    settings.write_text(text)
    with pytest.raises(BadSettings, match=re.escape(why)) as refused:
        defaults_of(main, settings)
    assert refused.value.exit_code == 2


def test_deploy_toml_is_read_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert defaults_of(main, None) == {}
    Path("deploy.toml").write_text("[account]\nname = 'other'\n")
    assert defaults_of(main, None)["train"] == {"name": "other"}


def test_a_pair_without_a_value_is_refused() -> None:
    with pytest.raises(click.UsageError, match="NAME=VALUE was expected"):
        main(["train", "--hyperparameter", "seed"], standalone_mode=False)


# docs/deploy.md


def between_markers() -> str:
    found = re.search(r"<!-- settings -->\n(.*?)<!-- end of settings -->", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_page_lists_the_settings_as_the_command_prints_them() -> None:
    printed = berth("settings").output
    assert between_markers().strip() == printed.strip()


def test_the_pages_example_is_a_settings_file(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    settings = tmp_path / "deploy.toml"
    settings.write_text(example)
    assert defaults_of(main, settings)["train"]["name"]


def test_the_page_tells_every_verb_and_no_other() -> None:
    told = set(re.findall(r"python -m deploy (?:[\w-]+ --settings )?([a-z]+)", PAGE.read_text()))
    verbs = {verb.name for verb in VERBS}
    assert {verb for verb in verbs if verb} <= told | set(re.findall(r"^\| `([a-z]+)`", PAGE.read_text(), re.MULTILINE))
    assert told <= verbs


# The calls of AWS


def account(**given: Any) -> Account:
    return Account(poll_s=0, **given)


def queue(aws) -> list[str]:
    return [call.operation for call in aws.calls]


def topic(cloud: Cloud, **request: Any) -> Any:
    return cloud.change("sns", "create_topic", "Make topic", Name="news", **request)


def test_a_change_says_what_where_and_what_it_costs_and_is_tagged(aws, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = Cloud(account(tag={"team": "a"}))
    made = cloud.change("sns", "create_topic", "Make topic", costs="nothing", Name="news")
    assert capsys.readouterr().out == "Make topic (us-east-1, account 123456789012); nothing\n"
    tags = aws.client("sns").list_tags_for_resource(ResourceArn=made["TopicArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {TAG: "berth", "team": "a"}


@pytest.mark.parametrize(
    ("service", "operation", "request_", "expected"),
    [
        ("ecr", "create_repository", {"repositoryName": "images"}, {"tags": [{"Key": TAG, "Value": "berth"}]}),
        ("logs", "create_log_group", {"logGroupName": "a"}, {"tags": {TAG: "berth"}}),
        ("codebuild", "create_project", None, None),
        ("s3", "put_object", {"Bucket": "a", "Key": "b", "Body": b"123"}, {}),
    ],
    ids=["a list", "a map", "small letters", "none"],
)
def test_tags_go_in_as_the_operation_takes_them(aws, capsys, service, operation, request_, expected) -> None:
    cloud = Cloud(account(dry_run=True))
    if request_ is None:
        model = cloud._model(service, operation)
        assert cloud._tagged(model, {})["tags"] == [{"key": TAG, "value": "berth"}]
        return
    cloud.change(service, operation, "Do it", **request_)
    printed = json.loads(capsys.readouterr().out.partition("\n")[2])["request"]
    assert {name: value for name, value in printed.items() if name not in request_} == expected


def test_a_dry_run_prints_the_request_and_a_body_by_its_size(aws, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = Cloud(account(dry_run=True))
    assert cloud.change("s3", "put_object", "Put", Bucket="b", Key="k", Body=b"123") == {}
    assert json.loads(capsys.readouterr().out.partition("\n")[2]) == {
        "service": "s3",
        "operation": "PutObject",
        "request": {"Bucket": "b", "Key": "k", "Body": "<3 bytes>"},
    }
    assert queue(aws) == ["GetCallerIdentity"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_request_that_the_api_does_not_take_is_refused_without_a_call(aws, dry_run: bool) -> None:
    cloud = Cloud(account(dry_run=dry_run))
    with pytest.raises(BadSettings, match="Missing required parameter"):
        cloud.change("sagemaker", "create_model", "Make", ExecutionRoleArn="arn:aws:iam::1:role/berth")
    assert "CreateModel" not in queue(aws)


def test_what_is_there_is_not_made_again_and_what_appears_meanwhile_is_taken(aws, capsys) -> None:
    cloud, s3 = Cloud(account()), aws.client("s3", region_name="us-east-1")

    def found() -> Any:
        return cloud.find("ecr", "describe_repositories", repositoryNames=["images"])

    assert s3
    cloud.make("ecr", "create_repository", "Make a", found, repositoryName="images")
    cloud.make("ecr", "create_repository", "Make a", found, repositoryName="images")
    assert queue(aws).count("CreateRepository") == 1
    seen = iter([None])
    cloud.make("ecr", "create_repository", "Make a", lambda: next(seen, found()), repositoryName="images")
    assert "It is there already." in capsys.readouterr().out


def test_what_was_taken_and_is_not_shown_is_said(aws) -> None:
    with pytest.raises(NotThere, match="does not show what it made"):
        Cloud(account()).make("ecr", "create_repository", "Make a", lambda: None, repositoryName="images")


def test_pages_are_read_to_the_end_and_their_errors_explained(aws) -> None:
    cloud = Cloud(account())
    for number in range(3):
        cloud.change("ecr", "create_repository", "Make", repositoryName=f"images{number}")
    assert len(list(cloud.pages("ecr", "describe_repositories", "repositories", maxResults=2))) == 3
    with pytest.raises(NotThere):
        list(cloud.pages("ecr", "describe_images", "imageDetails", repositoryName="none"))


def test_without_a_region_or_a_profile_the_message_names_the_setting(monkeypatch: pytest.MonkeyPatch, aws) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(BadSettings, match="--region us-east-1"):
        Cloud(account())
    with pytest.raises(BadSettings, match="--profile NAME"):
        Cloud(account(profile="nobody"))
    assert Cloud(account(region="cn-north-1")).partition == "aws-cn"


# Names


def test_a_name_follows_from_what_it_names_and_not_from_the_order_of_its_keys() -> None:
    assert named("berth", {"a": 1, "b": [2]}) == named("berth", {"b": [2], "a": 1})
    assert len({named("berth", part) for part in ({"a": 1}, {"a": 2}, {"a": "1"}, [1], "1")}) == 5
    assert fingerprint("a") != fingerprint("a", "a")


@pytest.mark.parametrize("project", ["b", "berth", "a-b", "x" * 63, "y" * 51 + "-z"])
@pytest.mark.parametrize("longest", [32, 63])
def test_names_are_as_long_as_sagemaker_takes_and_told_from_others(project: str, longest: int) -> None:
    name = named(project, {"a": 1}, longest=longest)
    assert checked(name) == name
    assert len(name) <= longest
    assert is_named(project, name, longest)
    assert not is_named("other", name, longest)
    assert not is_named(project, f"{name}-001", longest)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--", "a_b", "a b", "x" * 64, "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadSettings, match="1 to 63"):
        checked(name)


def test_a_request_can_be_named_without_its_name() -> None:
    assert without({"Name": "a", "Size": 1}, "Name") == {"Size": 1}


@pytest.mark.parametrize(
    ("there", "again", "expected"),
    [
        ([], False, "1"),
        ([], True, "1"),
        (["Completed"], False, "1"),
        (["Completed"], True, "2"),
        (["Failed", "InProgress"], True, "2"),
        (["Failed", "Stopping"], True, "2"),
        (["Failed", "Stopped"], True, "3"),
        (["Failed", "Stopped"], False, "2"),
    ],
)
def test_a_command_means_the_last_attempt_or_asked_again_the_next(there: list[str], again: bool, expected: str) -> None:
    def find(name: str) -> dict[str, str] | None:
        return {"Status": there[int(name) - 1]} if int(name) <= len(there) else None

    found = attempt(str, find, "Status", again=again)
    assert found.name == expected
    assert found.status("Status") == (there[int(expected) - 1] if int(expected) <= len(there) else "")


# Waiting


@pytest.fixture
def cloud(aws) -> Cloud:
    return Cloud(account())


def looks(*states: State | Exception) -> Any:
    """Return a function that sees these states, one a look."""
    left = iter(states)

    def look() -> State:
        state = next(left)
        if isinstance(state, Exception):
            raise state
        return state

    return look


def test_waiting_says_each_change_once(cloud, capsys: pytest.CaptureFixture[str]) -> None:
    states = [State("InProgress", "Starting")] * 3 + [State("InProgress", "Training"), State("Completed", done=True)]
    assert wait(cloud, "Job a", looks(*states)).status == "Completed"
    said = [re.sub(r" \(\d+ s\)$", "", one) for one in capsys.readouterr().out.splitlines()]
    assert said == ["Job a: InProgress, Starting", "Job a: InProgress, Training", "Job a: Completed"]


def test_waiting_says_now_and_then_that_it_goes_on(cloud, capsys, monkeypatch) -> None:
    monkeypatch.setattr(waiting, "REPEAT_S", 0)
    wait(cloud, "Job a", looks(*[State("InProgress")] * 3, State("Completed", done=True)))
    assert capsys.readouterr().out.count("InProgress") == 3


def test_what_ends_badly_says_why(cloud) -> None:
    with pytest.raises(Failed, match="Job a ended as Failed: no memory"):
        wait(cloud, "Job a", looks(State("Failed", failure="no memory")))


def test_looks_that_fail_now_and_then_end_nothing_but_many_in_a_row_do(cloud) -> None:
    lost = Unknown("the connection broke")
    few = [lost] * (waiting.PATIENCE - 1)
    wait(cloud, "Job a", looks(*few, State("InProgress"), *few, State("Completed", done=True)))
    with pytest.raises(Unknown):
        wait(cloud, "Job a", looks(*[lost] * waiting.PATIENCE))


# Errors


class Answering(BaseHTTPRequestHandler):
    """Answers every call with one error."""

    code, status, more = "", 400, "{}"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"__type": self.code, "message": "it is so", **json.loads(self.more)}).encode()
        self.send_response(self.status)
        for name, value in (("x-amzn-ErrorType", self.code), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function: what the message is when AWS answers with a code."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answering,), {}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")

    def answered(code: str, status: int = 400, *, runtime: bool = False, **more: Any) -> DeployError:
        handler: Any = server.RequestHandlerClass
        handler.code, handler.status, handler.more = code, status, json.dumps({"message": "it is so", **more})
        call = ("sagemaker-runtime", "invoke_endpoint") if runtime else ("sagemaker", "describe_model")
        request = {"EndpointName": "a", "Body": b"1"} if runtime else {"ModelName": "a"}
        with pytest.raises(DeployError) as refused:
            Cloud(account(region="us-east-1")).read(*call, **request)
        return refused.value

    yield answered
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("code", CURES)
def test_every_cure_is_reached_by_the_error_that_it_is_for(answers, code: str) -> None:
    error = answers(f"{code}Exception" if code.isalpha() and code != "SlowDown" else code)
    assert type(error) is Refused
    assert error.message.startswith(f"sagemaker:DescribeModel was refused: {code}")
    assert error.message.endswith(CURES[code])


@pytest.mark.parametrize(
    ("code", "status", "message", "kind"),
    [
        ("ValidationException", 400, 'Could not find model "a".', NotThere),
        ("ResourceNotFound", 400, "no", NotThere),
        ("ValidationException", 400, "Account 123404567890 may not.", Refused),
        ("ResourceInUse", 400, "Cannot create already existing model", AlreadyThere),
        ("Strange", 503, "no", Unknown),
        ("Strange", 400, "no", Refused),
    ],
)
def test_an_error_is_told_by_code_text_and_status(answers, code: str, status: int, message: str, kind: type) -> None:
    error = answers(code, status, message=message)
    assert type(error) is kind
    assert message in error.message


def test_a_models_error_is_told_in_its_own_words(answers) -> None:
    told = json.dumps({"error": "bad_data", "message": "Row 3 has 5 values.", "request_id": "x"})
    error = answers("ModelError", 424, runtime=True, OriginalStatusCode=400, OriginalMessage=told)
    assert error.message == "The model answered 400: Row 3 has 5 values. Change the request."
    error = answers("ModelError", 424, runtime=True, OriginalStatusCode=500, OriginalMessage="boom", LogStreamArn="arn:log")
    assert error.message == "The model answered 500: boom `python -m deploy logs endpoint` shows why (arn:log)."


def test_where_nothing_answers_it_is_not_known_and_to_be_run_again(monkeypatch: pytest.MonkeyPatch, answers) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unknown, match="connection broke") as lost:
        Cloud(account(region="us-east-1")).read("sagemaker", "describe_model", ModelName="a")
    assert AGAIN in lost.value.message


def test_without_credentials_it_says_how_to_sign_in(aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(Refused, match="aws sso login"):
        Cloud(account()).read("sts", "get_caller_identity")


def test_an_answer_that_breaks_off_is_not_known() -> None:
    from botocore.exceptions import ResponseStreamingError

    class Broken:
        def read(self) -> bytes:
            raise ResponseStreamingError(error="gone")

    with pytest.raises(Unknown, match="broke off"):
        whole(Broken(), "s3:GetObject")


def drawn() -> dict[str, tuple[str, int]]:
    """Return name -> (parent, exit code) as the docstring draws the tree."""
    above, found = {0: "ClickException"}, {}
    for one in (deploy.errors.__doc__ or "").splitlines():
        if branch := re.match(r"^    ((?:[│ ]   )*(?:[├└]── )?)([A-Z]\w+) .*?(?:(\d)|exit)$", one):
            depth = len(branch[1]) // 4 + 1
            above[depth] = branch[2]
            found[branch[2]] = (above[depth - 1], int(branch[3] or 1))
    return found


def test_every_error_is_drawn_in_the_tree_as_it_is() -> None:
    every = {cls for cls in vars(deploy.errors).values() if isinstance(cls, type) and issubclass(cls, DeployError)}
    assert drawn() == {cls.__name__: (cls.__bases__[0].__name__, cls.exit_code) for cls in every}


# The process


def program(*words: str) -> list[str]:
    return [sys.executable, "-m", "deploy", *words]


def test_the_command_says_an_error_without_a_traceback_and_ends_with_its_code(aws) -> None:
    for words, code in ((("approve",), 1), (("train", "--spot", "--max-wait-s", "1"), 2), (("fly",), 2), (("--help",), 0)):
        done = subprocess.run(program(*words), cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ.copy())
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert ("Error: " in done.stderr) == (code > 0)


def test_control_c_leaves_the_job_and_the_same_command_waits_on(aws) -> None:
    aws.looks(10_000)
    words = ("train", "--uri", URI, "--role", ROLE, "--poll-s", "0.1")
    with subprocess.Popen(program(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stderr
        for said in running.stdout:
            if "InProgress" in said:
                break
        running.send_signal(signal.SIGINT)
        until = time.monotonic() + 30
        while running.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert running.returncode == 130
        assert "run the same command again to carry on" in running.stderr.read()
    aws.looks(1)
    assert berth(*words[:5]).exit_code == 0
    assert queue(aws).count("CreateTrainingJob") == 1


def test_the_commands_imports_need_no_library_of_training() -> None:
    probe = "import sys, deploy.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "sklearn", "pandas", "onnxruntime", "local_test", "training", "serving"} & set(done.stdout.split())


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_says_what_it_does(verb: click.Command) -> None:
    said = "".join(berth(str(verb.name), "--help").output.split())  # click breaks lines at hyphens too
    assert verb.help
    assert "".join(verb.help.split("\n\n")[0].split()) in said
