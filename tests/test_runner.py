"""The runner and `python -m edge predict`: what they take, and what they say of what they can't use."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import graphs
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from students import CLASSES, FEATURES, NUMBER, write_student

from contract.errors import NoDelegate, UserError
from edge import runner
from edge.predict import predict

ALL = "a, art, c"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("runner") / "student_int8.tflite", NUMBER)


def refused(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the runner and `predict` say alike, in a line and without a traceback."""
    assert runner.main(list(map(str, words))) == 1
    captured = capsys.readouterr()
    error = asked(*words).exception
    assert isinstance(error, UserError)
    assert (captured.out, captured.err) == ("", f"{error.message}\n")
    return error.message


def asked(*words: str | Path) -> Result:
    return CliRunner().invoke(predict, list(map(str, words)))


def answers(*words: str | Path, capsys: pytest.CaptureFixture[str]) -> list[float]:
    assert runner.main(list(map(str, words))) == 0
    return [float(line) for line in capsys.readouterr().out.splitlines()]


# Rows


@pytest.mark.parametrize(
    "row",
    ["8,x,1", ' 8 , x"y,', "8,p=q,1", 'art=x"y,a=8,c=', "c=1, a = 8 ,art=p=q", 'a=8,"art=x",c=nan', 'art=x,"a=8",c=0'],
    ids=["values", "a quote", "an equals sign", "named, a quote", "named, an equals sign", "named, quoted", "named, all"],
)
def test_a_row_is_taken_as_it_is_written(row: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answers(model, "--row", row, capsys=capsys) == [pytest.approx(14, abs=0.1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a=8,art,c=1", f"--row: 'art' has no value; NAME=VALUE was expected for each of {ALL}."),
        ("a=8,,c=1", f"--row: '' has no value; NAME=VALUE was expected for each of {ALL}."),
        ("a=8,art=x,d=1", f"Columns are missing: c; unknown: d. The model takes each of these once, in any order: {ALL}."),
        ("x=8,y=x,z=1", f"Columns are missing: {ALL}; unknown: x, y, z. The model takes each of these once, "),
        ("a=8,art=x,c=1,a=9", f"Columns are twice: a. The model takes each of these once, in any order: {ALL}."),
        ("8,x", f"Row 1 has 2 values; the model takes 3: {ALL}."),
        ("", f"Row 1 is blank; the model takes 3: {ALL}."),
        ("8,x,1\n8,x,1", "--row is not a row of CSV: new-line character seen in unquoted field"),
        (f"8,x,{'1' * 200_000}", "--row is not a row of CSV: field larger than field limit (131072)."),
    ],
    ids=["a bare name", "a bare comma", "unknown", "all unknown", "twice", "short", "blank", "two lines", "a huge cell"],
)  # fmt: skip
def test_a_row_that_cant_be_used_says_why(row: str, message: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(model, "--row", row, capsys=capsys).startswith(message)


@pytest.mark.parametrize(
    "content",
    ["\ufeffa,art,c\n8,x,1\n0,x,\n", "\ufeff8,x,1\r\n0,x,\r\n\r\n", "c,a,art\n1,8,x\n,0,x\n", '"8","x","1"\n0,x,'],
    ids=["a byte order mark and a header", "a byte order mark", "another order", "quotes"],
)
def test_a_file_is_read_as_the_server_reads_it(content: str, model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.csv").write_text(content)
    assert answers(model, "--csv", tmp_path / "rows.csv", capsys=capsys) == [
        pytest.approx(14, abs=0.1),
        pytest.approx(6, abs=0.1),
    ]


def test_a_choice_that_is_a_features_name_is_no_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = replace(NUMBER, features=(FEATURES[0], replace(FEATURES[1], choices=("a", "c")), FEATURES[2]))
    (tmp_path / "rows.csv").write_text("8,a,1\n")
    assert len(answers(write_student(tmp_path / "m.tflite", named), "--csv", tmp_path / "rows.csv", capsys=capsys)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A,ART,C\n8,x,1\n", f"Columns are missing: {ALL}; unknown: A, ART, C. "),
        (b"a,art,c,a\n8,x,1,8\n", "Columns are twice: a. "),
        (b"8,x,1\n\n8,x,1\n", "Row 2 is blank; "),
        (b"8,\xff,1\n", "{} is no UTF-8 text: byte 2. Save it as CSV in UTF-8."),
        (b"8,x,1\n8,x," + b"1" * 200_000, "{} is not CSV: field larger than field limit (131072) in line 2. "),
        (b'8,"x"y,1\n', "{} is not CSV: "),
        (b"\xef\xbb\xbf\n", "{} holds no row; at least one was expected."),
        (b"a,art,c\n", "{} holds no row; at least one was expected."),
    ],
    ids=["another case", "twice", "blank", "no text", "a huge cell", "quotes within", "empty", "a header alone"],
)
def test_a_file_that_cant_be_used_says_why(content: bytes, message: str, model: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert refused(model, "--csv", path, capsys=capsys).startswith(message.format(path))


@pytest.mark.parametrize("words", [(), ("--row", "8,x,1", "--csv", "rows.csv")], ids=["neither", "both"])
def test_either_a_row_or_a_file_is_asked_for(words: tuple[str, ...], model: Path) -> None:
    done = asked(model, *words)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, "Error: Give either --row VALUES or --csv FILE.")


def test_one_row_is_said_as_one(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("8,x,1\n" * 1_200)
    for words, said in ((("--row", "8,x,1"), "1 row, "), (("--csv", tmp_path / "rows.csv"), "1,200 rows, ")):
        assert runner.main([str(model), *map(str, words)]) == 0
        assert capsys.readouterr().err.startswith(said)


# Where it is printed


def alone(*words: str | Path, **how) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, ROOT / "edge" / "runner.py", *words], check=False, stderr=subprocess.PIPE, **how)


def test_a_reader_that_has_enough_is_no_error(model: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = alone(model, "--row", "8,x,1", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)


def test_ctrl_c_ends_the_copied_runner_without_a_word(model: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(runner, "run", lambda *_: signal.raise_signal(signal.SIGINT))
    assert runner.main([str(model), "--row", "8,x,1"]) == 130
    assert capsys.readouterr().err == ""


def test_labels_that_the_terminal_has_no_letters_for_are_spelled(tmp_path: Path) -> None:
    words = (write_student(tmp_path / "m.tflite", CLASSES), "--row", "8,x,1")
    done = alone(*words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, rb"\xe9 (\xe9 0.730, b 0.270)" + b"\n")


# Models


def test_a_damaged_model_is_told_whatever_is_damaged(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, whole, path = random.Random(1), model.read_bytes(), tmp_path / "damaged.tflite"
    told = 0
    for number in range(120):
        content = bytearray(whole)
        if number % 3:
            for _ in range(chance.choice([1, 3])):
                content[chance.randrange(8, len(whole))] = chance.randrange(256)
        else:
            del content[chance.randrange(len(whole)) :]
        path.write_bytes(content)
        told += runner.main([str(path), "--row", "8,x,1"])
        assert "Traceback" not in capsys.readouterr().err
    assert told > 60


def test_a_model_whose_facts_are_of_another_is_damaged(model: Path, tmp_path: Path, capsys) -> None:
    content = model.read_bytes()
    assert content.count(b'"low"') == 3
    (tmp_path / "m.tflite").write_bytes(content.replace(b'"low"', b'"lot"'))
    assert refused(tmp_path / "m.tflite", "--row", "8,x,1", capsys=capsys) == (
        f"{tmp_path / 'm.tflite'} is damaged: KeyError('low'). Copy it again, or export it again."
    )


def compiled(model: Path, folder: Path) -> Path:
    """The student's preprocessing in a model that is compiled."""
    told = json.dumps(runner.preprocessing_in(model.read_bytes(), model)).encode()
    return graphs.write_compiled(folder / "student_int8_edgetpu.tflite", (runner.METADATA, told))


def test_a_compiled_model_without_a_delegate_says_what_it_needs(model: Path, tmp_path: Path, capsys) -> None:
    words = (compiled(model, tmp_path), "--row", "8,x,1")
    assert runner.main(list(map(str, words))) == 1
    assert capsys.readouterr().err == (
        f"{words[0]} is compiled for an Edge TPU: give --delegate libedgetpu.so.1, or the file that it was compiled from.\n"
    )
    error = asked(*words).exception
    assert isinstance(error, NoDelegate)
    assert error.message.splitlines()[0] == (
        "student_int8_edgetpu.tflite is compiled for the Edge TPU: its edgetpu-custom-op needs a delegate, and there is none."
    )


# Delegates: those that behave badly are in test_classify.py, which asks `predict` too


@pytest.mark.parametrize(
    ("library", "message"),
    [
        ("libnothing.so.1", "libnothing.so.1 can't be loaded as an accelerator's delegate: libnothing.so.1: cannot open shared "
         "object file: No such file or directory. Is it installed, and the device attached? Without --delegate the CPU "),
        ("libm.so.6", "undefined symbol: tflite_plugin_create_delegate. Is it installed, and the device attached? "),
        ("", "--delegate is empty. Name a library, such as libedgetpu.so.1, or leave it out: the CPU answers then."),
    ],
    ids=["none", "another", "empty"],
)  # fmt: skip
def test_the_runner_says_in_a_line_what_is_wrong_with_a_delegate(library: str, message: str, model: Path, capsys) -> None:
    assert runner.main([str(model), "--row", "8,x,1", "--delegate", library]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_predict_refuses_an_empty_delegate(model: Path) -> None:
    done = asked(model, "--row", "8,x,1", "--delegate", "")
    assert done.exit_code == 2
    assert "--delegate is empty: name a library, such as libedgetpu" in done.stderr
