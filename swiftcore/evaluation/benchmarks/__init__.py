"""Benchmarks with local files: questions, how answers are found, and how they are graded.

`places` finds and reads the files, `choice`, `arithmetic`, `code`, `instructions`, `hard`, `calls`,
`general` and `perplexity` hold one kind of benchmark each, `catalogue` names them, `planning` turns
a recipe's section into questions, `responding` and `endpoint` answer them, `running` grades.

An answer that failed, was cut off at the longest answer, or is empty counts as wrong, always.
"""
