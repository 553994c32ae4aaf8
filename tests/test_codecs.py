"""Codecs without a server: bytes to the matrix and predictions to bytes, for a schema that has every kind of column."""

import csv
import io
import json
import math
import struct
import time
import warnings

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contract.declaration import Feature
from contract.errors import BadData, BerthError, NotAcceptable, SchemaMismatch, UnreadableBody, UnsupportedMediaType
from serving.codecs import answer_type, read_body
from serving.decoders import DECODERS
from serving.encoders import ENCODERS, encode_book
from serving.errors import error_body
from serving.predictor import Predictions
from serving.schema import Schema

CSV, JSON, JSONL, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
FEATURES = (
    Feature("size", "a number"),
    Feature("age", "a number or nothing", nullable=True),
    Feature("color", "a category", kind="category", choices=("red", "green", "size", "sea, deep")),
    Feature("grade", "a category or nothing", kind="category", choices=("NA", "b", "1"), nullable=True),
)
SCHEMA = Schema(FEATURES)
NAN = math.nan


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npy_of(header, data=b"", version=(1, 0)):
    """A .npy with a header written by hand."""
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def header(descr="'<f4'", shape="(1, 4)"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def columns(*names):
    return Schema([Feature(name, "a number", nullable=True) for name in names])


# ---- bytes to the matrix

ROWS = [[1.5, 30, "green", "b"], [2, None, "size", "NA"], [-3e-5, 0, "sea, deep", None], [4, None, "red", "1"]]
MATRIX = np.array([[1.5, 30, 1, 1], [2, NAN, 2, 0], [-3e-5, 0, 3, NAN], [4, NAN, 0, 2]], dtype=np.float32)
RECORDS = [dict(zip(SCHEMA.names, row, strict=True)) for row in ROWS]
CSV_ROWS = b'1.5,30,green,b\n2,,size,NA\n-3e-5,0,"sea, deep",\n4,NaN,red,1'
SAME = {
    "CSV": (CSV, CSV_ROWS),
    "CSV with a header": (CSV, b"size,age,color,grade\n" + CSV_ROWS),
    "CSV with other words for missing": (CSV, b'1.5,30,green,b\n2,null,size,NA\n-3e-5,0,"sea, deep",nan\n4,na,red,1'),
    "CSV with spaces around cells": (CSV, b' 1.5, 30 ,green , b\n2, , size,NA\n-3e-5,0,"sea, deep",\n4,NaN,red ,1'),
    "CSV with every cell quoted": (
        CSV,
        b'"1.5","30","green","b"\r\n"2","","size","NA"\r\n"-3e-5","0","sea, deep",""\r\n"4","","red","1"\r\n',
    ),
    "CSV with columns in another order": (
        CSV,
        b'color,size,grade,age\ngreen,1.5,b,30\nsize,2,NA,\n"sea, deep",-3e-5,,0\nred,4,1,',
    ),
    "JSON lists": (JSON, json.dumps({"instances": ROWS})),
    "JSON records": (JSON, json.dumps({"instances": RECORDS})),
    "JSON features": (JSON, json.dumps({"instances": [{"features": row} for row in ROWS]})),
    "JSON columns": (JSON, json.dumps({name: [row[i] for row in ROWS] for i, name in enumerate(SCHEMA.names)})),
    "JSON split": (JSON, json.dumps({"dataframe_split": {"columns": SCHEMA.names, "data": ROWS}})),
    "JSON with a whole number for a choice": (JSON, json.dumps([*ROWS[:3], [4, None, "red", 1]])),
    "JSON Lines lists": (JSONL, "\n".join(map(json.dumps, ROWS))),
    "JSON Lines records": (JSONL, "\n".join(map(json.dumps, RECORDS))),
    "JSON Lines of mixed shapes": (
        JSONL,
        "\n".join(map(json.dumps, [ROWS[0], RECORDS[1], {"features": ROWS[2]}, {"data": {"features": ROWS[3]}}])),
    ),
    "npy": (NPY, npy(MATRIX)),
    "npy of doubles": (NPY, npy(MATRIX.astype(np.float64))),
    "npy big-endian": (NPY, npy(MATRIX.astype(">f4"))),
    "npy Fortran order": (NPY, npy(np.asfortranarray(MATRIX))),
}


@pytest.mark.parametrize(("media_type", "body"), SAME.values(), ids=SAME.keys())
def test_every_codec_reads_categories_and_missing_cells_to_the_same_matrix(media_type, body):
    body = body.encode() if isinstance(body, str) else body
    matrix = read_body(body, media_type, SCHEMA)
    assert matrix.dtype == np.float32
    assert matrix.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(matrix, MATRIX)


FAULTS = {
    "CSV unknown choice": (CSV, b"1,2,red,b\n1,2,pink,b", BadData, (2, "color"), ["pink", "red, green, size, sea, deep"]),
    "CSV unknown choice, nullable": (CSV, b"1,2,red,z", BadData, (1, "grade"), ["'z'", "NA, b, 1"]),
    "CSV choice in another case": (CSV, b"1,2,Red,b", BadData, (1, "color"), ["Red"]),
    "CSV index for a choice": (CSV, b"1,2,0,b", BadData, (1, "color"), ["'0'"]),
    "CSV missing number": (CSV, b",2,red,b", BadData, (1, "size"), ["empty"]),
    "CSV missing category": (CSV, b"1,2,,b", BadData, (1, "color"), ["empty"]),
    "CSV infinity where NaN is fine": (CSV, b"1,inf,red,b", BadData, (1, "age"), ["inf"]),
    "JSON unknown choice": (JSON, b'[[1, 2, "pink", "b"]]', BadData, (1, "color"), ["pink", "red, green"]),
    "JSON index for a choice": (JSON, b'[[1, 2, 0, "b"]]', BadData, (1, "color"), ["0 is not one of its choices"]),
    "JSON boolean for a choice": (JSON, b'[[1, 2, "red", true]]', BadData, (1, "grade"), ["True"]),
    "JSON list for a choice": (JSON, b'[[1, 2, ["red"], "b"]]', BadData, (1, "color"), ["['red']"]),
    "JSON null in a category": (JSON, b'[[1, 2, null, "b"]]', BadData, (1, "color"), ["null"]),
    "JSON Lines unknown choice": (JSONL, b'[1,2,"red","b"]\n[1,2,"red","c"]', BadData, (2, "grade"), ["'c'", "NA, b, 1"]),
    "npy index too large": (NPY, npy(np.float32([[1, 2, 4, 0]])), BadData, (1, "color"), ["4.0", "0 to 3"]),
    "npy index between two": (NPY, npy(np.float32([[1, 2, 0.5, 0]])), BadData, (1, "color"), ["0.5"]),
    "npy NaN for a category": (NPY, npy(np.float32([[1, 2, NAN, 0]])), BadData, (1, "color"), ["NaN"]),
    "npy double too large for float32": (NPY, npy(np.array([[1, 1e39, 0, 0]])), BadData, (1, "age"), ["1e+39"]),
}


@pytest.mark.parametrize(("media_type", "body", "kind", "place", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_a_cell_that_its_column_does_not_take_is_named(media_type, body, kind, place, words):
    with pytest.raises(kind) as caught:
        read_body(body, media_type, SCHEMA)
    assert (caught.value.facts["row"], caught.value.facts["column"]) == place
    assert all(word in caught.value.message for word in [*words, f"Row {place[0]}", place[1]]), caught.value.message


def test_a_choice_that_is_called_like_a_feature_is_data_and_not_a_header():
    assert read_body(b"1,2,size,b", CSV, SCHEMA).tolist() == [[1, 2, 2, 1]]


@pytest.mark.parametrize(
    ("schema", "body", "expected"),
    [
        (columns("0", "1", "2"), b"0,5,13\n1,2,3", [[0, 5, 13], [1, 2, 3]]),
        (columns("RI", "Na"), b"1.5,NA", [[1.5, NAN]]),
        (columns("RI", "Na"), b"Na,RI\n1,2", [[2, 1]]),
    ],
    ids=["features called 0, 1, 2", "a feature called Na, and a missing value", "that feature's header"],
)
def test_a_value_that_reads_like_a_name_is_a_header_only_where_it_cannot_be_a_value(schema, body, expected):
    np.testing.assert_array_equal(read_body(body, CSV, schema), np.float32(expected))


def test_a_header_in_another_case_is_told_as_a_header():
    with pytest.raises(SchemaMismatch, match="unknown: AGE, Color, SIZE"):
        read_body(b"SIZE,AGE,Color,grade\n1,2,red,b", CSV, SCHEMA)


def test_row_numbers_go_on_across_blocks_and_leave_the_header_out():
    body = b"size,age,color,grade\n" + b"1,2,red,b\n" * 20_000 + b"1,x,red,b\n"
    with pytest.raises(BadData, match="Row 20001, column age"):
        read_body(body, CSV, SCHEMA)


@pytest.mark.parametrize("media_type", [CSV, JSON], ids=["CSV", "JSON"])
def test_a_byte_that_is_no_utf_8_is_told_with_its_place_in_the_whole_body(media_type):
    body = b"1,2,red,b\n" * 5_000 + b"\xff" if media_type == CSV else b'["' + b"a" * 49_998 + b'\xff"]'
    with pytest.raises(UnreadableBody, match="byte 0xff at 50,000 "):
        read_body(body, media_type, SCHEMA)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([{f"k{index}": 1 for index in range(50_000)}]),
        json.dumps([["x" * 100_000, 1, "red", "b"], *[[1, 1, "red", "b"]] * 20_000]),
        json.dumps([[[[1]] * 10_000, 1, "red", "b"], *[[1, 1, "red", "b"]] * 10_000]),
    ],
    ids=["50,000 unknown names", "one long text among many numbers", "a long list in a cell"],
)
def test_a_body_of_a_megabyte_or_two_is_refused_within_a_second_of_processor_time(body):
    started = time.process_time()
    with pytest.raises(BerthError):
        read_body(body.encode(), JSON, SCHEMA)
    assert time.process_time() - started < 1


NOT_ARRAYS = {
    "no .npy": b"1,2,3,4",
    "magic only": b"\x93NUMPY",
    "an object array": npy(np.array([[{}, 1, 2, 3]], dtype=object), allow_pickle=True),
    "no bytes a value": npy_of(header("'|V0'", "(0, 4)")),
    "texts": npy(np.array([["1", "2", "3", "4"]])),
    "dates": npy(np.array([[1, 2, 3, 4]], dtype="M8[s]")),
    "complex": npy(np.ones((1, 4), dtype=complex)),
    "booleans": npy(np.ones((1, 4), dtype=bool)),
    "a record": npy(np.zeros((1,), dtype="f4,f4,f4,f4")),
    "an array in an array": npy_of(header("('<f4', (4,))", "(1,)"), bytes(16)),
    "one dimension": npy(np.float32([1, 2, 3, 4])),
    "three dimensions": npy(np.ones((1, 1, 4))),
    "none": npy(np.float32(1)),
    "a hundred dimensions": npy_of(header(shape="(" + "1," * 100 + ")"), bytes(4)),
    "two negative lengths": npy_of(header(shape="(-1, -4)"), bytes(16)),
    "a length of 4,000 digits": npy_of(header(shape=f"({'9' * 4000}, {'9' * 4000})"), bytes(16)),
    "a boolean length": npy_of(header(shape="(True, 4)"), bytes(16)),
    "more rows than follow": npy_of(header(shape="(1000000000, 4)"), bytes(16)),
    "truncated": npy(np.ones((3, 4)))[:-5],
    "bytes left over": npy(np.ones((3, 4))) + b"x",
    "an empty type": npy_of(header("()"), bytes(16)),
    "an open text": npy_of("{'descr': '''\n"),
    "9,000 parentheses": npy_of("(" * 9_000),
    "9,000 minuses": npy_of("-" * 9_000 + "1"),
    "no rows": npy(np.ones((0, 4))),
    "another width": npy(np.ones((2, 3))),
}


@pytest.mark.parametrize("body", NOT_ARRAYS.values(), ids=NOT_ARRAYS.keys())
def test_a_npy_that_is_no_table_of_numbers_is_refused(body):
    with pytest.raises((UnreadableBody, SchemaMismatch)):
        read_body(body, NPY, SCHEMA)


def test_a_pickle_in_a_npy_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(UnreadableBody, match="never unpickled"):
        read_body(npy(np.array([[Trap()] * 4], dtype=object), allow_pickle=True), NPY, SCHEMA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [b"[1,2,3,4],[1,2,3,4]\n[1,2\n3,4]", b'[1,2,"red","b"\n]', b'[1,2,"red","b"]\n\n[1,2,"red","b"]'],
    ids=["as many values as lines", "a row on two lines", "a blank line"],
)
def test_json_lines_are_read_line_by_line(body):
    with pytest.raises(UnreadableBody) as caught:
        read_body(body, JSONL, SCHEMA)
    assert caught.value.facts["row"] == (2 if b"\n\n" in body else 1)


CONTENT_TYPES = {
    "parameters": ("text/csv; charset=UTF-8; header=absent; label_size=0", None),
    "capitals": ("Text/CSV; Charset=UTF-8", None),
    "a quoted charset": ('text/csv; charset="utf-8"', None),
    "nothing": ("", None),
    "curl's own": ("application/x-www-form-urlencoded", None),
    "unknown": ("text/plain", UnsupportedMediaType),
    "unknown charset": ("text/csv; charset=klingon", UnsupportedMediaType),
    "charset that is a Python codec and no charset": ("text/csv; charset=hex", UnsupportedMediaType),
    "very long": ("x/" + "y" * 5_000, UnsupportedMediaType),
}


@pytest.mark.parametrize(("content_type", "kind"), CONTENT_TYPES.values(), ids=CONTENT_TYPES.keys())
def test_only_the_media_type_and_the_charset_of_a_content_type_count(content_type, kind):
    if kind is None:
        assert read_body(b"1,2,red,b", content_type, SCHEMA).tolist() == [[1, 2, 0, 1]]
        return
    with pytest.raises(kind) as caught:
        read_body(b"1,2,red,b", content_type, SCHEMA)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "us-ascii", "iso-8859-1"])
def test_a_body_in_a_known_charset_is_read_as_in_utf_8(charset):
    body = "1,2,red,b\n".encode(charset)
    assert read_body(body, f"text/csv; charset={charset}", SCHEMA).tolist() == [[1, 2, 0, 1]]


def test_a_choice_with_an_accent_is_read_in_every_charset_that_has_it():
    schema = Schema([Feature("where", "a place", kind="category", choices=("Köln", "Łódź"))])
    assert read_body("Köln".encode("latin-1"), "text/csv; charset=ISO-8859-1", schema).tolist() == [[0]]
    assert read_body('["Łódź"]'.encode("utf-16"), "application/jsonlines; charset=utf-16", schema).tolist() == [[1]]


# ---- predictions to bytes

LABELS = ("plain", 'with "quotes", comma')
NUMBERS = Predictions(np.float32([24.855743, 1e-7, -3]))
CLASSES = Predictions(np.array([LABELS[1], LABELS[0]], dtype=object), np.float32([[0.25, 0.75], [0.9, 0.1]]), LABELS)
ANSWERS = [
    {"label": LABELS[1], "probabilities": {LABELS[0]: 0.25, LABELS[1]: 0.75}},
    {"label": LABELS[0], "probabilities": {LABELS[0]: 0.9, LABELS[1]: 0.1}},
]


def test_numbers_are_written_in_every_format_without_a_newline_at_the_end():
    assert ENCODERS[CSV](NUMBERS) == b"24.855743\n1e-7\n-3.0"
    assert ENCODERS[JSON](NUMBERS) == b'{"predictions":[24.855743,1e-7,-3.0]}'
    assert ENCODERS[JSONL](NUMBERS) == b'{"prediction":24.855743}\n{"prediction":1e-7}\n{"prediction":-3.0}'
    assert encode_book(NUMBERS) == b'{"prediction":[24.855743,1e-7,-3.0]}'
    np.testing.assert_array_equal(np.load(io.BytesIO(ENCODERS[NPY](NUMBERS))), NUMBERS.values)


def test_classes_are_written_as_label_and_probabilities_in_every_format():
    text = ENCODERS[CSV](CLASSES).decode()
    assert text == '"with ""quotes"", comma",0.25,0.75\nplain,0.9,0.1'
    assert list(csv.reader(io.StringIO(text))) == [[LABELS[1], "0.25", "0.75"], [LABELS[0], "0.9", "0.1"]]
    assert json.loads(ENCODERS[JSON](CLASSES)) == {"predictions": ANSWERS}
    assert json.loads(encode_book(CLASSES)) == {"prediction": ANSWERS}
    assert [json.loads(line) for line in ENCODERS[JSONL](CLASSES).split(b"\n")] == [{"prediction": row} for row in ANSWERS]
    np.testing.assert_array_equal(np.load(io.BytesIO(ENCODERS[NPY](CLASSES))), CLASSES.probabilities)


@given(arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_no_text_format_loses_a_digit_of_a_float32(values):
    predictions = Predictions(values)
    texts = {
        CSV: ENCODERS[CSV](predictions).decode().split("\n"),
        JSON: json.loads(ENCODERS[JSON](predictions))["predictions"],
        JSONL: [json.loads(line)["prediction"] for line in ENCODERS[JSONL](predictions).split(b"\n")],
    }
    for read in texts.values():
        np.testing.assert_array_equal(np.array(read, dtype=np.float32), values)


# ---- what to answer in

ACCEPTS = {
    "missing": ("", CSV, "", CSV),
    "spaces": ("  ", JSONL, "", JSONL),
    "anything": ("*/*", NPY, "", NPY),
    "the kin of x-ndjson": ("", "application/x-ndjson", "", JSONL),
    "the kin of nothing": ("", "", "", JSON),
    "the default": ("", CSV, JSON, JSON),
    "the default for */*": ("*/*", CSV, JSONL, JSONL),
    "named before the default": (CSV, CSV, JSON, CSV),
    "capitals": ("Application/JSON", CSV, "", JSON),
    "a charset": ("application/json; charset=utf-8", CSV, "", JSON),
    "SageMaker's verbose": ("application/json;verbose=true", CSV, "", JSON),
    "the body's kin among equals": ("text/csv, application/json", JSON, "", JSON),
    "the body's kin among equals, in another order": ("application/json, text/csv", CSV, "", CSV),
    "by weight": ("text/csv;q=0.1, application/jsonlines;q=0.5", CSV, "", JSONL),
    "by weight and parameter": ("text/csv;header=present;q=0.1, application/json;charset=utf-8;q=0.5", CSV, "", JSON),
    "a browser's": ("text/html,application/xhtml+xml,*/*;q=0.8", JSON, "", JSON),
    "a family": ("application/*", CSV, "", JSON),
    "the family of the body": ("text/*", CSV, "", CSV),
    "everything but": ("text/csv;q=0, */*", CSV, "", JSON),
    "x-ndjson": ("application/x-ndjson", CSV, "", "application/x-ndjson"),
    "what can't be written": ("text/html", CSV, "", None),
    "nothing at all": ("*/*;q=0", CSV, "", None),
    "no media type": ("garbage", CSV, "", None),
    "very long": ("text/" + "x" * 5_000, CSV, "", None),
}


@pytest.mark.parametrize(("accept", "content_type", "default", "expected"), ACCEPTS.values(), ids=ACCEPTS.keys())
def test_the_answer_is_of_the_type_that_accept_the_setting_or_the_body_asks_for(accept, content_type, default, expected):
    if expected:
        assert answer_type(accept, content_type, default) == expected
        return
    with pytest.raises(NotAcceptable, match=r"names none of: text/csv, application/json") as caught:
        answer_type(accept, content_type, default)
    assert len(caught.value.message) < 300


# ---- errors


@pytest.mark.parametrize(
    ("message", "facts"),
    [("x" * 10_000, {}), ("é\n\0" * 5_000, {"row": 1}), ("short", {"missing": ["y" * 300] * 30}), ("", {})],
    ids=["a long message", "a long message to be escaped", "long facts", "nothing"],
)
def test_an_error_has_at_most_2048_bytes_of_json(message, facts):
    body = error_body(BadData(message, **facts), "i" * 64)
    document = orjson.loads(body)
    assert len(body) <= 2_048
    assert document["error"] == "bad_data"
    assert document["request_id"] == "i" * 64


def test_a_mismatch_of_a_300_column_header_still_says_what_is_expected():
    schema = columns(*(f"column_{index}" for index in range(300)))
    names = ",".join([*schema.names[1:], "z" * 20_000])
    with pytest.raises(SchemaMismatch) as caught:
        read_body(names.encode(), CSV, schema)
    document = orjson.loads(error_body(caught.value, "id"))
    assert "missing: column_0; unknown: 'zzzz" in document["message"]
    assert "and 270 more" in document["message"]


# ---- anything at all

PIECES = st.lists(
    st.sampled_from(
        [
            *[b"1", b"-2.5e3", b"1e39", b"NaN", b"inf", b"null", b"true", b"red", b'"red"', b"size", b'"size"', b"\xff", b"\0"],
            *[b",", b"\n", b"\r\n", b"\r", b'"', b"[", b"]", b"{", b"}", b":", b" ", b"\xef\xbb\xbf", b"1_0", b"\xd9\xa3"],
            *[b'"instances"', b'"features"', b'"data"', b'"dataframe_split"', b'"columns"', b"[1,2,3,4]", b'[1,2,"red","b"]'],
        ]
    ),
    max_size=30,
).map(b"".join)
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.sampled_from(["red", "1", "é"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*SCHEMA.names, "instances", "features", "data", "dataframe_split", "columns", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
).map(lambda value: json.dumps(value, allow_nan=True).encode())
HEADERS = st.builds(
    lambda text, data, version: npy_of(text, data, version),
    st.one_of(
        st.text(st.characters(max_codepoint=255), max_size=40),
        st.builds(
            header,
            st.sampled_from(["'<f4'", "'>f8'", "'|O'", "'|V0'", "'<f4,<f4'", "('<f4', (2,))", "[]", "{}", "()", "3", "None"]),
            st.sampled_from(["(1, 4)", "(0, 4)", "(-1, 4)", "()", "(4,)", "(1e9, 4)", "None", "(True, 4)", "[1, 4]"]),
        ),
    ),
    st.binary(max_size=40),
    st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]),
)


@pytest.mark.parametrize("media_type", [*DECODERS, ""], ids=[*DECODERS, "unnamed"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.one_of(st.binary(max_size=60), PIECES, DOCUMENTS, HEADERS))
@example(body=b"\xff\xfe")
@example(body=b'{"dataframe_split":{"columns":[["a"],[],[],[]],"data":[]}}')
def test_any_bytes_give_a_matrix_or_an_error_of_the_callers(media_type, body):
    matrix, error = read_or_refuse(body, media_type)
    if error:
        assert 400 <= error.status < 500
        assert len(error_body(error, "id")) <= 2_048
        return
    assert matrix.shape[1] == 4
    assert len(matrix) >= 1
    assert np.isfinite(matrix[:, [0, 2]]).all()
    assert not np.isinf(matrix).any()


def read_or_refuse(body, media_type):
    """(matrix, None) or (None, error)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of headers that Python 2 wrote
        try:
            return read_body(body, media_type, SCHEMA), None
        except BerthError as error:
            return None, error
