"""IFEval: prompts whose instructions a program can check.

Four figures: the share of prompts with all instructions followed, and the share of instructions
followed, each strict (the answer as it stands) and loose (also right without its first line, its
last line, or its asterisks, which answers like to put around what was asked for).

Source: Zhou et al., "Instruction-Following Evaluation for Large Language Models", 2023.
"""

from itertools import product
from typing import Any

from swiftcore.data.cleaning.language import known_languages
from swiftcore.errors import DataError
from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.instruction_checks import CHECKS, follows
from swiftcore.evaluation.benchmarks.places import field_of, read_rows
from swiftcore.evaluation.benchmarks.question import (
    Benchmark,
    Files,
    Grade,
    Question,
    Source,
    asked,
)
from swiftcore.recipe.benchmarks import BenchmarkArgs

_METRICS = ("prompt_level_strict", "inst_level_strict", "prompt_level_loose", "inst_level_loose")


def loose_forms(text: str) -> list[str]:
    """Return the forms of an answer of which one must follow the instruction."""
    lines = text.split("\n")
    forms = [
        "\n".join(lines[first : len(lines) - last]).strip()
        for first, last in product((0, 1), (0, 1))
    ]
    forms += [form.replace("*", "") for form in forms]
    return [form for form in forms if form]


def grade_instructions(question: Question, answer: Answer, text: str) -> Grade:
    """Check every instruction of a prompt, strictly and loosely."""
    asked_for = question.facts["instructions"]
    strict = [follows(name, text, settings) for name, settings in asked_for]
    forms = loose_forms(text)
    loose = [any(follows(name, form, given) for form in forms) for name, given in asked_for]
    missed = [name for (name, _), held in zip(asked_for, strict, strict=True) if not held]
    metrics = {
        "prompt_level_strict": float(all(strict)),
        "inst_level_strict": sum(strict) / len(strict),
        "prompt_level_loose": float(all(loose)),
        "inst_level_loose": sum(loose) / len(loose),
    }
    note = f"not followed: {', '.join(missed)}" if missed else None
    return Grade(metrics, None, note, question.weights)


def _read(files: Files, args: BenchmarkArgs, num_shots: int) -> list[Question]:
    path, questions = files["test"], []
    for place, row in enumerate(read_rows(path), 1):
        prompt = str(field_of(row, "prompt", path, place))
        names = list(field_of(row, "instruction_id_list", path, place))
        given = list(field_of(row, "kwargs", path, place))
        unknown = [name for name in names if name not in CHECKS]
        if unknown or len(given) != len(names) or not names:
            raise DataError(
                "A prompt's instructions can't be checked.",
                where=f"{path}:{place}",
                found=", ".join(unknown) or f"{len(names)} instructions, {len(given)} settings",
                expected="known instructions, each with its settings",
            )
        # Published copies hold every setting in every row, those that are not meant as null.
        settings = [{k: v for k, v in (one or {}).items() if v is not None} for one in given]
        count = float(len(names))
        questions.append(
            Question(
                subset="default",
                row=asked(prompt, args),
                target=", ".join(names),
                text=prompt,
                facts={"instructions": list(zip(names, settings, strict=True))},
                weights={"inst_level_strict": count, "inst_level_loose": count},
            )
        )
    return questions


def _settings() -> dict[str, Any]:
    """Say what tells languages; where it lacks, this raises before anything is asked."""
    return {"languages_by": f"py3langid ({len(known_languages())} languages)"}


IFEVAL = Benchmark(
    "ifeval",
    {"test": Source(("ifeval*.jsonl*", "input_data.jsonl*", "train.jsonl*"))},
    _read,
    grade_instructions,
    metrics=_METRICS,
    max_tokens=1280,
    settings=_settings,
)
