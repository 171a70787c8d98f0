"""All benchmarks by name."""

from swiftcore.evaluation.benchmarks.arithmetic import GSM8K, MATH_500
from swiftcore.evaluation.benchmarks.calls import BFCL_V4
from swiftcore.evaluation.benchmarks.choice import ARC, GENERAL_MCQ, MMLU
from swiftcore.evaluation.benchmarks.code import HUMANEVAL, MBPP
from swiftcore.evaluation.benchmarks.general import GENERAL_QA
from swiftcore.evaluation.benchmarks.hard import BBH
from swiftcore.evaluation.benchmarks.instructions import IFEVAL
from swiftcore.evaluation.benchmarks.perplexity import PERPLEXITY
from swiftcore.evaluation.benchmarks.question import Benchmark

CATALOGUE: dict[str, Benchmark] = {
    found.name: found
    for found in (
        ARC,
        BBH,
        BFCL_V4,
        GENERAL_MCQ,
        GENERAL_QA,
        GSM8K,
        HUMANEVAL,
        IFEVAL,
        MATH_500,
        MBPP,
        MMLU,
        PERPLEXITY,
    )
}
