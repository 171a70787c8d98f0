"""Readers on good and on damaged files: one bad line costs one row, and says where it is."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swiftcore.data import SourceRow, read_rows
from swiftcore.data.readers.lines import MAX_LINE_BYTES
from swiftcore.errors import DataError

A, B = {"query": "a", "response": "é"}, {"query": "b", "response": "\u2028 🙂"}


def _read(path: Path) -> list[SourceRow]:
    return list(read_rows(path, "src"))


def _good(rows: list[SourceRow]) -> list[tuple[int, object]]:
    return [(row.line, row.row) for row in rows if row.problem is None]


def _bad(rows: list[SourceRow]) -> list[tuple[int, str]]:
    return [(row.line, row.problem) for row in rows if row.problem is not None]


def _encode(name: str, tmp_path: Path) -> bytes:
    rows = [A, B]
    if "jsonl" in name or "ndjson" in name:
        return "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    if "wrapped" in name:
        return json.dumps({"data": rows, "version": {"data": 1}}, indent=1).encode()
    if "lines.json" in name:
        return b"\n".join(json.dumps(row).encode() for row in rows) + b"\n"
    if "json" in name:
        return json.dumps(rows, indent=1, ensure_ascii=False).encode()
    if "parquet" in name:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "raw")
        return (tmp_path / "raw").read_bytes()
    separator = "\t" if "tsv" in name else ","
    lines = [separator.join(row.values()) for row in ({k: k for k in A}, A, B)]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.jsonl", [1, 3]),
        ("a.ndjson", [1, 3]),
        ("a.json", [2, 6]),
        ("wrapped.json", [3, 7]),
        ("lines.json", [1, 2]),
        ("a.csv", [2, 3]),
        ("a.tsv", [2, 3]),
        ("a.parquet", [1, 2]),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_every_format_gives_the_same_rows_with_their_lines(tmp_path, name, lines, ending):
    raw = _encode(name, tmp_path)
    path = tmp_path / (name + ending)
    path.write_bytes(gzip.compress(raw) if ending else raw)
    assert _good(_read(path)) == [(lines[0], A), (lines[1], B)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + _encode(name, tmp_path))
    assert _good(_read(tmp_path / name))[0][1] == A


def test_bad_jsonl_lines_are_reported_and_the_rest_is_read(tmp_path):
    lines = [
        json.dumps(A).encode(),
        b'{"query": "cut',
        b'{"query": "\xff\xfe"}',
        b'{"query": "a\x00b"}',
        b'{"label": NaN}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        json.dumps(B).encode(),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows = _read(tmp_path / "a.jsonl")
    assert _good(rows) == [(1, A), (8, B)]
    problems = dict(_bad(rows))
    assert sorted(problems) == [2, 3, 4, 5, 6, 7]
    assert "column 11" in problems[2]
    assert "UTF-8" in problems[3]
    assert "NUL" in problems[4]
    assert "NaN" in problems[5]


def test_a_line_beyond_the_limit_is_skipped_without_losing_the_next(tmp_path):
    huge = b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}'
    path = tmp_path / "a.jsonl"
    path.write_bytes(huge + b"\n" + json.dumps(A).encode())
    rows = _read(path)
    assert _good(rows) == [(2, A)]
    assert "longer than" in _bad(rows)[0][1]
    assert len(str(rows[0].row)) < 10_000


def test_csv_cells_may_hold_newlines_and_empty_cells_are_missing(tmp_path):
    (tmp_path / "a.csv").write_text('query,response\n"two\nlines",\n=1+1,x\n')
    assert _good(_read(tmp_path / "a.csv")) == [
        (2, {"query": "two\nlines", "response": None}),
        (4, {"query": "=1+1", "response": "x"}),
    ]


def test_bad_csv_records_are_reported_and_the_rest_is_read(tmp_path):
    raw = b'query,response\na,b,c\n"x"y,z\n\xff,b\na\x00,b\ngood,row\n"never closed,b\nmore'
    (tmp_path / "a.csv").write_bytes(raw)
    rows = _read(tmp_path / "a.csv")
    assert _good(rows) == [(6, {"query": "good", "response": "row"})]
    problems = dict(_bad(rows))
    assert sorted(problems) == [2, 3, 4, 5, 7]
    assert problems[2] == "3 cells under 2 column names"
    assert "UTF-8" in problems[4]
    assert "NUL" in problems[5]
    assert "lines 7 to 8" in problems[7]


def test_a_csv_column_that_stands_there_twice_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("query,query\na,b\n")
    with pytest.raises(DataError, match="header"):
        _read(tmp_path / "a.csv")


def test_text_is_one_row_a_paragraph_or_a_line_where_there_are_no_paragraphs(tmp_path):
    (tmp_path / "a.txt").write_text("\none\ntwo\n \n\nthree\n\n")
    assert _good(_read(tmp_path / "a.txt")) == [(2, {"text": "one\ntwo"}), (6, {"text": "three"})]
    (tmp_path / "b.txt").write_text("one\r\ntwo\r\n\r\n", newline="")
    assert _good(_read(tmp_path / "b.txt")) == [(1, {"text": "one"}), (2, {"text": "two"})]
    (tmp_path / "c.txt").write_bytes(b"good\n\nbad \xff\n\nfine\n")
    rows = _read(tmp_path / "c.txt")
    assert _good(rows) == [(1, {"text": "good"}), (5, {"text": "fine"})]
    assert _bad(rows) == [(3, "invalid UTF-8 (line 3)")]


def test_parquet_structs_lose_the_nulls_that_other_rows_brought_in(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a", "loss": True}]}]
    rows.append({"messages": [{"role": "user", "content": "b"}]})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row for _, row in _good(_read(tmp_path / "a.parquet"))] == rows


@pytest.mark.parametrize(
    ("name", "raw", "line"),
    [
        ("a.json", b'[{"a": 1},\n{"b": }]', "src:2"),
        ("a.json", b'[{"a": 1}\n\n{"b": 2}]', "src:3"),
        ("a.json", b'[{"a": 1},\n', "src:2"),
        ("a.json", b'[{"a": 1},\n"\xff"]', "src:2"),
        ("a.parquet", b"PAR1 nothing", "src"),
        ("a.jsonl.gz", b"no gzip", "src"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 100_000)[:-400], "src, after row"),
    ],
)
def test_a_file_damaged_as_a_whole_is_refused_and_never_read_in_part(tmp_path, name, raw, line):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError) as caught:
        _read(tmp_path / name)
    assert (caught.value.where or "").startswith(line)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\n \n", "has no rows"),
        ("a.csv", b"query,response\n", "has no rows"),
        ("a.json", b"[]", "has no rows"),
        ("a.json", b"", "the file is empty"),
        ("a.txt", b"\n\n", "has no rows"),
        ("a.docx", b"x", "format is not known"),
    ],
)
def test_a_file_without_rows_or_of_unknown_format_says_so(tmp_path, name, raw, message):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=message):
        _read(tmp_path / name)
