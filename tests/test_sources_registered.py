"""Datasets under names of their own, from JSON files and from Python files."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from swiftcore.data import source_files
from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.sources.registered import load_registered, register_dataset
from swiftcore.errors import UsageError
from swiftcore.recipe.sections import DataSection

INFO = [
    {
        "dataset_name": "chat",
        "dataset_path": "rows/chat.jsonl",
        "columns": {"q": "query"},
        "messages": {"role_key": "who", "content_key": "says", "user_role": ["human", "me"]},
        "tags": ["chat"],
    },
    {
        "hf_dataset_id": "org/set",
        "dataset_path": "rows",
        "subsets": ["default", {"name": "sub", "columns": {"t": "text"}}],
    },
]
PYTHON = """
from swiftcore.data.sources.registered import register_dataset


def doubled(row):
    if row["text"] == "bad":
        raise ValueError("no good")
    return None if row["text"] == "none" else {"text": row["text"] * 2}


register_dataset("double", path="rows/chat.jsonl", preprocess=doubled)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows/sub").mkdir(parents=True)
    (tmp_path / "rows/chat.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "rows/sub/b.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "info.json").write_text(json.dumps(INFO))
    (tmp_path / "mine.py").write_text(PYTHON)
    return tmp_path


def _files(*entries: str):
    registry = load_registered(["info.json"], ["mine.py"])
    return source_files(DataSection(dataset=list(entries)), registry=registry)


def test_a_name_stands_for_its_place_and_its_way_of_reading(folder):
    (file,) = _files("chat#3")
    assert file.path == folder / "rows/chat.jsonl"
    assert file.spec.sample == 3
    assert file.provenance == {
        "registered_by": "info.json",
        "registered_by_sha256": hashlib.sha256((folder / "info.json").read_bytes()).hexdigest(),
    }
    row = {"q": "x", "conversation": [{"who": "me", "says": "hi"}, {"who": "assistant"}]}
    assert file.options.apply(row) == {
        "query": "x",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant"}],
    }
    assert not _files("rows:sub")[0].options.preprocess


def test_subsets_have_columns_of_their_own(folder):
    (file,) = _files("org/set:sub#2")
    assert file.path == folder / "rows/sub/b.jsonl"
    assert file.options.columns == {"t": "text"}
    assert [f.name.rpartition("/")[2] for f in _files("org/set")] == ["chat.jsonl", "b.jsonl"]
    with pytest.raises(UsageError, match="no such subset") as caught:
        _files("org/set:other")
    assert "default, sub" in (caught.value.expected or "")


def test_an_entry_that_is_no_name_is_read_as_ever(folder):
    (file,) = _files("rows/sub/b.jsonl")
    assert not file.options
    assert file.provenance == {}


def test_a_function_of_a_named_file_prepares_rows_here_and_in_another_process(folder):
    (file,) = _files("double")
    assert file.options.apply({"text": "a"}) == {"text": "aa"}
    for text, reason in (("bad", "no good"), ("none", "gave no row")):
        with pytest.raises(RejectedRow, match=reason):
            file.options.apply({"text": text})
    assert file.options.apply([1]) == [1]
    packed = pickle.dumps(file.options).hex()
    script = f"import pickle; options = pickle.loads(bytes.fromhex('{packed}'))\n"
    script += "print(options.apply({'text': 'b'}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "{'text': 'bb'}", done.stderr
    (folder / "mine.py").write_text(PYTHON + "\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "changed while it was in use" in done.stderr


def test_code_runs_only_where_the_recipe_names_it(folder):
    (folder / "mine.py").write_text("raise SystemExit('it ran')")
    load_registered(["info.json"])
    with pytest.raises(UsageError, match="is for files that a recipe names"):
        register_dataset("x", path="rows")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ('[{"path": "rows", "column": {}}]', "nothing reads"),
        ('[{"name": "x"}]', "no place"),
        ('[{"path": "rows", "columns": ["a"]}]', "no object of names"),
        ('[{"path": "rows", "subsets": "a"}]', "no list"),
        ('[{"path": 3}]', "no text"),
        ('{"path": "rows", "messages": {"rolekey": "a"}}', "nothing reads"),
        ("[1]", "something else"),
        ("{", "no JSON"),
        ('[{"name": "a", "path": "r"}, {"name": "a", "path": "s"}]', "registered twice"),
    ],
)
def test_a_file_that_means_nothing_is_a_usage_error_with_its_place(folder, info, message):
    (folder / "info.json").write_text(info)
    with pytest.raises(UsageError, match=message) as caught:
        load_registered(["info.json"])
    assert "info.json" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import no_such_module_here\n", "mine.py:1"),
        ("x = 1\nx +\n", "mine.py:2"),
        ("\n\nraise SystemExit(0)\n", "mine.py:3"),
    ],
)
def test_a_python_file_that_fails_is_a_usage_error_with_the_line(folder, text, place):
    (folder / "mine.py").write_text(text)
    with pytest.raises(UsageError, match="failed") as caught:
        load_registered([], ["mine.py"])
    assert caught.value.where == place


def test_files_that_are_not_there_are_usage_errors(folder):
    for arguments in ((["none.json"],), ([], ["none.py"]), ([], ["info.json"])):
        with pytest.raises(UsageError):
            load_registered(*arguments)
