"""All benchmarks by name."""

from swiftcore.evaluation.benchmarks.arithmetic import GSM8K, MATH_500
from swiftcore.evaluation.benchmarks.choice import ARC, GENERAL_MCQ, MMLU
from swiftcore.evaluation.benchmarks.general import GENERAL_QA
from swiftcore.evaluation.benchmarks.hard import BBH
from swiftcore.evaluation.benchmarks.perplexity import PERPLEXITY
from swiftcore.evaluation.benchmarks.question import Benchmark

CATALOGUE: dict[str, Benchmark] = {
    found.name: found
    for found in (
        ARC,
        BBH,
        GENERAL_MCQ,
        GENERAL_QA,
        GSM8K,
        MATH_500,
        MMLU,
        PERPLEXITY,
    )
}
