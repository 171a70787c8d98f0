"""Near copies are found as the theory of MinHash and LSH says, the same in any process."""

import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftcore.data.cleaning.near_duplicates import (
    NUM_PERMUTATIONS,
    SIGNATURE_BYTES,
    band_keys,
    banding,
    meeting_probability,
    near_duplicate_groups,
    row_signature,
    signature,
    signature_table,
)
from swiftcore.data.cleaning.text import ngram_keys, normalized, row_text, units
from swiftcore.errors import UsageError
from tests.making import REPO


def words(rng: random.Random, number: int) -> list[str]:
    return [f"w{rng.randrange(10**9):x}" for _ in range(number)]


def pair_with_similarity(rng: random.Random, similarity: float, shingles: int = 400):
    """Return two texts whose 5-gram sets have this Jaccard similarity, and its exact value.

    They share their beginning and go on differently: s = common / (2 x all - common).
    """
    common = round(2 * shingles * similarity / (1 + similarity))
    start = words(rng, common + 4)
    first, second = (" ".join(start + words(rng, shingles - common)) for _ in range(2))
    return first, second, jaccard(first, second)


def jaccard(first: str, second: str) -> float:
    a, b = (set(ngram_keys(units(text), 5).tolist()) for text in (first, second))
    return len(a & b) / len(a | b)


def estimate(first: str, second: str) -> float:
    table = signature_table([signature(first), signature(second)])
    return float(np.mean(table[0] == table[1]))


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8, 0.9])
def test_estimated_similarity_has_the_stated_error(similarity):
    rng = random.Random(int(similarity * 100))
    errors = []
    for _ in range(60):
        first, second, true = pair_with_similarity(rng, similarity)
        assert true == pytest.approx(similarity, abs=0.01)
        errors.append(estimate(first, second) - true)
    expected = math.sqrt(similarity * (1 - similarity) / NUM_PERMUTATIONS)
    assert abs(np.mean(errors)) < 4 * expected / math.sqrt(len(errors))
    assert 0.7 * expected < np.std(errors) < 1.4 * expected


@pytest.mark.parametrize(("bands", "width"), [(21, 6), (9, 13), (32, 4)])
def test_pairs_meet_as_often_as_the_curve_says(bands, width):
    rng = random.Random(bands)
    num_pairs = 400
    for similarity in (0.4, 0.6, 0.8, 0.9):
        # Minima of two sets are equal with probability s, independently: that is the theory.
        draws = np.random.RandomState(width).rand(num_pairs, NUM_PERMUTATIONS) < similarity
        first = np.arange(num_pairs * NUM_PERMUTATIONS, dtype=np.uint32).reshape(num_pairs, -1)
        second = np.where(draws, first, first + np.uint32(2**31))
        met = (band_keys(first, bands, width) == band_keys(second, bands, width)).any(axis=1)
        expected = meeting_probability(similarity, bands, width)
        margin = 4 * math.sqrt(expected * (1 - expected) / num_pairs) + 0.01
        assert met.mean() == pytest.approx(expected, abs=margin)
    # And real texts at one similarity, whose minima come from datasketch.
    met_texts = 0
    for _ in range(120):
        pair = pair_with_similarity(rng, 0.7, shingles=120)[:2]
        keys = band_keys(signature_table(map(signature, pair)), bands, width)
        met_texts += bool((keys[0] == keys[1]).any())
    expected = meeting_probability(0.7, bands, width)
    margin = 4 * math.sqrt(expected * (1 - expected) / 120) + 0.03
    assert met_texts / 120 == pytest.approx(expected, abs=margin)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_pairs_at_the_threshold_meet_in_99_of_100_cases(threshold):
    bands, width = banding(threshold)
    assert bands * width <= NUM_PERMUTATIONS
    assert meeting_probability(threshold, bands, width) >= 0.99
    if width < NUM_PERMUTATIONS:
        wider = NUM_PERMUTATIONS // (width + 1)
        assert meeting_probability(threshold, wider, width + 1) < 0.99


def test_recall_and_precision_on_pairs_of_known_similarity():
    rng = random.Random(5)
    texts, similarities = [], []
    for similarity in [0.95] * 100 + [0.88] * 100 + [0.7] * 100 + [0.3] * 100:
        first, second, true = pair_with_similarity(rng, similarity, shingles=200)
        texts += [first, second]
        similarities.append(true)
    groups = near_duplicate_groups(map(signature, texts), 0.8)
    assert (groups[::2] == -1).all()
    found = groups[1::2] == np.arange(0, len(texts), 2)
    assert ((groups[1::2] == -1) | found).all()
    assert found[:100].mean() == 1.0
    assert found[100:200].mean() >= 0.97
    assert found[200:300].mean() <= 0.03
    assert found[300:].mean() == 0.0


def test_candidates_are_those_of_datasketch():
    rng = random.Random(3)
    texts = [text for _ in range(60) for text in pair_with_similarity(rng, 0.75, 60)[:2]]
    bands, width = banding(0.8)
    table = signature_table(map(signature, texts))
    index = MinHashLSH(num_perm=NUM_PERMUTATIONS, params=(bands, width))
    for place, row in enumerate(table):
        index.insert(place, MinHash(hashvalues=row, scheme="affine32"))
    keys = band_keys(table, bands, width)
    for place, row in enumerate(table):
        ours = set(np.flatnonzero((keys == keys[place]).any(axis=1)).tolist())
        assert ours == set(index.query(MinHash(hashvalues=row, scheme="affine32")))


def test_first_row_of_a_group_stays_and_others_point_at_it():
    rng = random.Random(11)
    base, other = words(rng, 100), words(rng, 100)
    changed = [*base[:50], "changed", *base[51:]]
    twice = [*base[:20], "also", *base[21:50], "changed", *base[51:]]
    texts = [" ".join(item) for item in (other, base, changed, base, other, twice)]
    groups = near_duplicate_groups([signature(text) for text in texts], 0.7)
    assert groups.tolist() == [-1, -1, 1, 1, 0, 1]


def test_row_that_goes_is_near_a_row_that_stays():
    """A chain of small changes does not pull far texts into one group."""
    rng = random.Random(2)
    text = words(rng, 120)
    chain = [" ".join(text)]
    for step in range(30):
        text = list(text)
        text[step * 4] = f"new{step}"
        chain.append(" ".join(text))
    groups = near_duplicate_groups(map(signature, chain), 0.8).tolist()
    assert groups[1] == 0
    assert sum(group == -1 for group in groups) > 2
    for place, first in enumerate(groups):
        if first >= 0:
            assert groups[first] == -1
            assert jaccard(chain[place], chain[first]) > 0.65


def test_templated_rows_do_not_take_quadratic_time():
    rng = random.Random(4)
    frame = " ".join(words(rng, 60))
    texts = [f"{frame} {' '.join(words(rng, 35))}" for _ in range(3000)]
    assert (near_duplicate_groups(map(signature, texts), 0.9) == -1).all()


def test_case_punctuation_and_width_do_not_matter_but_words_do():
    one = "The quick brown fox, it is said, jumps over the lazy dog!"
    two = "the QUICK brown fox it is said -- jumps over the lazy ｄｏｇ"
    assert signature(one) == signature(two)
    assert signature("你好，世界。今天天气很好") == signature("你好世界 今天天气很好！")
    assert estimate("yes", "no") < 0.1
    assert signature("?!") != signature("!?")
    assert len(signature("")) == SIGNATURE_BYTES


def test_chinese_is_compared_by_characters():
    first = "机器学习是人工智能的一个分支，它使计算机能够从数据中学习并作出决定，而不需要程序。"
    second = first.replace("计算机", "电脑")
    assert units("我爱ABC机器") == ["我", "爱", "abc", "机", "器"]
    assert estimate(first, second) == pytest.approx(jaccard(first, second), abs=0.15)
    assert jaccard(first, second) > 0.6


def test_rows_that_differ_beside_their_words_are_other_rows():
    def row(**columns: object) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": "What is in the picture?"}], **columns}

    cat, dog = row(images=[{"path": "cat.png"}]), row(images=[{"path": "dog.png"}])
    rows = [cat, dog, row(), row(label=True), row(label=False), row(tools='[{"name": "x"}]')]
    rows += [cat, row(), row(label=True)]
    groups = near_duplicate_groups([row_signature(item) for item in rows])
    assert groups.tolist() == [-1, -1, -1, -1, -1, -1, 0, 2, 3]


def test_all_text_of_a_row_counts_and_tools_on_request():
    row = {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "rejected_response": "r",
        "positive_messages": [[{"role": "assistant", "content": "p"}]],
        "tools": '[{"name": "t"}]',
        "solution": "x",
    }
    assert row_text(row) == "s\nu\nr\np"
    assert row_text(row, system=False, tools=True) == 'u\nr\np\n[{"name": "t"}]'


def test_signature_is_the_same_in_every_process():
    script = (
        "from swiftcore.data.cleaning.near_duplicates import signature\n"
        "print(signature('one two three four five six seven 你好').hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPO,
        env=os.environ | {"PYTHONHASHSEED": "7"},  # this process has another
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == signature("one two three four five six seven 你好").hex()


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.1])
def test_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(UsageError, match="threshold"):
        near_duplicate_groups([signature("a")], threshold)


@pytest.mark.parametrize("n", range(1, 16))
def test_an_ngram_has_one_key_wherever_it_stands(n):
    text = [f"w{place}" for place in range(30)]
    keys = ngram_keys(text, n)
    assert len(set(keys.tolist())) == len(keys) == 30 - n + 1
    for start in range(30 - n + 1):
        for end in range(start + n, min(start + n + 9, 31)):
            expected = keys[start : end - n + 1].tolist()
            assert ngram_keys(text[start:end], n).tolist() == expected


def test_no_rows_make_no_groups():
    assert near_duplicate_groups([]).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=12))
def test_equal_texts_always_meet(texts):
    both = texts + texts
    groups = near_duplicate_groups(map(signature, both)).tolist()
    for place in range(len(texts)):
        first = groups[place] if groups[place] >= 0 else place
        assert groups[place + len(texts)] == first or groups[place + len(texts)] < place


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_normalising_twice_changes_nothing(text):
    assert normalized(normalized(text)) == normalized(text)
