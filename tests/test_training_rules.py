"""The rules of training find the fault of a program, each its own, and none in a sound one or in Berth's image."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ahead import ahead, scratch
from conftest import SAMPLE, docker_client, long

from local_test.conformance import judge
from local_test.rules import data, hosts, inputs, spot, stopping, training
from local_test.runners import Containers, Processes
from local_test.subject import Subject
from local_test.verdicts import Status, Verdict

RULES = (*training.RULES, *inputs.RULES, *data.RULES, *stopping.RULES, *spot.RULES, *hosts.RULES)
SOUND = '''#!/usr/bin/env python3
"""Adds the numbers of its channels up, in twelve slow steps."""
import json, os, pathlib, signal, sys, time

FAULT = os.environ.get("FAULT", "")
BASE = pathlib.Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
CONFIG = BASE / "input" / "config"
STEPS = 12
asked = []


def read(name, default):
    path = CONFIG / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else default


def parse(text):
    value = json.loads(text)
    return parse(value) if isinstance(value, str) else value


def numbers():
    found = []
    channels = read("inputdataconfig", {})
    if FAULT == "lists channels":
        channels = {path.name: {} for path in (BASE / "input" / "data").iterdir()}
    for name in channels:
        for path in sorted((BASE / "input" / "data" / name).iterdir()):
            if FAULT == "writes into channels":
                path.with_suffix(".cache").write_text("")
            found += [float(line) for line in path.read_text().split()]
    return found


def kept():
    folder = pathlib.Path(read("checkpointconfig", {"LocalPath": BASE / "checkpoints"})["LocalPath"])
    if FAULT == "own place for checkpoints":
        folder = BASE / "checkpoints"
    return folder if folder.exists() else None


def main():
    if FAULT == "needs variables":
        os.environ["SM_MODEL_DIR"]
    if FAULT == "needs trainingjobconfig":
        (CONFIG / "trainingjobconfig.json").read_text()
    if FAULT == "resourceConfig":
        (CONFIG / "resourceConfig.json").read_text()
    if FAULT == "network":
        import socket
        if len(socket.if_nameindex()) < 2:
            raise OSError("Network is unreachable")
    if FAULT == "looks a name up":
        import socket
        socket.getaddrinfo("models.example", 443)
    knobs = read("hyperparameters", {})
    if FAULT == "one spelling":
        steps = int(knobs["rounds"])
    if FAULT == "strict" and set(knobs) - {"rounds"}:
        raise ValueError(f"unknown: {sorted(knobs)}")
    rounds = parse(knobs["rounds"])
    if FAULT == "needs output":
        (BASE / "output" / "data" / "note").write_text("")
    if FAULT == "refuses config" and len(list(CONFIG.iterdir())) > 4:
        raise ValueError("what are all these files?")
    rows = numbers() if FAULT != "takes anything" else [0.0]
    if not rows and FAULT != "takes nothing":
        raise ValueError("the channel has no rows")
    folder, done = kept(), 0
    if folder:
        for path in folder.iterdir():
            if FAULT == "markers" or not path.name.endswith((".sagemaker-uploaded", ".sagemaker-uploading")):
                if not path.name.endswith((".sagemaker-ignore", ".tmp")):
                    done = max(done, int(path.name.split("-")[1]))
        if done and FAULT == "cannot resume":
            raise ValueError("there are checkpoints already")
    if FAULT == "writes outside":
        pathlib.Path("/var/outside").write_text("")
    for step in range(done, rounds):
        print(f"step={step}", flush=FAULT != "buffers")
        time.sleep(0.1)
        if asked and FAULT != "takes its time":
            break
        if folder:
            temporary = folder / ("step.tmp" if FAULT == "temporary names" else "step.sagemaker-ignore")
            temporary.write_text(str(step))
            if FAULT == "temporary names":
                time.sleep(0.1)
            temporary.rename(folder / f"step-{step}")
    if asked and FAULT == "leaves nothing when stopped":
        sys.exit(0)
    if FAULT != "no model":
        (BASE / "model").mkdir(exist_ok=True)
        (BASE / "model" / "sum.json").write_text(json.dumps(sum(rows)))
    if FAULT == "links":
        (BASE / "model" / "latest").symlink_to("sum.json")


if FAULT != "no handler":
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
try:
    if FAULT == "says nothing":
        sys.stdout = open(os.devnull, "w")
    main()
except (OSError, ValueError, KeyError) as error:
    import traceback
    told = f"UserError: {error!r}"
    if FAULT == "traceback first":
        told = traceback.format_exc()
    if FAULT != "no failure file":
        (BASE / "output" / "failure").write_text(told)
    sys.exit(0 if FAULT == "exit 0" else 1)
'''
FAULTS = {
    "resourceConfig": {"reads_resourceconfig"},
    "needs trainingjobconfig": {"trains_with_three_config_files"},
    "needs variables": {"needs_no_sm_variables"},
    "no model": {"trains"},
    "links": {"leaves_plain_files"},
    "says nothing": {"says_what_it_does"},
    "lists channels": {"takes_declared_channels_alone"},
    "refuses config": {"takes_more_config"},
    "needs output": {"makes_output_data"},
    "one spelling": {"takes_every_spelling"},
    "strict": {"takes_the_platforms_own_keys"},
    "takes nothing": {"bad_data_fails"},
    "exit 0": {"bad_data_fails"},
    "no failure file": {"failure_file_is_written"},
    "traceback first": {"cause_comes_first"},
    "no handler": {"handles_sigterm"},
    "leaves nothing when stopped": {"job_stops_in_time"},
    "own place for checkpoints": {"checkpoints_where_told"},
    "cannot resume": {"ends_well_after_a_restart"},
    "markers": {"takes_no_marker_for_a_checkpoint"},
    "temporary names": {"unfinished_files_are_not_uploaded"},
}
"""A fault of the program, and the rules that are to find it."""
CONTAINED = {
    "network": {"trains_without_a_network"},
    "looks a name up": {"trains_without_a_network"},
    "buffers": {"prints_at_once"},
    "writes outside": {"writes_where_it_may"},
    "writes into channels": {"reads_a_read_only_channel"},
}
"""Faults that only a container shows."""
SIDE_BY_SIDE = 8


def judged(folder: Path, platform: Processes | Containers, fault: str = "", rules=RULES, rounds: int = 12) -> list[Verdict]:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "numbers.txt").write_text("1\n2\n3\n")
    subject = Subject(
        platform,
        folder / "scratch",
        train_data=folder / "data",
        hyperparameters={"rounds": str(rounds)},
        environ={"FAULT": fault, "PYTHONUNBUFFERED": ""},
        train_s=60,
    )
    return list(judge(subject, rules))


def tree(folder: Path) -> Processes:
    (folder / "container").mkdir(parents=True)
    (folder / "container" / "train").write_text(SOUND)
    return Processes(folder)


@ahead
def verdicts() -> dict[str, list[Verdict]]:
    """What is said of the sound program, and of each fault: they mostly wait, so they are judged side by side."""
    platform = tree(scratch())
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        faults = ["", *FAULTS]
        return dict(zip(faults, pool.map(lambda fault: judged(scratch(), platform, fault), faults), strict=True))


def failed(verdicts: list[Verdict]) -> set[str]:
    return {verdict.rule.name for verdict in verdicts if verdict.status is Status.FAILED}


def test_a_sound_program_breaks_no_rule(verdicts) -> None:
    statuses = {verdict.rule.name: (verdict.status, verdict.seen) for verdict in verdicts[""]}
    assert {name: told for name, told in statuses.items() if told[0] in {Status.FAILED, Status.BLOCKED}} == {}
    passed = {name for name, (status, _) in statuses.items() if status is Status.PASSED}
    assert passed >= set().union(*FAULTS.values())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_its_rule_and_by_no_other(verdicts, fault: str) -> None:
    told = {verdict.rule.name: verdict.seen for verdict in verdicts[fault]}
    assert failed(verdicts[fault]) == FAULTS[fault], told


def test_no_rule_is_broken_itself(verdicts) -> None:
    assert [verdict.seen for told in verdicts.values() for verdict in told if "rule itself failed" in verdict.seen] == []


def test_what_a_failed_rule_leaves_unjudged_is_blocked_by_it(verdicts) -> None:
    told = {verdict.rule.name: verdict for verdict in verdicts["needs variables"]}
    assert (told["trains"].status, told["trains"].seen) == (Status.BLOCKED, "blocked by T-17")
    assert (told["job_stops_in_time"].status, told["job_stops_in_time"].seen) == (Status.BLOCKED, "blocked by T-17")
    assert told["reads_resourceconfig"].seen == "blocked by T-17"


def test_what_nobody_claims_or_gives_is_not_judged(verdicts) -> None:
    told = {verdict.rule.name: verdict.status for verdict in verdicts[""]}
    assert told["reads_a_pipe"] is told["trains_on_several_hosts"] is Status.NOT_APPLICABLE
    assert told["reads_a_read_only_channel"] is told["trains_under_an_entrypoint"] is Status.UNJUDGED


def test_without_data_nothing_of_training_is_judged(tmp_path: Path) -> None:
    told = list(judge(Subject(Processes(), tmp_path), RULES))
    own = [verdict for verdict in told if verdict.rule in RULES]  # what they need is judged too
    assert {verdict.status for verdict in own} <= {Status.UNJUDGED, Status.NOT_APPLICABLE}
    assert "--train-data" in own[0].seen


# Containers


@ahead
def contained(image: str) -> dict[str, list[Verdict]]:
    """What is said of the program in a container, by the rules that need one; and by all of the sound one."""
    script = tree(scratch()).root / "container" / "train"
    script.chmod(0o755)
    platform = Containers(image, docker_client(), ("--volume", f"{script}:/opt/berth/container/train:ro"))
    some = [rule for rule in RULES if rule.name in set().union(*CONTAINED.values())]
    faults = {"": RULES, **dict.fromkeys(CONTAINED, some)}
    with ThreadPoolExecutor(2) as pool:
        said = pool.map(lambda item: judged(scratch(), platform, item[0], item[1], rounds=24), faults.items())
        return dict(zip(faults, said, strict=True))


def test_a_sound_container_breaks_no_rule(docker: str, contained) -> None:
    told = {verdict.rule.name: (verdict.status, verdict.seen) for verdict in contained[""]}
    assert {name for name, (status, _) in told.items() if status is not Status.PASSED} == {
        "reads_a_pipe",
        "trains_on_several_hosts",
        "hosts_leave_one_model",
        "takes_an_empty_shard",
    }, told


@pytest.mark.parametrize("fault", CONTAINED)
def test_a_containers_fault_is_found_by_its_rule_and_by_no_other(docker: str, contained, fault: str) -> None:
    told = {verdict.rule.name: verdict.seen for verdict in contained[fault]}
    assert failed(contained[fault]) == CONTAINED[fault], told


@long
def test_berths_image_breaks_no_rule_of_training_on_two_hosts_and_by_fifos_too(docker: str, image: str, tmp_path) -> None:
    rows = tmp_path / "rows"  # all that is in it comes through the FIFO
    shutil.copytree(SAMPLE, rows, ignore=shutil.ignore_patterns("*.md"))
    knobs = {"estimator": "lightgbm", "max_iter": "60", "checkpoint_interval_s": "0.1"}
    platform = Containers(image, docker)
    subject = Subject(platform, tmp_path, train_data=rows, hyperparameters=knobs, distributed=True, pipe=True)
    told = {verdict.rule.name: (verdict.status, verdict.seen) for verdict in judge(subject, RULES)}
    assert {name: seen for name, seen in told.items() if seen[0] is not Status.PASSED} == {}


@pytest.mark.parametrize(
    ("printed", "is_sign"),
    [
        pytest.param("Error: getaddrinfo ENOTFOUND pypi.org", True, id="a name that is not found"),
        pytest.param("FileNotFoundError: [Errno 2] No such file or directory: 'weights'", False, id="a file that is not found"),
    ],
)
def test_a_lacking_network_is_told_by_its_own_signs(printed: str, is_sign: bool) -> None:
    assert bool(training.UNCONNECTED.search(printed)) is is_sign
