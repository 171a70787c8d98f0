"""The demo's data: the same bytes everywhere, a test split that training never saw, honest rows."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.generators import agent, slots
from data.generators.__main__ import CORPUS_ROWS, SPLIT_ROWS

FILES = ("corpus", "test", "train", "val")
REPO = Path(__file__).resolve().parents[1]
Rows = list[dict[str, Any]]


def generate(out: Path, hash_seed: str) -> Path:
    """Run the generator as a user does, in a process of its own."""
    command = [sys.executable, "-m", "data.generators", "--out", str(out)]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        command, cwd=REPO, env=environment, check=True, capture_output=True, text=True
    )
    assert all(f"{name}.jsonl" in done.stdout for name in FILES)
    return out


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("demo"), hash_seed="1")


@pytest.fixture(scope="module")
def splits(demo: Path) -> dict[str, Rows]:
    return {split: read(demo / f"{split}.jsonl") for split in SPLIT_ROWS}


def said(rows: Rows, role: str) -> list[str]:
    return [m["content"] for row in rows for m in row["messages"] if m["role"] == role]


def calls(rows: Rows) -> list[dict[str, Any]]:
    return [json.loads(text) for text in said(rows, "tool_call")]


def slot_values(rows: Rows) -> set[str]:
    """Every value that fills a hole: arguments of calls and fields of tool responses."""
    filled = [call["arguments"] for call in calls(rows)]
    filled += [json.loads(text) for text in said(rows, "tool_response")]
    return {f"{name}={value}" for values in filled for name, value in values.items()}


def _all_wordings() -> list[agent.Wordings]:
    asked = [item.requests for item in (*agent.TOOLS, *agent.CHATS)]
    return [*asked, agent.BEYOND_ALL_TOOLS]


def _pattern(wording: str) -> re.Pattern[str]:
    """What a wording can become; no value holds a sentence mark, so a hole cannot swallow one."""
    parts = re.split(r"(\{\w+\})", wording)
    value = r"(?:[^.?!:,]+|\d\d:\d\d)"
    return re.compile("".join(value if p.startswith("{") else re.escape(p) for p in parts))


def test_same_bytes_whatever_the_hash_seed(demo: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "again", hash_seed="2")
    for path in sorted(demo.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert sorted(p.stem for p in again.iterdir()) == sorted(FILES)


def test_row_counts_and_kinds(demo: Path, splits: dict[str, Rows]) -> None:
    assert {split: len(rows) for split, rows in splits.items()} == SPLIT_ROWS
    assert len(read(demo / "corpus.jsonl")) == CORPUS_ROWS
    for rows in splits.values():
        assert {row["kind"] for row in rows} == {"call", "answer", "chat", "no_tool"}
    ids = [row["id"] for rows in splits.values() for row in rows]
    assert len(ids) == len(set(ids))


def test_no_test_value_occurs_in_training(splits: dict[str, Rows]) -> None:
    test, trained = slot_values(splits["test"]), slot_values(splits["train"] + splits["val"])
    assert len(test) > 100
    assert not test & trained


def test_no_test_wording_occurs_in_training(splits: dict[str, Rows]) -> None:
    heldout = [_pattern(wording) for wordings in _all_wordings() for wording in wordings.heldout]
    for text in said(splits["test"], "user"):
        assert any(pattern.fullmatch(text) for pattern in heldout), text
    for text in said(splits["train"] + splits["val"], "user"):
        assert not any(pattern.fullmatch(text) for pattern in heldout), text


def test_seen_and_heldout_wordings_differ() -> None:
    for wordings in _all_wordings():
        assert not set(wordings.seen) & set(wordings.heldout)


@pytest.mark.parametrize("kind", slots.kinds())
def test_a_value_never_changes_side(kind: str) -> None:
    rng = random.Random(3)
    seen = {slots.draw(kind, rng, "seen") for _ in range(400)}
    heldout = {slots.draw(kind, rng, "heldout") for _ in range(400)}
    assert min(len(seen), len(heldout)) > 1
    assert not seen & heldout


def test_no_row_is_in_two_splits(splits: dict[str, Rows]) -> None:
    every = (row for rows in splits.values() for row in rows)
    texts = [json.dumps([row.get("tools"), row["messages"]]) for row in every]
    assert len(texts) == len(set(texts))


def test_every_call_names_an_offered_tool_with_its_parameters(splits: dict[str, Rows]) -> None:
    types = {"string": str, "integer": int}
    for row in (row for rows in splits.values() for row in rows):
        functions = [tool["function"] for tool in json.loads(row.get("tools", "[]"))]
        offered = {function["name"]: function["parameters"] for function in functions}
        made = calls([row])
        assert bool(made) == (row["kind"] in ("call", "answer")), row["id"]
        for call in made:
            assert list(call) == ["name", "arguments"], row["id"]
            parameters = offered[call["name"]]
            assert list(call["arguments"]) == list(parameters["properties"]), row["id"]
            assert list(call["arguments"]) == parameters["required"], row["id"]
            for name, value in call["arguments"].items():
                assert isinstance(value, types[parameters["properties"][name]["type"]]), row["id"]
                assert str(value) in row["messages"][0]["content"], row["id"]


def test_an_answer_repeats_what_the_tool_said(splits: dict[str, Rows]) -> None:
    for row in (row for rows in splits.values() for row in rows if row["kind"] == "answer"):
        *_, response, answer = (message["content"] for message in row["messages"])
        assert all(str(value) in answer for value in json.loads(response).values()), row["id"]


def test_the_corpus_gives_the_task_away_nowhere(demo: Path, splits: dict[str, Rows]) -> None:
    text = (demo / "corpus.jsonl").read_text(encoding="utf-8")
    for mark in ("<tool_call>", "<tool_response>", "<|im_start|>", "<|im_end|>"):
        assert mark not in text
    draws = [(kind, random.Random(i)) for kind in slots.CLOSED_KINDS for i in range(300)]
    words = {str(slots.draw(kind, rng, "any")) for kind, rng in draws}
    arguments = [value for call in calls(splits["test"]) for value in call["arguments"].values()]
    names = {value for value in arguments if isinstance(value, str)} - words
    assert len(names) > 50
    # A neighbouring digit or colon makes another value: "1 May" is no part of "21 May".
    whole = {name: re.compile(rf"(?<![\w:]){re.escape(name)}(?![\w:])") for name in names}
    assert not [name for name in names if name in text and whole[name].search(text)]
