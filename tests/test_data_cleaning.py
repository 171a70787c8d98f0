"""Filters, near duplicates, privacy and contamination as parts of an ingest: every row counted."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftcore.data import Pool, build_dataset, load_rows
from swiftcore.errors import DataError, UsageError
from swiftcore.recipe.sections import CleaningSection, DataSection

# Random letters, so that neither a scanner nor a shingle finds anything by chance.
SECRET = "ghp_" + "a8Kf03LmQz71XcVb92NtRw45YsUd68HjEg10"
STORY = (
    "the old harbour master counted seven boats every evening before the lamp was lit and wrote "
    "their names into a heavy green book that nobody else in the town was ever allowed to open"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _row(question: str, answer: str) -> dict:
    return {"query": question, "response": answer}


def _write(name: str, rows: list) -> str:
    Path(name).write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return name


def _build(rows: list, *, pool: Pool | None = None, test: list | None = None, **cleaning):
    options = {"test_dataset": [_write("test.jsonl", test)]} if test else {}
    section = DataSection(
        dataset=[_write("train.jsonl", rows)], cleaning=CleaningSection(**cleaning), **options
    )
    report = build_dataset(section, Path("out"), pool=pool)
    return report, report.sources[0]


def _quarantine() -> list[dict]:
    return [json.loads(line) for line in Path("out/quarantine.jsonl").read_text().splitlines()]


def test_rows_outside_the_length_limits_are_filtered_and_named():
    rows = [_row("q", "word " * n) for n in (1, 5, 50)]
    report, counts = _build(rows, min_words=3, max_words=20)
    assert (counts.rows, counts.filtered, counts.used, counts.quarantined) == (3, 2, 1, 0)
    assert [(entry["line"], entry["reason"]) for entry in _quarantine()] == [
        (1, "the row has fewer than 3 words"),
        (3, "the row has more than 20 words"),
    ]
    assert "| train.jsonl | train | 3 | 0 | 2 | 0 | 0 | 0 | 1 | 0 |" in report.card()


def test_filtered_rows_do_not_count_as_bad_ones():
    rows = [_row(f"question {n}", "short") for n in range(20)]
    rows.append(_row("one question", "an answer that is long enough to stay here"))
    report, counts = _build(rows, min_words=6)
    assert (counts.filtered, report.splits) == (20, {"train": 1})


def test_rows_in_other_languages_are_filtered():
    german = "Der alte Hafenmeister zählte jeden Abend sieben Boote, bevor die Lampe brannte."
    _, counts = _build([_row("Was geschah?", german), _row("What?", STORY)], languages=["en"])
    assert (counts.filtered, counts.used) == (1, 1)
    assert "the language is de, not en" in _quarantine()[0]["reason"]


def test_near_duplicates_go_and_say_which_row_they_are_like():
    rows = [_row("tell me", STORY), _row("other", "nothing of the kind at all, my friend")]
    rows.append(_row("tell me", STORY.replace("green", "brown")))
    report, counts = _build(rows, near_duplicates=0.7)
    assert (counts.near_duplicates, counts.used) == (1, 2)
    (entry,) = _quarantine()
    assert entry["line"] == 3
    assert json.loads(entry["row"])["like"] == "train.jsonl:1"
    assert report.quarantine_reasons == {"the row nearly equals an earlier one": 1}


def test_secrets_are_reported_masked_or_dropped_and_never_repeated():
    rows = [_row("how?", f"export TOKEN={SECRET}"), _row("and?", "nothing to see")]
    report, counts = _build(rows, secrets="warn")
    assert sum(report.findings.values()) >= 1
    assert counts.used == 2
    _, counts = _build(rows, secrets="mask")
    text = json.dumps(load_rows(Path("out"), "train"))
    assert SECRET not in text
    assert counts.used == 2
    _, counts = _build(rows, secrets="drop")
    assert (counts.private, counts.used) == (1, 1)
    for file in Path("out").iterdir():
        assert SECRET.encode() not in file.read_bytes(), file.name


def test_training_rows_that_hold_evaluated_text_are_reported_or_dropped():
    rows = [_row("retell", f"Once upon a time {STORY}, they say."), _row("other", "a b c d e f")]
    test = [_row("what about the harbour", STORY)]
    report, counts = _build(rows, test=test, contamination="warn")
    assert report.contamination == {"ngram": 1}
    assert counts.used == 2
    report, counts = _build(rows, test=test, contamination="drop")
    assert (counts.contaminated, counts.used) == (1, 1)
    assert report.splits == {"train": 1, "test": 1}


def _leaking_rows() -> list[dict]:
    """Twenty rows of one text each, twice: with another question, so that copies are no copies."""
    texts = [" ".join(f"w{n}x{k}" for k in range(30)) for n in range(20)]
    return [_row(f"question {n} {side}?", texts[n]) for side in "ab" for n in range(20)]


def test_training_rows_that_hold_text_of_rows_split_off_are_reported_or_dropped(monkeypatch):
    monkeypatch.setattr("swiftcore.data.split_off._BLOCK_ROWS", 7)
    _write("train.jsonl", _leaking_rows())
    made = {}
    for choice, pool in (("off", Pool()), ("warn", Pool()), ("drop", Pool(2)), ("drop", Pool())):
        section = DataSection(
            dataset=["train.jsonl#39"],
            split_dataset_ratio=0.2,
            cleaning=CleaningSection(contamination=choice),
        )
        report = build_dataset(section, Path("out"), pool=pool)
        made.setdefault(choice, []).append((report, Path("out/train.parquet").read_bytes()))
    assert made["off"][0][1] == made["warn"][0][1] != made["drop"][0][1] == made["drop"][1][1]
    (source,) = made["drop"][1][0].sources
    assert made["warn"][0][0].contamination == {"ngram, split off": source.contaminated}
    assert source.contaminated > 0
    assert (source.not_sampled, source.used) == (1, 39 - source.contaminated)
    lines = _quarantine()
    assert len(lines) == source.contaminated
    assert lines[0]["reason"].endswith("that was split off")
    val = {row["messages"][-1]["content"] for row in load_rows(Path("out"), "val")}
    train = {row["messages"][-1]["content"] for row in load_rows(Path("out"), "train")}
    assert val
    assert not val & train


def test_cleaning_is_the_same_in_two_processes(monkeypatch):
    monkeypatch.setattr("swiftcore.data.ingest.CHUNK_BYTES", 4_000)
    rows = [
        _row(f"tell me {n}", f"{n} {STORY} {n % 7} {SECRET if n % 9 == 0 else ''}")
        for n in range(60)
    ]
    cleaning = {"near_duplicates": 0.8, "secrets": "mask", "contamination": "drop", "min_words": 3}
    made = []
    for pool in (Pool(), Pool(2)):
        _build(rows, pool=pool, test=[_row("t", "quite another text")], **cleaning)
        made.append({file.name: file.read_bytes() for file in Path("out").iterdir()})
    assert made[0] == made[1]
    assert {"card.html", "statistics.json", "train.parquet"} <= made[0].keys()


def test_filters_that_leave_nothing_say_what_became_of_the_rows():
    with pytest.raises(DataError, match="no training row is left") as caught:
        _build([_row("q", f"a{n}") for n in range(3)], min_words=100)
    assert "3 filtered" in (caught.value.found or "")


@pytest.mark.parametrize("cleaning", [{"languages": ["xx"]}, {"min_words": 5, "max_words": 2}])
def test_a_filter_without_meaning_is_refused_before_any_work(cleaning):
    with pytest.raises(UsageError):
        _build([_row("q", "a")], **cleaning)
    assert not Path("out/quarantine.jsonl").exists()


def test_self_cognition_rows_get_the_names():
    rows = [_row("who are you?", "I am {{NAME}}, made by {{AUTHOR}}.")]
    section = DataSection(
        dataset=[_write("me.jsonl", rows)], model_name=["小模", "Momo"], model_author=["us"]
    )
    build_dataset(section, Path("out"))
    answer = load_rows(Path("out"), "train")[0]["messages"][-1]["content"]
    assert answer == "I am Momo, made by us."


def test_the_card_adds_up_and_shows_the_licence():
    section = DataSection(
        dataset=[_write("a.jsonl", [_row(f"q{n}", f"a{n}") for n in range(5)] * 2)],
        licence="CC-BY-4.0",
    )
    build_dataset(section, Path("out"))
    page = Path("out/card.html").read_text()
    assert "Checked: rows read" in page
    assert "CC-BY-4.0" in page


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "messages", "query", "response", "text", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
_ROWS = st.lists(
    st.builds(_row, st.text(max_size=3), st.text(max_size=3))
    | st.dictionaries(st.sampled_from(["query", "response", "messages", "label"]), _JSON)
    | _JSON,
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=_ROWS)
def test_input_is_output_and_quarantine_and_exact_duplicates_always(rows):
    kept = [_row("kept", "always"), *rows]
    lines = [json.dumps(row) for row in kept]
    Path("any.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = build_dataset(DataSection(dataset=["any.jsonl"], max_quarantine_ratio=1), Path("any"))
    (counts,) = report.sources
    assert counts.rows == len(kept)
    assert counts.rows == counts.used + counts.quarantined + counts.duplicates
    assert len(load_rows(Path("any"), "train")) == counts.used
    assert len(Path("any/quarantine.jsonl").read_text().splitlines()) == counts.quarantined
