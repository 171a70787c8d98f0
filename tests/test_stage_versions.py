"""A stage whose code changed says whether its output did."""

from pathlib import Path

import pytest

from swiftcore.stages import STAGES
from tests.stage_digests import (
    REPO,
    code_digest,
    current,
    files_behind,
    problems,
    read_golden,
    stage_digest,
)

CODE = '''"""Doc."""
def scale(rows, factor=2):
    """Scale rows."""
    return [row * factor for row in rows]  # why
'''


def test_no_stage_changed_without_saying_whether_its_output_did():
    assert problems(current(), read_golden()) == []


def test_changed_code_with_the_old_version_is_a_problem():
    golden = {"train": {"version": 1, "digest": "a"}}
    (text,) = problems({"train": {"version": 1, "digest": "b"}}, golden)
    assert "raise the version" in text
    assert "--same-output" in text
    assert problems({"train": {"version": 1, "digest": "a"}}, golden) == []


def test_raised_version_has_to_be_written_down():
    golden = {"train": {"version": 1, "digest": "a"}}
    (text,) = problems({"train": {"version": 2, "digest": "b"}}, golden)
    assert "write its new version down" in text
    assert problems({"new": {"version": 1, "digest": "b"}}, golden)


@pytest.mark.parametrize(
    "same",
    [
        CODE.replace("  # why", ""),
        CODE.replace("Scale rows.", "Multiply."),
        CODE.replace('    """Scale rows."""\n', ""),
        CODE.replace("rows, factor=2", "\n    rows,\n    factor=2,\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(same: str):
    assert code_digest(same) == code_digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"), [("factor=2", "factor=3"), ("row *", "row +"), ("scale", "s")]
)
def test_every_change_of_what_code_does_counts(old: str, new: str):
    assert code_digest(CODE.replace(old, new)) != code_digest(CODE)


def test_code_behind_a_stage_is_followed_through_its_imports(tmp_path: Path):
    files = {
        "stages/train.py": "def run():\n    from swiftcore.training import fit\n",
        "training/__init__.py": "from swiftcore.tuners.lora import adapt\n",
        "training/defaults.yaml": "rate: 1\n",
        "tuners/__init__.py": "",
        "tuners/lora.py": "rank = 8\n",
        "evaluation/__init__.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "swiftcore" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    names = {
        p.relative_to(tmp_path / "swiftcore").as_posix() for p in files_behind("train", tmp_path)
    }
    assert names == set(files) - {"evaluation/__init__.py"}
    digests = {stage_digest("train", tmp_path)}
    for name in ("tuners/lora.py", "training/defaults.yaml"):
        (tmp_path / "swiftcore" / name).write_text("rank = 9\n")
        digests.add(stage_digest("train", tmp_path))
    assert len(digests) == 3


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_library_code_behind_it(stage: str):
    packages = {path.relative_to(REPO / "swiftcore").parts[0] for path in files_behind(stage)}
    assert len(packages - {"stages"}) >= 1
