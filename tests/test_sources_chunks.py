"""Parts of a file, read one after the other, are the whole file: every row, once, with its line."""

import gzip
import json
import pickle
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftcore.data import SourceRow, read_rows
from swiftcore.data.readers import json_document
from swiftcore.data.readers.chunks import file_chunks, read_chunk
from swiftcore.errors import DataError

LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b"  ", b"\r", b"broken {", b"\xff", b'{"a": 1, "a": 2}', b"\0"]),
        st.text(max_size=20).map(lambda text: json.dumps({"t": text}).encode()),
        st.text(max_size=9).map(lambda text: text.encode().replace(b"\n", b"")),
    ),
    max_size=30,
)


def _rows_or_error(rows) -> list[SourceRow] | str:
    try:
        return list(rows)
    except DataError as err:
        return err.message


def _chunked(path: Path, target_bytes: int) -> list[SourceRow]:
    chunks = pickle.loads(pickle.dumps(file_chunks(path, "src", target_bytes)))
    return [row for chunk in chunks for row in read_chunk(chunk)]


def _check(path: Path, target_bytes: int) -> None:
    try:
        found = _chunked(path, target_bytes)
    except DataError as err:
        found = err.message
    assert found == _rows_or_error(read_rows(path, "src"))


@given(
    lines=LINES,
    target=st.integers(1, 200),
    start=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    end=st.sampled_from([b"", b"\n", b"\n\n"]),
)
@settings(max_examples=150, deadline=None)
def test_parts_of_json_lines_are_the_file(lines, target, start, end):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(start + b"\n".join(lines) + end)
        _check(path, target)


@given(num_rows=st.integers(0, 60), group_rows=st.integers(1, 20), target=st.integers(1, 2000))
@settings(max_examples=40, deadline=None)
def test_parts_of_parquet_are_the_file(num_rows, group_rows, target):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        table = pa.table({"n": list(range(num_rows)), "t": ["x" * n for n in range(num_rows)]})
        pq.write_table(table, path, row_group_size=group_rows)
        _check(path, target)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv", "a.json", "a.txt"])
def test_every_other_format_is_one_part(tmp_path, name):
    raw = b'{"a": 1}\n{"b": 2}\n'
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert len(file_chunks(tmp_path / name, "src", 1)) == 1
    _check(tmp_path / name, 1)


def test_parts_have_about_the_wanted_size_and_know_their_first_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"n": {n:4d}}}\n' for n in range(1000)))
    chunks = file_chunks(path, "src", 1200)
    assert [chunk.num_bytes for chunk in chunks[:-1]] == [1200] * (len(chunks) - 1)
    assert chunks[1].first_line == 101
    assert sum(chunk.num_bytes for chunk in chunks) == path.stat().st_size


def test_a_file_that_changed_since_it_was_cut_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 100)
    chunks = file_chunks(path, "src", 100)
    path.write_text('{"a": 2}\n' * 101)
    with pytest.raises(DataError, match="changed while it was read"):
        list(read_chunk(chunks[3]))


def test_a_damaged_table_says_so_when_its_part_is_read(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    (chunk,) = file_chunks(tmp_path / "a.parquet", "src")
    with pytest.raises(DataError, match="damaged"):
        list(read_chunk(chunk))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    values=st.lists(JSON, min_size=1, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    wrap=st.booleans(),
    block=st.integers(1, 40),
    cut=st.integers(1, 1000),
)
@settings(max_examples=150, deadline=None)
def test_a_json_document_read_through_any_window_is_the_document(
    values, indent, ascii_only, wrap, block, cut
):
    document = {"n": [1], "data": values, "end": {"data": 1}} if wrap else values
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_document, "_BLOCK_BYTES", block)
        path = Path(folder) / "a.json"
        path.write_text(text)
        assert [(row.row, row.problem) for row in read_rows(path)] == [(v, None) for v in values]
        path.write_text(text[: -min(cut, len(text))])
        with pytest.raises(DataError):
            list(read_rows(path))
