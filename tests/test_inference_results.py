"""The file of results: what it keeps through kills, and what it never mixes."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from swiftcore.errors import ArtifactDamaged, TransientError, UsageError
from swiftcore.inference.result_file import ResultFile, record_path

MADE_OF = {"model": "abc", "temperature": 0.0, "rows": ["x"]}


def lines_at(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_work_goes_on_behind_the_lines_that_are_there(tmp_path: Path):
    path = tmp_path / "folder" / "results.jsonl"
    with ResultFile(path, MADE_OF) as file:
        assert file.num_lines == 0
        file.append([{"row": 0}, {"row": 1, "text": "zwölf\n東京"}])
    with ResultFile(path, dict(reversed(MADE_OF.items()))) as file:
        assert file.num_lines == 2
        file.append([{"row": 2}])
        file.append([])
        assert [line["row"] for line in file.lines()] == [0, 1, 2]
    assert lines_at(path)[1]["text"] == "zwölf\n東京"


def test_a_half_line_is_cut_off(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    with ResultFile(path, MADE_OF) as file:
        file.append([{"row": 0, "text": "a" * 200_000}, {"row": 1}])
    with path.open("ab") as stream:
        stream.write(b'{"row": 2, "text": "never fin')
    with ResultFile(path, MADE_OF) as file:
        assert file.num_lines == 2
        file.append([{"row": 2}])
    assert [line["row"] for line in lines_at(path)] == [0, 1, 2]
    path.write_bytes(b'{"row": 0')
    with ResultFile(path, MADE_OF) as file:
        assert file.num_lines == 0
    assert path.read_bytes() == b""


def test_half_a_character_of_a_model_is_written_and_read_again(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    with ResultFile(path, MADE_OF) as file:
        file.append([{"text": "\ud83d broken"}])
        assert list(file.lines()) == [{"text": "\ud83d broken"}]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "other"}, "other values of model"),
        ({"rows": ["y"], "temperature": 1.0}, "other values of rows, temperature"),
        ({"system": "new"}, "other values of system"),
    ],
)
def test_results_of_other_work_are_never_added_to(tmp_path: Path, change: dict, named: str):
    path = tmp_path / "results.jsonl"
    with ResultFile(path, MADE_OF) as file:
        file.append([{"row": 0}])
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        ResultFile(path, MADE_OF | change)
    assert caught.value.found == named
    assert "name another file" in caught.value.do
    assert path.read_bytes() == before


@pytest.mark.parametrize("record", [None, "no json", "[]", '{"schema": 7}'])
def test_a_file_without_a_record_of_its_work_is_refused(tmp_path: Path, record: str | None):
    path = tmp_path / "results.jsonl"
    path.write_text('{"someone": "else"}\n')
    if record is not None:
        record_path(path).write_text(record)
    with pytest.raises(UsageError, match="something else made it"):
        ResultFile(path, MADE_OF)
    assert path.read_text() == '{"someone": "else"}\n'


def test_one_process_writes_at_a_time(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    with (
        ResultFile(path, MADE_OF),
        pytest.raises(TransientError, match="Another process is writing"),
    ):
        ResultFile(path, MADE_OF)
    with ResultFile(path, MADE_OF) as file:
        assert file.num_lines == 0


def test_a_line_that_someone_damaged_is_named(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    with ResultFile(path, MADE_OF) as file:
        file.append([{"row": 0}])
    with path.open("a") as stream:
        stream.write("nonsense\n")
    with ResultFile(path, MADE_OF) as file, pytest.raises(ArtifactDamaged) as caught:
        list(file.lines())
    assert caught.value.where == f"{path}:2"


def write_and_die(path: Path) -> None:
    with ResultFile(path, MADE_OF) as file:
        file.append([{"row": 0}, {"row": 1}])
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_appended_outlives_a_kill(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(path,))
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    with ResultFile(path, MADE_OF) as file:
        assert [line["row"] for line in file.lines()] == [0, 1]
