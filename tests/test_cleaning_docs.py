"""The examples of the page on cleaning run as they are written."""

import re

import pytest

from tests.making import REPO

PAGE = (REPO / "docs/cleaning.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.split()[1])
def test_example_runs(code: str) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Mail {name}@example.org, please."}]}
        for name in ("ann", "bob", "ann")
    ]
    names: dict[str, object] = {"rows": rows, "row": rows[0], "evaluated_rows": rows[1:]}
    exec(code, names)
    if "duplicate_of" in names:
        assert list(names["duplicate_of"]) == [-1, -1, 0]  # type: ignore[call-overload]
    if "scanned" in names:
        assert "[EMAIL]" in repr(names["scanned"].row)  # type: ignore[attr-defined]
    if "match" in names:
        assert names["match"].eval_row == 1  # type: ignore[attr-defined]
