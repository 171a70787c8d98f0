"""Source code is cut at definitions, and its pieces are the exact file."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pygments", reason="the documents extra is not installed")

from swiftcore.data.documents import rebuild, split_code
from swiftcore.data.documents.code import code_breaks
from swiftcore.data.documents.kinds import languages
from tests.making import REPO

PYTHON = '''"""A module."""

import os

LIMIT = 3


# Belongs to first.
def first():
    return """
def not_a_definition():
    """


@decorated
@twice
class Second:
    """Has members."""

    value = 1

    def member(self):
        return 1

    async def other(self):
        return 2


def third(): pass
'''
C = """#include <stdio.h>

/* a brace { in a comment

int not_a_function() {
*/
static const char *TEXT = "}{";

int first(int x) {
    if (x) {
        return 1;
    }

    return 0;
}

int second(void) {
    return '{';
}
"""
RUBY = """require 'json'

class First
  def member
    1
  end

  def other
    2
  end
end

def second
  3
end
"""
SAMPLES = {"python": PYTHON, "c": C, "ruby": RUBY}


def pieces(text: str, language: str, size: int) -> list[str]:
    return [chunk.text for chunk in split_code(text, language, size)]


def test_python_is_cut_before_decorators_and_comments():
    found = pieces(PYTHON, "python", 260)
    assert "".join(found) == PYTHON
    assert [piece.splitlines()[0] for piece in found] == ['"""A module."""', "@decorated"]
    starts = [PYTHON[point.at :].splitlines()[0] for point in code_breaks(PYTHON, "python")]
    assert starts == [
        "# Belongs to first.",
        "@decorated",
        "    def member(self):",
        "    async def other(self):",
        "def third(): pass",
    ]


def test_a_long_class_is_cut_at_its_members():
    found = pieces(PYTHON, "python", 110)
    assert "    def member(self):\n        return 1\n\n" in "".join(found)
    assert any(piece.startswith(("    def member", "    async def other")) for piece in found)
    assert max(map(len, found)) <= 110


def test_brackets_in_strings_and_comments_do_not_count():
    found = pieces(C, "c", 120)
    assert "".join(found) == C
    first = next(piece for piece in found if "int first" in piece)
    assert first.startswith("int first")
    assert first.rstrip().endswith("}")
    assert not any(piece.startswith("int not_a_function") for piece in found)


def test_languages_that_end_blocks_with_a_word():
    found = pieces(RUBY, "ruby", 80)
    assert "".join(found) == RUBY
    assert "class First" in found[0] or found[1].startswith("class First")
    assert found[-1] == "def second\n  3\nend\n"


def test_definitions_are_packed_up_to_the_size():
    text = "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(20))
    found = pieces(text, "python", 120)
    assert len(found) == 5
    assert all(piece.startswith("def f") for piece in found)


def test_sizes_in_tokens():
    def offsets(text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    for size in (4, 20, 1000):
        chunks = split_code(PYTHON, "python", size, offsets)
        assert "".join(chunk.text for chunk in chunks) == PYTHON
        assert max(len(offsets(chunk.text)) for chunk in chunks) <= size


def test_python_that_does_not_parse_is_still_cut():
    text = "print 'old'\n\ndef a():\n    print 'x'\n\ndef b():\n    print 'y'\n"
    found = pieces(text, "python", 32)
    assert "".join(found) == text
    assert [piece.split("(")[0] for piece in found] == ["print 'old'\n\n", "def a", "def b"]


@pytest.mark.parametrize("language", ["python", "sql"])
def test_a_very_long_file_is_cut_in_seconds(language):
    text = "insert into a values (1, 2, 3);\n\n" * 100_000
    found = pieces(text, language, 1000)
    assert "".join(found) == text
    assert all(piece.startswith("insert") for piece in found)


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
def test_every_language_gives_back_the_exact_text(language, size):
    for text in (*SAMPLES.values(), "\r\n{\r\n\r\n}\r\rend\n", "{" * 50, '"""\n\n\n'):
        chunks = split_code(text, language, size)
        assert rebuild(chunks) == "".join(chunk.text for chunk in chunks) == text
        assert max(len(chunk.text) for chunk in chunks) <= size


@given(
    st.lists(st.sampled_from([*PYTHON.splitlines(True), *C.splitlines(True), "{", "'''", "\r"])),
    st.sampled_from(["python", "c", "ruby", "makefile", "html-like"]),
    st.integers(1, 200),
)
def test_shuffled_code_gives_back_the_exact_text(lines, language, size):
    text = "".join(lines)
    found = pieces(text, language, size)
    assert "".join(found) == text
    assert all(0 < len(piece) <= size for piece in found)


def test_our_own_sources_keep_their_definitions_whole():
    paths = sorted((REPO / "swiftcore" / "data" / "documents").rglob("*.py"))
    assert paths
    for path in paths:
        text = path.read_text()
        found = pieces(text, "python", 3000)
        assert "".join(found) == text
        places = [point.at for point in code_breaks(text, "python") if point.level == 0]
        for start, end in pairwise([*places, len(text)]):
            whole = any(text[start:end] in piece for piece in found)
            assert whole or end - start > 3000
