"""Every data set of the shared folder, where it is there: the counts add up, and what is set aside
is set aside for a reason. `pytest -s` shows the table.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from swiftcore.data import RejectedRow, RowNormalizer, read_rows
from swiftcore.data.readers.files import data_suffix
from swiftcore.data.readers.tables import TableHeader
from swiftcore.data.rows.identity import SelfCognition
from swiftcore.data.rows.plan import KNOWN_COLUMNS
from swiftcore.errors import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
FAMILIES = ("agent", "embed", "eval", "instruct", "math", "mm", "nc", "preference", "pretrain")
# What holds no conversation as it is. The other files give every row.
SET_ASIDE = {
    r"agent/bfcl_v4/BFCL_.*": "is a list of dialogues",
    r"agent/bfcl_v4/multi_turn_func_doc/.*": r"response is an object|no column holds",
    r"agent/bfcl_v4/possible_answer/.*": "no column holds",
    r"agent/(sealtools_(field|tool)|taubench_).*": "no column holds",
    r"agent/toolbench/(answer|toolenv)/.*": "no column holds",
    r"embed/text2vec_snli_zh_50.*": "a likeness or a class",
    r"eval/bbh/[^/]*\.json": "examples is a list of rows",
    r"eval/evalscope_custom/retrieval/qrels.*": "no column holds",
    r"eval/foundry_(bigbench_dyck|bigbench_operators).*": "'continuation': 'response'",
    r"eval/foundry_winogrande.*": "no column holds",
    r"eval/llm_judge/.*": "no column holds",
    r"instruct/llamafactory_dataset_info.json": "no column holds",
    r"mm/llava/.*": "no column holds",
    r"preference/rasbt_.*": "chosen equals rejected",
    r"pretrain/zh_(lunyu|tang_0).*": "'paragraphs': 'text'",
}
# Tables without a header line: refused, unless their columns are named.
NO_HEADER = re.compile(r"nc/(ag_news_test|stsb_multi/).*")
EMPTY = "agent/toolbench/toolenv/response_examples/Business/acrosuite_oauther.json"
MAPPED = [
    ("agent/bfcl_v4/BFCL_v4_parallel.json", {"question": "messages", "function": "tools"}, 200),
    (
        "eval/foundry_bigbench_operators.jsonl",
        {"context": "query", "continuation": "response"},
        210,
    ),
    ("embed/text2vec_snli_zh_50.jsonl", {"text1": "query", "text2": "positive"}, 53),
    ("math/svamp.jsonl", {"Body": "instruction", "Question": "input"}, 618),
    ("pretrain/zh_tang_0.json.gz", {"paragraphs": "text"}, 1000),
]

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the data sets in ../shared/data are not here"
)


def _normalized(path: Path, columns: dict[str, str] | None = None) -> tuple[int, int, Counter[str]]:
    """Return rows read, rows kept, and the reasons of the others."""
    normalizer = RowNormalizer(columns)
    rows = kept = 0
    reasons: Counter[str] = Counter()
    for raw in read_rows(path, header=TableHeader(known=KNOWN_COLUMNS)):
        rows += 1
        try:
            if raw.problem is not None:
                raise RejectedRow(raw.problem)
            assert normalizer.standard_row(raw.row)["messages"]
            kept += 1
        except RejectedRow as err:
            reasons[err.message] += 1
    return rows, kept, reasons


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_is_kept_or_set_aside_for_a_reason(family):
    files = [path for path in sorted((SHARED / family).rglob("*")) if path.is_file()]
    for path in files:
        name = path.relative_to(SHARED).as_posix()
        if data_suffix(path) is None:
            continue
        if name == EMPTY:
            with pytest.raises(DataError, match="the file is empty"):
                _normalized(path)
            continue
        if NO_HEADER.fullmatch(name):
            with pytest.raises(DataError, match="a row, and no header"):
                _normalized(path)
            continue
        rows, kept, reasons = _normalized(path)
        assert rows == kept + reasons.total()
        main = reasons.most_common(1)[0][0] if reasons else ""
        print(f"| {name} | {rows} | {kept} | {rows - kept} | {main[:90]} |")
        if name.startswith("nc/mm_"):
            continue  # pictures of others, which not every copy of the folder has
        wanted = next((why for place, why in SET_ASIDE.items() if re.fullmatch(place, name)), None)
        assert bool(reasons) == (wanted is not None), (name, reasons.most_common(3))
        assert all(re.search(wanted or "", reason) for reason in reasons), (name, reasons)


@pytest.mark.parametrize(("name", "columns", "kept"), MAPPED, ids=lambda value: str(value)[:40])
def test_a_mapping_of_columns_reads_what_was_set_aside(name, columns, kept):
    rows, found, reasons = _normalized(SHARED / name, columns)
    assert (rows, found) == (kept, kept), reasons.most_common(3)


def test_self_cognition_rows_are_filled():
    identity = SelfCognition("Name", ["作者", "Author"])
    rows = [
        identity.fill(raw.row) for raw in read_rows(SHARED / "instruct/llamafactory_identity.json")
    ]
    assert len(rows) == 91
    assert "{{" not in str(rows)
    assert "Author" in str(rows)
