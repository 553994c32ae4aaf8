"""From the platform's input to a matrix: formats, headers, faults, shards, Pipe mode; Parquet is written by pyarrow."""

from __future__ import annotations

import decimal
import gzip
import io
import itertools
import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import MIXED, ROOT, SAMPLE
from tblib import pickling_support

from contract.declaration import Declaration, Feature, Target
from contract.errors import BadChannel, BadData, SchemaMismatch, Stopped
from contract.job import Channel, read_job
from contract.manifest import read_manifest
from contract.metrics import metric_regex
from contract.paths import Paths
from local_test.emulator import lay_out, stop, train
from local_test.emulator.streams import framed, streaming
from local_test.runners import Processes
from model import DECLARATION
from training import blocks, parquet, pipe
from training.arrow import Unclear
from training.cells import read_cells
from training.layout import Layout
from training.read import Table, read_channel
from training.sources import Source
from training.stop import Stop
from training.text import _read_fast

NAN = float("nan")
HEADER = "N,M,C,D,T"
ROWS = ["1,2,0,red,no", "2.5,,1,,yes", "-3e2,4,NA,dark blue,no"]
MATRIX = np.array([[1, 2, 0, 0], [2.5, NAN, 1, NAN], [-300, 4, 2, 1]], dtype=np.float32)
LABELS = ["no", "yes", "no"]
MIXED_CSV = "\n".join([HEADER, *ROWS]) + "\n"
LINES = (SAMPLE / "boston_house_prices.csv").read_text().replace('"', "").splitlines()


def _channel(path: Path, content_type: str = "", **more: str) -> Channel:
    return Channel("training", path, content_type, **more)


def _write(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def _same(table: Table) -> None:
    np.testing.assert_array_equal(table.matrix, MATRIX)
    assert table.target.tolist() == LABELS


# The fast path and the slow one

CELLS = {
    "number": [
        "1",
        "2.5",
        "-3e2",
        ".5",
        "5.",
        "+1",
        "1e400",
        "inf",
        "-nan",
        "nan",
        "NaN",
        "NA",
        "",
        " 1",
        "1_0",
        '"7"',
        "0x1",
        "x",
    ],
    "text": ["red", "dark blue", "", "NA", "null", " red", '"red"', "green", '"a""b"', 'a"b', '"red" ', "r\u00f6t"],
    "other": ["", "x", '"a,b"', '"line\nend"', 'it"s', "1", '"'],
}
ENDS = ["\n", "\n", "\n", "\r\n", "\n\n", ",9\n", "\r"]


def test_what_the_fast_path_takes_the_slow_one_reads_the_same() -> None:
    """600 small files of odd cells; whatever Arrow doesn't leave to pandas, pandas must read alike, bit by bit."""
    declaration = replace(
        MIXED,
        features=(Feature("N", "", nullable=True), Feature("D", "", "category", choices=("red", "dark blue"), nullable=True)),
    )
    layout = Layout.from_header(["N", "x", "D", "T"], declaration, "a.csv")
    chance, taken = random.Random(0), 0
    for _ in range(600):
        odd = chance.random() / 3
        block = ""
        for _ in range(chance.randint(1, 4)):
            cells = [
                chance.choice(CELLS[kind]) if chance.random() < odd else plain
                for kind, plain in (("number", "1.25"), ("other", "y"), ("text", "red"))
            ]
            block += ",".join([*cells, "yes"]) + (chance.choice(ENDS) if chance.random() < odd else "\n")
        try:
            batches = _read_fast(block.encode(), layout)
        except Unclear:
            continue
        taken += 1
        try:
            slow = read_cells(block.encode(), layout, "a.csv", 0)
        except BadData as error:
            raise AssertionError(f"pandas refuses what Arrow takes: {block!r}") from error
        for index, column in enumerate(slow):
            fast = np.concatenate([batch[index].values for batch in batches])
            np.testing.assert_array_equal(fast, column.values, err_msg=repr(block))
            assert not column.unusable.any(), block
    assert taken > 200


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of some 200 bytes, so that small files have several."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 200)
    monkeypatch.setattr("training.sources.CHUNK_BYTES", 70)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_blocks_end_where_rows_do_even_within_quotes(tmp_path: Path, end: str) -> None:
    notes = ['"a, b"', f'"two{end}lines"', '"say ""x"""', "plain"]
    rows = [f"{row},{row / 3!r},1,red,{notes[row % 4]},yes" for row in range(100)]
    table = read_channel(_channel(_write(tmp_path, end.join(["N,M,C,D,note,T", *rows]))), MIXED)
    np.testing.assert_array_equal(table.matrix[:, 0], np.arange(100, dtype=np.float32))
    np.testing.assert_array_equal(table.matrix[:, 1], (np.arange(100) / 3).astype(np.float32))


@pytest.mark.usefixtures("small_blocks")
def test_a_fault_far_down_has_its_row_and_a_line_of_another_width_its_number(tmp_path: Path) -> None:
    rows = ["1,2,0,red,no"] * 100
    with pytest.raises(BadData, match=r"a\.csv row 71, column N: 'x' is not a finite number"):
        read_channel(_channel(_write(tmp_path, "\n".join([HEADER, *rows[:70], "x,2,0,red,no", *rows]))), MIXED)
    with pytest.raises(BadData, match=r"a\.csv is not CSV: .*line 72, saw 6"):
        read_channel(_channel(_write(tmp_path, "\n".join([HEADER, *rows[:70], "1,2,0,red,no,9", *rows]))), MIXED)


def test_a_quote_left_open_in_a_column_that_is_not_read_swallows_no_rows(tmp_path: Path) -> None:
    body = f'{HEADER},note\n1,2,0,red,no,5" wide\n1,2,0,red,no,"open\n1,2,0,red,no,x\n'  # an even number of quotes
    with pytest.raises(BadData, match=r"a\.csv is not CSV"):
        read_channel(_channel(_write(tmp_path, body)), MIXED)


def test_reading_holds_little_more_than_its_result(tmp_path: Path) -> None:
    """250,000 rows of 40 columns are 40 MB of float32; joining parts at the end would take twice as much."""
    names = [f"c{index}" for index in range(40)]
    declaration = replace(DECLARATION, features=tuple(Feature(name, "") for name in names), target=Target("y", ""))
    line = ",".join(["1.5"] * 41) + "\n"
    _write(tmp_path, ",".join([*names, "y"]) + "\n" + line * 250_000)
    probe = (
        "import sys, resource, pickle; from pathlib import Path; from contract.job import Channel;"
        "from training.read import read_channel; declaration = pickle.load(sys.stdin.buffer);"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak();"
        f"table = read_channel(Channel('t', Path({str(tmp_path)!r}), ''), declaration);"
        "print(len(table), table.matrix.sum(), (peak() - before) / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, input=pickle.dumps(declaration), capture_output=True, check=True
    )
    rows, total, grown_mb = map(float, done.stdout.split())
    assert (rows, total) == (250_000, 250_000 * 40 * 1.5)
    assert grown_mb < 40 * 1.6 + 10


# Headers

HEADERLESS = "no,1,2,0,red\nyes,2.5,,1,\nno,-3e2,4,NA,dark blue\n"


@pytest.mark.parametrize(
    "content_type", ["", "text/csv", "text/csv; label_size=1", "text/csv;header=absent", 'Text/CSV; Label_Size="1"']
)
def test_a_file_without_a_header_has_the_target_first(tmp_path: Path, content_type: str) -> None:
    _same(read_channel(_channel(_write(tmp_path, HEADERLESS), content_type), MIXED))


def test_that_there_is_no_header_is_said_where_it_was_guessed(tmp_path: Path, capsys) -> None:
    read_channel(_channel(_write(tmp_path, HEADERLESS)), MIXED)
    assert "a.csv: no header, by the look of its first row; read as T, N, M, C, D" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        pytest.param(HEADERLESS, "text/csv; header=present", SchemaMismatch, id="a header that was promised"),
        pytest.param(MIXED_CSV, "text/csv; header=absent", BadData, id="a header that was not to be"),
        pytest.param("1,2,0,red,no\n", "", SchemaMismatch, id="the target last"),
        pytest.param("no,1,2,0\n", "", SchemaMismatch, id="a cell less"),
        pytest.param("no,N,2,0,red\n", "", SchemaMismatch, id="a declared name"),
    ],
)
def test_what_is_no_headerless_file_is_refused(tmp_path: Path, body: str, content_type: str, error) -> None:
    with pytest.raises(error):
        read_channel(_channel(_write(tmp_path, body), content_type), MIXED)


def test_a_wrong_row_of_a_file_without_a_header_counts_from_the_first_line(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"a\.csv row 2, column T: 'maybe' is not one of no, yes"):
        read_channel(_channel(_write(tmp_path, "no,1,2,0,red\nmaybe,1,2,0,red\n"), "text/csv; label_size=1"), MIXED)


# Formats


def _parquet(columns: dict[str, object], **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


COLUMNS = {
    "T": LABELS,
    "extra": [[1], [2], None],
    "D": ["red", None, "dark blue"],
    "C": ["0", "1", "NA"],
    "M": pa.array([2, None, 4], pa.int8()),
    "N": [1.0, 2.5, -300.0],
}
MEANT = {
    "as pandas writes it": {},
    "dictionaries": {name: pa.array(COLUMNS[name]).dictionary_encode() for name in "CDT"},
    "large texts": {name: pa.array(COLUMNS[name], pa.large_string()) for name in "CDT"},
    "text views": {name: pa.array(COLUMNS[name], pa.string_view()) for name in "CDT"},
    "decimals": {"N": [decimal.Decimal(text) for text in ("1.0", "2.5", "-300.0")]},
    "float32": {"N": pa.array([1.0, 2.5, -300.0], pa.float32())},
    "NaN for missing": {"M": [2.0, NAN, 4.0]},
    "unsigned": {"M": pa.array([2, None, 4], pa.uint64())},
}


@pytest.mark.parametrize("change", MEANT.values(), ids=MEANT)
def test_parquet_reads_by_name_whatever_types_mean_the_same(tmp_path: Path, change: dict[str, object]) -> None:
    _same(read_channel(_channel(_write(tmp_path, _parquet({**COLUMNS, **change}), "a.parquet")), MIXED))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_parquet_is_unpacked_whatever_packed_it(tmp_path: Path, compression: str) -> None:
    _same(read_channel(_channel(_write(tmp_path, _parquet(COLUMNS, compression=compression), "a.parquet")), MIXED))


def test_integers_and_booleans_are_choices_by_their_spelling(tmp_path: Path) -> None:
    features = (Feature("C", "", "category", choices=("0", "1")), Feature("B", "", "category", choices=("true", "false")))
    declaration = replace(MIXED, features=(*features, Feature("N", "", nullable=True)))
    columns = {"C": [1, 0], "B": [False, True], "N": [True, None], "T": ["no", "yes"]}
    table = read_channel(_channel(_write(tmp_path, _parquet(columns), "a.parquet")), declaration)
    np.testing.assert_array_equal(table.matrix, np.array([[1, 1, 1], [0, 0, NAN]], dtype=np.float32))


WHOLE = _parquet(COLUMNS)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        pytest.param(b"PAR1", BadData, "a.parquet", id="nothing between"),
        pytest.param(b"a,b\n1,2\n", BadData, "no whole Parquet file", id="CSV"),
        pytest.param(WHOLE[:-9], BadData, "no whole Parquet file", id="cut"),
        pytest.param(WHOLE[:40] + b"\xff" * 60 + WHOLE[100:], BadData, "can't be read as Parquet", id="damaged within"),
        pytest.param(_parquet({"N": [1]}), SchemaMismatch, "a.parquet lacks M, C, D, T", id="columns missing"),
        pytest.param(
            _parquet({**COLUMNS, "N": ["1", "2", "3"]}), SchemaMismatch, "N is Utf8, a number was declared", id="text"
        ),
        pytest.param(
            _parquet({**COLUMNS, "C": [0.0, 1.0, 2.0]}), SchemaMismatch, "C is Float64, a category", id="float choice"
        ),
        pytest.param(_parquet({**COLUMNS, "N": [[1], [2], [3]]}), SchemaMismatch, "N is List(Int64", id="list"),
        pytest.param(_parquet({**COLUMNS, "N": [1.0, None, 2.0]}), BadData, "row 2, column N: empty", id="null"),
        pytest.param(
            _parquet({**COLUMNS, "T": ["no", "no", "so"]}), BadData, "row 3, column T: 'so' is not one of", id="label"
        ),
        pytest.param(_parquet({**COLUMNS, "N": [1.0, 2.0, 1e39]}), BadData, "row 3, column N: '1e+39'", id="too large"),
    ],
)
def test_parquet_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, error, message: str) -> None:
    pickling_support.install(BadData, SchemaMismatch)  # as Dask does: errors are then pickled with their causes
    with pytest.raises(error) as caught:
        read_channel(_channel(_write(tmp_path, content, "a.parquet")), MIXED)
    assert message in caught.value.message


LEVELS = b"\2\0\0\0\6\1"  # four bytes of length, then "three times 1": no null among three values


def test_parquet_that_crashes_its_decoder_fails_the_job_as_any_file_that_cannot_be_used(tmp_path: Path) -> None:
    rows = {name: [1.0, 2.0, 3.0] for name in [*DECLARATION.feature_names, DECLARATION.target.name]}
    whole = _parquet(rows, compression="none", use_dictionary=False)
    crashes = whole.replace(LEVELS, b"\2\0\0\0\xf9\1", 1)  # arro3 0.9.1 ends the process that reads this one byte
    lay_out(tmp_path / "ml", {"training": _write(tmp_path / "data", crashes, "a.parquet")})
    outcome = train(Processes(), tmp_path / "ml")
    said = "UserError: a.parquet can't be read as Parquet: the process that read it was ended by signal 6. Write it again; "
    assert (outcome.exit_code, (tmp_path / "ml" / "output" / "failure").read_text()[: len(said)]) == (1, said)
    assert "panicked" not in outcome.output
    assert "Traceback" not in outcome.output


def _decoding(work, monkeypatch: pytest.MonkeyPatch, path: Path):
    """The batches of a Parquet file, in whose place the child does some other work."""
    monkeypatch.setattr(parquet, "_values", lambda *_: work())
    return parquet.read_batches(Source(path, path.name, "parquet"), MIXED)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return _write(tmp_path, WHOLE, "a.parquet") / "a.parquet"


def test_a_decoder_that_is_killed_for_its_memory_is_told_with_what_to_do(whole: Path, monkeypatch) -> None:
    with pytest.raises(BadData, match=r"a\.parquet .* ended by signal 9\. .* use a larger instance or smaller files"):
        next(_decoding(lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch, whole))


def test_a_fault_of_ours_in_the_decoder_is_no_fault_of_the_file(whole: Path, monkeypatch, capfd) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        next(_decoding(lambda: 1 / 0, monkeypatch, whole))
    assert "Traceback" in capfd.readouterr().err


def test_who_stops_reading_early_leaves_no_decoder(whole: Path, monkeypatch) -> None:
    batches = _decoding(lambda: itertools.repeat(np.zeros(65_536)), monkeypatch, whole)
    monkeypatch.setattr(parquet, "_column", lambda values, column: values)
    assert len(next(batches)) == 5
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()


def test_a_stop_ends_a_decoder_that_does_not_end(whole: Path, monkeypatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    asked = Stop()
    asked.install()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    _decoding(lambda: time.sleep(60), monkeypatch, whole)
    try:
        with pytest.raises(Stopped, match="while reading the data"), asked.ending("reading the data"):
            read_channel(_channel(whole.parent), MIXED)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert time.monotonic() - started < 20
    assert not multiprocessing.active_children()


def _npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


ARRAY = np.column_stack([[0, 1, 0], MATRIX]).astype(np.float64)


def test_formats_may_be_mixed_in_one_channel(tmp_path: Path, capsys) -> None:
    _write(tmp_path, MIXED_CSV, "1.csv")
    _write(tmp_path, gzip.compress(MIXED_CSV[:20].encode()) + gzip.compress(MIXED_CSV[20:].encode()), "2.csv.gz")
    _write(tmp_path, WHOLE, "3/part-0.snappy.parquet")
    _write(tmp_path, _npy(ARRAY), "4.npy")
    _write(tmp_path, gzip.compress(MIXED_CSV.encode()), "5-packed-by-its-bytes.csv")
    _write(tmp_path, "notes", "notes.txt")
    table = read_channel(_channel(tmp_path), MIXED)
    np.testing.assert_array_equal(table.matrix, np.concatenate([MATRIX] * 5))
    assert table.target.tolist() == LABELS * 5
    assert "passed over, of no format that is read, or empty: notes.txt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(WHOLE, "application/x-parquet"), (_npy(ARRAY), "application/x-npy"), (MIXED_CSV.encode(), "text/csv")],
    ids=["parquet", "npy", "csv"],
)
@pytest.mark.parametrize("name", ["part-00000", "data.bin"])
def test_the_content_type_decides_where_the_name_does_not(tmp_path: Path, name: str, content: bytes, content_type: str) -> None:
    _same(read_channel(_channel(_write(tmp_path, content, name), content_type), MIXED))


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        pytest.param("a.csv.gz", gzip.compress(MIXED_CSV.encode())[:-9], BadData, "ends too soon", id="gzip cut"),
        pytest.param("a.csv.gz", gzip.compress(MIXED_CSV.encode())[:20] + b"x" * 30, BadData, "can't be unpacked", id="gzip"),
        pytest.param("a.npy", _npy(np.array([[{}]]), pickled=True), BadData, "no .npy array that can be read", id="pickle"),
        pytest.param("a.npy", _npy(ARRAY)[:-5], BadData, "no .npy array that can be read", id="npy cut"),
        pytest.param("a.npy", _npy(ARRAY[:, 1:]), SchemaMismatch, "shape (3, 4); (rows, 5) was expected: T, N", id="width"),
        pytest.param("a.npy", _npy(ARRAY.astype("U5")), BadData, "holds <U5", id="npy of texts"),
        pytest.param(
            "a.npy", _npy(np.add(ARRAY, [0, 0, 0, 0.5, 0])), BadData, "row 1, column C: '0.5'", id="between two choices"
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, error, message: str) -> None:
    with pytest.raises(error) as caught:
        read_channel(_channel(_write(tmp_path, content, name)), MIXED)
    assert message in caught.value.message


@pytest.mark.parametrize("content_type", ["image/png", "application/x-recordio-protobuf"])
def test_a_content_type_that_is_not_read_is_refused_with_those_that_are(tmp_path: Path, content_type: str) -> None:
    with pytest.raises(BadChannel, match="CSV"):
        read_channel(_channel(_write(tmp_path, b"\0", "data"), content_type), MIXED)


# Faults

FAULTY = "\n".join([HEADER, "1,2,0,red,no", "x,2,0,green,no", "1,2,0,red,", "2,,1,,yes"])


def test_bad_rows_are_dropped_and_said_when_asked(tmp_path: Path, capsys) -> None:
    table = read_channel(_channel(_write(tmp_path, FAULTY)), MIXED, drop=True)
    np.testing.assert_array_equal(table.matrix[:, 0], [1, 2])
    assert (table.target.tolist(), table.dropped) == (["no", "yes"], 2)
    said = "a.csv: 2 of 4 rows dropped; the first is row 2, column D: 'green' is not one of red, dark blue"
    assert said in capsys.readouterr().out


def test_rows_of_parquet_are_dropped_alike(tmp_path: Path) -> None:
    columns = {**COLUMNS, "N": [1.0, None, 2.0], "T": ["no", "yes", None]}
    table = read_channel(_channel(_write(tmp_path, _parquet(columns), "a.parquet")), MIXED, drop=True)
    assert (len(table), table.dropped) == (1, 2)


def test_dropping_every_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="All 2 rows have a fault"):
        read_channel(_channel(_write(tmp_path, f"{HEADER}\nx,,,,\ny,,,,\n")), MIXED, drop=True)


def test_a_line_of_another_width_is_an_error_even_where_bad_rows_are_dropped(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="is not CSV"):
        read_channel(_channel(_write(tmp_path, f"{MIXED_CSV}1,2,0,red,no,9\n")), MIXED, drop=True)


def test_targets_outside_their_range_are_kept_counted_and_said(tmp_path: Path, capsys) -> None:
    declaration = replace(DECLARATION, target=replace(DECLARATION.target, range=(0.0, 40.0)))
    table = read_channel(_channel(SAMPLE), declaration, drop=True)
    beyond = int((pd.read_csv(SAMPLE / "boston_house_prices.csv")["MEDV"] > 40).sum())
    assert (len(table), table.out_of_range) == (506, beyond)
    assert f"{beyond} rows have MEDV outside the declared range 0 to 40; they are kept" in capsys.readouterr().out


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory):
    """A job over Pipe mode: two objects with a header each, one after the other, with rows to drop; and what it printed."""
    base = tmp_path_factory.mktemp("piped") / "ml"
    lay_out(base, {"train": SAMPLE}, {"max_iter": "10", "bad_rows": "drop"}, {"train": {"TrainingInputMode": "Pipe"}})
    first, second = "\n".join([*LINES[:300], "1,1,1,x" + ",1" * 10]), "\n".join([LINES[0], *LINES[300:]])
    with streaming(base, {"train": [first.encode(), b"\n", second.encode()]}, late_s=1) as streams:
        return base, train(Processes(), base), streams["train"]


def test_a_job_in_pipe_mode_reads_one_epoch_to_its_end(piped) -> None:
    base, outcome, stream = piped
    assert outcome.exit_code == 0, outcome.output
    data = read_manifest(base / "model").data
    assert (data["train_rows"], data["validation_rows"], stream.closed_early) == (404, 102, False)


def test_dropped_rows_are_a_metric_and_in_the_manifest(piped) -> None:
    base, outcome, _ = piped
    assert re.findall(metric_regex("data:rows_dropped"), outcome.output) == ["1"]
    assert read_manifest(base / "model").data["rows_dropped"] == 1
    assert read_manifest(base / "model").data["target_out_of_range"] == 0


# Shards and folders


def test_one_of_several_hosts_may_have_no_file_of_a_sharded_channel(tmp_path: Path, capsys) -> None:
    table = read_channel(_channel(tmp_path, distribution="ShardedByS3Key"), MIXED, hosts=2)
    assert (table.matrix.shape, len(table.target)) == ((0, 4), 0)
    assert "this host has no file of it; others have" in capsys.readouterr().out


@pytest.mark.parametrize(("hosts", "distribution"), [(1, "ShardedByS3Key"), (2, "FullyReplicated"), (2, "")])
def test_a_host_that_should_have_files_and_has_none_fails(tmp_path: Path, hosts: int, distribution: str) -> None:
    with pytest.raises(BadChannel, match="Channel 'training' holds no file; at least one CSV file with rows was expected"):
        read_channel(_channel(tmp_path, distribution=distribution), MIXED, hosts=hosts)


def test_what_stands_beside_channels_is_no_channel(tmp_path: Path) -> None:
    lay_out(tmp_path, {"training": SAMPLE}, options={"training": {"TrainingInputMode": "FastFile", "ContentType": "text/csv"}})
    data = tmp_path / "input" / "data"
    _write(data, "s3://bucket/\nkey\n", "training-manifest")
    _write(data, "1,2\n", "checkpoints-manifest")
    os.mkfifo(data / "other_0")
    job = read_job(Paths(tmp_path), {})
    assert list(job.channels) == ["training"]
    assert len(read_channel(job.channels["training"], DECLARATION)) == 506


def test_nothing_is_written_into_a_channel(tmp_path: Path) -> None:
    _write(tmp_path, MIXED_CSV, "deep/a.csv")
    _write(tmp_path, _npy(ARRAY), "a.npy")
    _write(tmp_path, WHOLE, "a.parquet")
    files = sorted(tmp_path.rglob("*"))
    before = [(path, path.stat().st_mtime_ns) for path in files]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    tmp_path.chmod(0o555)
    assert len(read_channel(_channel(tmp_path, mode="FastFile"), MIXED)) == 9
    assert [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))] == before
    tmp_path.chmod(0o755)
    (tmp_path / "deep").chmod(0o755)


# Pipe mode


def _stream(tmp_path: Path, parts: list[bytes], declaration: Declaration = MIXED, **options: str) -> Table:
    (tmp_path / "input" / "data").mkdir(parents=True)
    channel = Channel("training", tmp_path / "input" / "data" / "training", options.pop("content_type", ""), "Pipe", **options)
    with streaming(tmp_path, {"training": parts}) as streams:
        try:
            return read_channel(channel, declaration)
        finally:
            _stream.last = streams["training"]  # type: ignore[attr-defined]


RECORDS = [framed(line.encode()) for line in HEADERLESS.splitlines()]


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        pytest.param([MIXED_CSV.encode()], {}, id="CSV"),
        pytest.param([MIXED_CSV[:7].encode(), MIXED_CSV[7:].encode()], {}, id="a header in two writes"),
        pytest.param([gzip.compress(MIXED_CSV.encode())], {"compression": "Gzip"}, id="gzip"),
        pytest.param([f"{HEADER}\n{ROWS[0]}\n{HEADER}\n{ROWS[1]}\n{HEADER}\n{ROWS[2]}".encode()], {}, id="headers repeated"),
        pytest.param(
            [f"{HEADER}\n{ROWS[0]}\n{ROWS[1]}\ufeff{HEADER}\n{ROWS[2]}".encode()], {}, id="a header behind the last cell"
        ),
        pytest.param([HEADERLESS.encode()], {"content_type": "text/csv; label_size=1"}, id="no header"),
        pytest.param([b"".join(RECORDS)], {"record_wrapper": "RecordIO"}, id="RecordIO"),
        pytest.param([bytes([byte]) for byte in b"".join(RECORDS)], {"record_wrapper": "RecordIO"}, id="a byte a write"),
        pytest.param([framed(MIXED_CSV.encode())], {"record_wrapper": "RecordIO"}, id="a record of several lines"),
    ],
)
def test_what_comes_through_a_fifo_is_read(tmp_path: Path, parts: list[bytes], options: dict[str, str]) -> None:
    _same(_stream(tmp_path, parts, **options))


def test_a_split_record_gets_the_magic_back_that_split_it() -> None:
    parts = [framed(b"a", 1), framed(b"b", 2), framed(b"c", 3), framed(b"d")]
    assert b"".join(pipe.unframed(iter(parts), "x")) == b"a" + pipe.MAGIC + b"b" + pipe.MAGIC + b"c\nd\n"


@pytest.mark.parametrize(
    ("parts", "options", "error", "message"),
    [
        pytest.param([b"".join(RECORDS)[:-2]], {}, BadData, "training_0 ends within RecordIO record 3", id="cut"),
        pytest.param([RECORDS[0], b"garbage, more"], {}, BadData, "record 2 does not begin as", id="garbage"),
        pytest.param(
            [MIXED_CSV.encode()], {"record_wrapper": "RecordIO"}, BadData, "does not begin with a RecordIO", id="no frames"
        ),
        pytest.param([framed(b"\n\x01x")], {}, BadData, "RecordIO-protobuf, which is not read here: convert", id="protobuf"),
        pytest.param([gzip.compress(b"a" * 99)[:-9]], {}, BadData, "ends too soon", id="gzip cut"),
        pytest.param(
            [MIXED_CSV.encode()],
            {"content_type": "application/x-parquet"},
            BadChannel,
            "FIFO can carry CSV alone",
            id="parquet",
        ),
        pytest.param([f"{MIXED_CSV}1,2,9,red,no\n".encode()], {}, BadData, "training_0 row 4, column C: '9'", id="a bad cell"),
    ],
)
def test_a_stream_that_cannot_be_used_is_named(tmp_path: Path, parts, options, error, message: str) -> None:
    with pytest.raises(error) as caught:
        _stream(tmp_path, parts, **options)
    assert message in caught.value.message


def test_an_error_closes_the_fifo_early_and_so_ends_its_writer(tmp_path: Path) -> None:
    with pytest.raises(BadData):
        _stream(tmp_path, [f"{HEADER}\n1,2,0,red,no,9\n".encode(), *[b"1,2,0,red,no\n" * 100_000] * 20])
    assert _stream.last.closed_early  # type: ignore[attr-defined]
    assert _stream.last.written_bytes < 20_000_000  # type: ignore[attr-defined]


def test_a_fifo_that_does_not_appear_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "PATIENCE_S", 0.3)
    with pytest.raises(BadChannel, match=r"training_0 has not appeared in 0\.3 s"):
        read_channel(Channel("training", tmp_path / "training", "", "Pipe"), MIXED)
    os.mkfifo(tmp_path / "training_0")
    with pytest.raises(BadChannel, match="nothing has come through"):
        read_channel(Channel("training", tmp_path / "training", "", "Pipe"), MIXED)


@pytest.mark.parametrize("made", [False, True], ids=["before the FIFO is there", "before anything comes through it"])
def test_a_stop_while_waiting_for_data_ends_the_job_at_once(tmp_path: Path, made: bool) -> None:
    lay_out(tmp_path, {"training": SAMPLE}, {}, {"training": {"TrainingInputMode": "Pipe"}})
    if made:
        os.mkfifo(tmp_path / "input" / "data" / "training_0")
    program = Processes().start("train", tmp_path, {})
    deadline = time.monotonic() + 60
    while "data: channel training: reading training_0" not in program.output():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    started = time.monotonic()
    assert stop(program, 60) == 143
    assert time.monotonic() - started < 5
    assert "Stopped: Stopped by a signal while" in (tmp_path / "output" / "failure").read_text()


def test_a_signal_ends_the_reading_wherever_it_is() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    asked = Stop()
    asked.install()
    try:
        with pytest.raises(Stopped, match="while reading the data"), asked.ending("reading the data"):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="while reading more"), asked.ending("reading more"):
            pytest.fail("a signal that came earlier was forgotten")
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
