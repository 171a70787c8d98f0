"""Whatever a row holds, it becomes a standard row or a quarantined one, and it stays what it is."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swiftcore.data import RejectedRow, RowNormalizer, normalize_rows
from swiftcore.data.rows.plan import KNOWN_COLUMNS
from swiftcore.data.rows.standard import STANDARD_COLUMNS

# Hypothesis prints what it draws, so this one must be printable.
HUGE = 10**4000
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([HUGE, -HUGE, "a\0b", "\ud800", "", " ", "1", "true", "[]", "[[1]]", "{}"])
)
ROLES = ["system", "user", "assistant", "tool_call", "tool", "function", "developer", "alien"]
PART_TYPES = [
    *("text", "image", "image_url", "input_audio", "video", "thinking", "reasoning"),
    *("tool_use", "tool_result", "tool_call", "refusal", "file"),
]
KEYS = [
    *("role", "content", "from", "value", "human", "gpt", "loss", "loss_scale", "loss_weight"),
    *("weight", "tool_calls", "function_call", "function", "name", "arguments", "input", "id"),
    *("tool_call_id", "tool_use_id", "reasoning_content", "type", "text", "image", "url", "data"),
    *("source", "bbox", "ref", "bbox_type", "image_id", "path", "bytes", "title"),
]
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=8,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(PART_TYPES)},
    optional=dict.fromkeys(("text", "value", "image_url", "input", "name", "content"), ANYTHING),
)
CONTENT = st.text(max_size=8) | st.lists(PART, max_size=3) | ANYTHING
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": CONTENT},
    optional={
        "loss": st.booleans() | SCALARS,
        "tool_calls": st.lists(ANYTHING, max_size=2),
        "reasoning_content": st.text(max_size=5),
        "tool_call_id": st.sampled_from(["a", "b"]),
    },
)
DIALOGUE = st.lists(MESSAGE, min_size=1, max_size=4)
TEXTS = st.sampled_from(
    [
        "\n\nHuman: a\n\nAssistant: b",
        "\n\nHuman: a\n\nAssistant: c",
        '[{"role": "user", "content": "q"}]',
        "[('a', 'b')]",
        "<image>",
        "a",
        "b",
    ]
)
VALUE = TEXTS | DIALOGUE | st.lists(DIALOGUE, max_size=2) | st.lists(TEXTS, max_size=2) | ANYTHING
COLUMN = st.sampled_from([*sorted(KNOWN_COLUMNS), "foo", "Messages", "Query", "SYSTEM", ""])
ROW = st.dictionaries(COLUMN, VALUE, max_size=5) | DIALOGUE | ANYTHING


def _same(left: object, right: object) -> bool:
    return repr(left) == repr(right)  # repr, since NaN does not equal itself


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(ROW, max_size=4), remove=st.booleans())
def test_any_row_is_standard_or_quarantined_and_stays_standard(rows, remove):
    standard, quarantine = normalize_rows(rows, remove_unused_columns=remove)
    assert len(standard) + len(quarantine) == len(rows)
    for row in standard:
        assert row["messages"]
        for message in row["messages"]:
            assert set(message) <= {"role", "content", "loss", "loss_scale"}
            assert isinstance(message["content"], str)
        known = {name: row[name] for name in row if name in STANDARD_COLUMNS}
        json.dumps(known, ensure_ascii=False, allow_nan=False).encode()
    for bad in quarantine:
        assert isinstance(bad.reason, str)
        assert len(bad.reason) < 2000
    again, bad = normalize_rows(standard, remove_unused_columns=remove)
    assert not bad, bad
    assert all(map(_same, again, standard))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(ROW, max_size=4))
def test_a_normalizer_with_a_history_gives_what_a_fresh_one_gives(rows):
    old = RowNormalizer(add_media_tags=True)
    for row in rows:
        assert _same(_outcome(old, row), _outcome(RowNormalizer(add_media_tags=True), row))


def _outcome(normalizer: RowNormalizer, row: object) -> object:
    try:
        return normalizer.standard_row(row)
    except RejectedRow as err:
        return err.message


@given(query=st.text(min_size=1), answer=st.text(min_size=1), renamed=st.booleans())
def test_renamed_columns_give_the_row_of_the_standard_names(query, answer, renamed):
    names = ("Frage", "antwort") if renamed else ("query", "response")
    columns = {"frage": "query", "Antwort": "response"}
    given_row = dict(zip(names, (query, answer), strict=True))
    plain = normalize_rows([{"query": query, "response": answer}])
    mapped = normalize_rows([given_row], columns=columns)
    assert mapped[0] == plain[0]
    assert len(mapped[1]) == len(plain[1])


@pytest.mark.parametrize("column", ["query", "messages", "label", "margin", "channel", "history"])
@pytest.mark.parametrize(
    "number", [10**5000, float("nan"), float("inf")], ids=["huge", "nan", "inf"]
)
def test_numbers_nothing_can_hold_are_quarantined(column, number):
    given_row = {"query": "q", "response": "r", column: number}
    if column == "messages":
        given_row = {"messages": [{"role": "user", "content": number}]}
    standard, quarantine = normalize_rows([given_row])
    assert not standard
    assert len(quarantine) == 1


@given(depth=st.integers(min_value=900, max_value=3000), column=COLUMN)
@settings(max_examples=20, deadline=None)
def test_deep_nesting_is_no_crash(depth, column):
    value: object = "x"
    for _ in range(depth):
        value = [value] if depth % 2 else {"content": value, "role": "user", "type": "text"}
    standard, quarantine = normalize_rows([{column: value, "query": "q"}])
    assert len(standard) + len(quarantine) == 1
