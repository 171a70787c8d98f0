"""Readers on good and on damaged files: one bad line costs one row, and says where it is."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

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
    if "arrow" in name or "feather" in name:
        table = pa.Table.from_pylist(rows)
        kind = pa.ipc.new_stream if "stream" in name else pa.ipc.new_file
        with kind(tmp_path / "raw", table.schema) as writer:
            writer.write_table(table)
        return (tmp_path / "raw").read_bytes()
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
        ("a.arrow", [1, 2]),
        ("stream.arrow", [1, 2]),
        ("a.feather", [1, 2]),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_every_format_gives_the_same_rows_with_their_lines(tmp_path, name, lines, ending):
    raw = _encode(name, tmp_path)
    path = tmp_path / (name + ending)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    path.write_bytes(pack(raw))
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
        ("a.json", b'[{"a": 1}\n] [2]', "src:2"),
        ("a.json", b'{"data": [{"a": 1}], "more": {', "src:1"),
        ("a.json", b'[{"a": 1}, {"b": [[', "src:1"),
        ("a.arrow", b"ARROW1 nothing", "src"),
        ("a.arrow", b"FEA1 old", "src"),
        ("a.csv", b"question;answer\na;b\n", "src:1"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 100_000)[:-400], "src, after row"),
        ("a.jsonl.zst", zstandard.compress(b'{"a": 1}\n' * 100_000)[:-4], "src, after row"),
        ("a.jsonl.zst", zstandard.compress(b'{"a": 1}\n') + b"junk", "src, after row 1"),
        ("a.jsonl.zst", b"no zstd", "src"),
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


def test_a_key_that_stands_in_an_object_twice_costs_its_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}\n{"b": 2}\n')
    (tmp_path / "a.json").write_text('[{"a": 1},\n{"a": 1, "a": 2},\n{"b": 2}]')
    for name, key in (("a.jsonl", "c"), ("a.json", "a")):
        rows = _read(tmp_path / name)
        assert _good(rows) == [(1, {"a": 1}), (3, {"b": 2})]
        ((line, problem),) = _bad(rows)
        assert line == 2
        assert f"'{key}' stands in one object more than once" in problem


def test_a_bad_row_of_a_json_document_costs_only_itself(tmp_path):
    deep = "[" * 50_000 + "]" * 50_000
    bad = ['{"n": NaN}', '{"deep": ' + deep + "}", '{"n": ' + "9" * 5000 + "}"]
    (tmp_path / "a.json").write_text("[\n" + ",\n".join(['{"a": 1}', *bad, '{"b": 2}']) + "\n]")
    rows = _read(tmp_path / "a.json")
    assert _good(rows) == [(2, {"a": 1}), (6, {"b": 2})]
    assert [line for line, _ in _bad(rows)] == [3, 4, 5]


def test_a_row_of_a_json_document_beyond_the_limit_is_skipped_and_reported(tmp_path):
    huge = json.dumps({"text": 'x\\"[' * (MAX_LINE_BYTES // 3)})
    (tmp_path / "a.json").write_text(f'{{"data": [{{"a": 1}},\n{huge},\n{{"b": 2}}], "n": 1}}')
    rows = _read(tmp_path / "a.json")
    assert _good(rows) == [(1, {"a": 1}), (3, {"b": 2})]
    assert "longer than" in _bad(rows)[0][1]
    assert len(str(rows[1].row)) < 10_000


def test_lists_under_a_json_name_one_a_line_are_all_read(tmp_path):
    (tmp_path / "a.json").write_text('[{"role": "user"}]\n[{"role": "user"}]\n')
    assert [row.line for row in _read(tmp_path / "a.json")] == [1, 2]


@pytest.mark.parametrize("name", ["a.json", "wrapped.json", "a.jsonl", "a.csv", "a.jsonl.zst"])
def test_memory_stays_flat_as_a_file_grows(tmp_path, name):
    def peak(num_rows: int) -> int:
        row = {"text": "é" * 2000, "n": 1}
        path = tmp_path / name
        if "jsonl" in name:
            raw = (json.dumps(row, ensure_ascii=False) + "\n").encode() * num_rows
        elif "csv" in name:
            raw = b"text,n\n" + ("é" * 2000 + ",1\n").encode() * num_rows
        else:
            document = [row] * num_rows
            raw = json.dumps({"data": document} if "wrapped" in name else document).encode()
        path.write_bytes(zstandard.compress(raw) if name.endswith(".zst") else raw)
        del raw
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_rows(path)) == num_rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(6000) < 16 * 2**20


@pytest.mark.parametrize("how", ["grown", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, how):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 3)
    rows = read_rows(path, "src")
    next(rows)
    if how == "grown":
        with path.open("a") as stream:
            stream.write('{"a": 2}\n')
    else:
        other = tmp_path / "b.jsonl"
        other.write_text('{"b": 1}\n' * 3)
        other.replace(path)
        if how == "gone":
            path.unlink()
    with pytest.raises(DataError, match="changed while it was read") as caught:
        list(rows)
    assert caught.value.where == "src"


def test_what_is_no_regular_file_is_said_and_never_waited_for(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "null.jsonl").symlink_to("/dev/null")
    for name, found in (("folder", "a folder"), ("pipe", "a pipe"), ("null", "a device")):
        with pytest.raises(DataError, match="no regular file") as caught:
            _read(tmp_path / f"{name}.jsonl")
        assert caught.value.found == found


def test_a_file_that_may_not_be_read_is_an_error_with_its_name(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything
        monkeypatch.setattr(os, "open", _refuse)
    with pytest.raises(DataError, match="can't be read") as caught:
        _read(path)
    assert caught.value.found == "Permission denied"


def _refuse(*_arguments: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_a_column_that_stands_in_a_table_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="more than once"):
        _read(tmp_path / "a.parquet")


def test_an_arrow_stream_cut_between_two_batches_is_noticed(tmp_path):
    table = pa.Table.from_pylist([A, B])
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    raw = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(raw[:-8])
    with pytest.raises(DataError, match="no end mark"):
        _read(tmp_path / "a.arrow")


def test_several_zstd_frames_are_one_file(tmp_path):
    raw = b"".join(zstandard.compress(json.dumps(row).encode() + b"\n") for row in (A, B))
    (tmp_path / "a.jsonl.zst").write_bytes(raw)
    assert [row for _, row in _good(_read(tmp_path / "a.jsonl.zst"))] == [A, B]
