"""Two evaluations compared question by question."""

import json
import shutil

import pytest

from swiftcore.cli.main import report as print_error
from swiftcore.errors import DataError, SwiftError, UsageError
from swiftcore.evaluation import wilson_interval
from swiftcore.evaluation.comparison import compare, mcnemar, read_evaluated
from swiftcore.evaluation.report import AnsweredSample, EvaluationReport, summarize


def sample(row, benchmark="gsm8k", weights=None, target="7", **metrics):
    return AnsweredSample(row, 0, "p", "o", target, metrics, "stop", 1, None, benchmark, "main",
                          weights=weights)  # fmt: skip


def write(folder, digest="d", benchmark="gsm8k", **candidates):
    results = {name: summarize(samples, {}, 1, 1.0) for name, samples in candidates.items()}
    benchmarks = {benchmark: {"digest": digest}} if benchmark else {}
    EvaluationReport(
        num_rows=1,
        num_samples=1,
        test_digest="t" * 64,
        settings={},
        candidates=results,
        samples=candidates,
        benchmarks=benchmarks,
    ).write(folder)
    return folder


def right(*places, of=10, **extra):
    return [sample(row, accuracy=float(row in places), **extra) for row in range(of)]


def test_mcnemar_is_the_sign_test_of_the_questions_that_differ():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 8) == mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)


def test_pairs_give_the_difference_its_interval_and_its_p_value(tmp_path):
    first = read_evaluated(write(tmp_path / "a", m=right(0, 1, 2, 9)))
    second = read_evaluated(write(tmp_path / "b", m=right(0, 1, 2, 3, 4, 5, 6)))
    (found,) = compare(first, second)
    assert (found.metric, found.first, found.second) == ("gsm8k/accuracy", 0.4, 0.7)
    assert found.difference == pytest.approx(0.3)
    assert (found.gained, found.lost, found.n) == (4, 1, 10)
    assert found.p_value == mcnemar(4, 1)
    assert found.low <= 0 < found.difference < found.high
    (turned,) = compare(second, first)
    assert turned.difference == pytest.approx(-found.difference)
    (same,) = compare(first, first)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_pairing_sees_what_two_intervals_hide(tmp_path):
    first = read_evaluated(write(tmp_path / "a", m=right(*range(0, 100), of=200)))
    second = read_evaluated(write(tmp_path / "b", m=right(*range(0, 112), of=200)))
    (found,) = compare(first, second)
    assert found.low > 0
    assert wilson_interval(112, 200)[0] < wilson_interval(100, 200)[1]


def test_weights_count_as_in_the_report(tmp_path):
    def samples(*shares):
        weights = (1.0, 3.0)
        return [
            sample(row, "ifeval", {"inst": weight}, inst=share)
            for row, (share, weight) in enumerate(zip(shares, weights, strict=True))
        ]

    first = write(tmp_path / "a", benchmark="ifeval", m=samples(0.5, 0.25))
    second = write(tmp_path / "b", benchmark="ifeval", m=samples(0.5, 0.75))
    (found,) = compare(read_evaluated(first), read_evaluated(second))
    assert found.first == pytest.approx((0.5 + 3 * 0.25) / 4)
    assert found.difference == pytest.approx(3 * 0.5 / 4)
    assert found.p_value is None


def test_other_questions_are_not_paired(tmp_path):
    first = read_evaluated(write(tmp_path / "a", m=right(1)))
    other = read_evaluated(write(tmp_path / "b", digest="other", m=right(1)))
    with pytest.raises(DataError, match="no question in common"):
        compare(first, other)
    half = right(1)[:5] + right(1, of=5, target="8")
    (found,) = compare(first, read_evaluated(write(tmp_path / "c", m=half[:5])))
    assert found.n == 5


def test_rows_of_a_recipe_are_paired_too(tmp_path):
    rows = [sample(row, None, rouge_l=row / 10) for row in range(4)]
    folder = write(tmp_path / "a", benchmark=None, base=rows, merged=rows[:3])
    (found,) = compare(read_evaluated(folder, "base"), read_evaluated(folder, "merged"))
    assert (found.metric, found.n, found.difference) == ("rouge_l", 3, 0)


def test_several_candidates_must_be_named(tmp_path):
    folder = write(tmp_path / "a", base=right(1), merged=right(2))
    with pytest.raises(UsageError) as caught:
        read_evaluated(folder)
    assert caught.value.expected == "base or merged"
    with pytest.raises(UsageError):
        read_evaluated(folder, "other")


def test_damaged_reports_are_one_error(tmp_path):
    with pytest.raises(DataError, match="no evaluation report"):
        read_evaluated(tmp_path)
    folder = write(tmp_path / "a", m=right(1))
    (folder / "samples/gsm8k/m.jsonl").write_text('{"row": 1')
    with pytest.raises(DataError, match="samples"):
        read_evaluated(folder)


def test_swift_compare_of_two_folders(tmp_path, capsys):
    pytest.importorskip("prefect")
    from flows.model_commands import compare_command

    first = write(tmp_path / "a", m=right(0))
    second = write(tmp_path / "b", base=right(0), tuned=right(0, 1, 2))
    assert compare_command([str(first), f"{second}#tuned", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["paired"]
    assert found["difference"] == pytest.approx(0.2)
    assert compare_command([str(first), f"{second}#tuned"]) == 0
    assert "+0.2000" in capsys.readouterr().out
    shutil.rmtree(second)
    with pytest.raises(SwiftError) as caught:
        compare_command([str(first), str(second), "--store", str(tmp_path / "store")])
    assert print_error(caught.value, as_json=False, debug=False) == 2
