"""Chunks lose nothing, invent nothing, and keep to their sizes, for any text."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftcore.data.documents import chunk_text, rebuild
from swiftcore.data.documents.chunks import Chunk
from swiftcore.errors import DataError, UsageError

# Characters that are borders, come in pairs, or take several tokens, and any others.
TEXTS = st.text(
    st.one_of(st.sampled_from("ab \t\n\r.。!?\"'é漢😀\u2028\u0301"), st.characters()), max_size=300
)
SIZES = st.tuples(st.integers(1, 40), st.integers(0, 39)).filter(lambda pair: pair[1] < pair[0])


def toy_tokens(text: str) -> list[tuple[int, int]]:
    """Words with the space before them, four tokens for an emoji, none for other white space."""
    found = []
    for match in re.finditer(r"[ ]?[^\W\d_]{1,6}|\S", text):
        times = 4 if match[0] >= "\U00010000" else 1
        found += [match.span()] * times
    return found


@given(TEXTS, SIZES)
def test_text_is_rebuilt_from_chunks_of_characters(text, sizes):
    size, overlap = sizes
    chunks = chunk_text(text, size, overlap)
    assert rebuild(chunks) == text
    assert all(0 < len(chunk.text) <= size for chunk in chunks)
    check_order(chunks, text)
    for before, after in pairwise(chunks):
        assert before.end - after.start <= overlap


@given(TEXTS, SIZES)
def test_text_is_rebuilt_from_chunks_of_tokens(text, sizes):
    size, overlap = sizes[0] + 3, sizes[1]
    chunks = chunk_text(text, size, overlap, toy_tokens)
    assert rebuild(chunks) == text
    assert all(len(toy_tokens(chunk.text)) <= size for chunk in chunks)
    check_order(chunks, text)
    starts = [start for start, _ in toy_tokens(text)]
    for before, after in pairwise(chunks):
        assert sum(after.start <= start < before.end for start in starts) <= overlap


def check_order(chunks: list[Chunk], text: str) -> None:
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    for before, after in pairwise(chunks):
        assert before.start < after.start <= before.end < after.end


@given(TEXTS.filter(bool), st.integers(1, 40))
def test_without_overlap_chunks_are_a_partition(text, size):
    assert "".join(chunk.text for chunk in chunk_text(text, size)) == text


def test_borders_in_the_order_paragraph_line_sentence_word():
    def first(text: str) -> str:
        return chunk_text(text, 20)[0].text

    assert first("abcdefghij k\n\nl. m\nn o p q") == "abcdefghij k\n\n"
    assert first("abcdefghij k. l\nm n o p q r s") == "abcdefghij k. l\n"
    assert first("abcdefghij k. l m n o p q r s") == "abcdefghij k. "
    assert first("abcdefghij klmn opqrstuvwxyz") == "abcdefghij klmn "
    assert first("a" * 30) == "a" * 20
    assert first("漢字が並ぶ文。" * 5) == "漢字が並ぶ文。" * 2


def test_overlap_begins_at_a_border():
    chunks = chunk_text("alpha beta gamma delta epsilon zeta eta", 20, 9)
    assert [chunk.text for chunk in chunks][:2] == ["alpha beta gamma ", "gamma delta epsilon "]


def test_newline_pair_stays_together():
    texts = [chunk.text for chunk in chunk_text("abc\r\n" * 3, 4)]
    assert all(not text.startswith("\n") for text in texts)


def test_a_long_line_is_cut_in_linear_time():
    text = "word " * 400_000
    chunks = chunk_text(text, 1000, 100)
    assert rebuild(chunks) == text


def test_a_long_text_is_tokenized_in_parts():
    longest = 0

    def offsets(text: str) -> list[tuple[int, int]]:
        nonlocal longest
        longest = max(longest, len(text))
        return [match.span() for match in re.finditer(r"\S+", text)]

    text = "words and more\n" * 150_000
    chunks = chunk_text(text, 2000, 50, offsets)
    assert rebuild(chunks) == text
    assert longest <= 1_000_000
    assert max(len(chunk.text.split()) for chunk in chunks) <= 2000


def test_real_tokenizer_measures_chunks(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from swiftcore.data.documents.tokens import token_offsets

    model = tokenizers.models.BPE({chr(n): n - 32 for n in range(33, 127)} | {" ": 0}, [])
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    offsets = token_offsets(tmp_path)
    chunks = chunk_text("some words, and more words", 8, 2, offsets)
    assert rebuild(chunks) == "some words, and more words"
    assert max(len(offsets(chunk.text)) for chunk in chunks) <= 8
    with pytest.raises(UsageError):
        token_offsets(tmp_path / "missing")


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (5, 5), (5, -1)])
def test_sizes_without_meaning_are_refused(size, overlap):
    with pytest.raises(UsageError):
        chunk_text("text", size, overlap)


def test_a_character_larger_than_a_chunk_is_refused():
    with pytest.raises(DataError, match="one character alone"):
        chunk_text("ab 😀", 2, 0, toy_tokens)


@given(TEXTS.filter(lambda text: len(text) > 8), st.data())
def test_a_missing_chunk_is_noticed(text, data):
    chunks = chunk_text(text, 3)
    del chunks[data.draw(st.integers(0, len(chunks) - 2))]
    with pytest.raises(DataError):
        rebuild(chunks)
