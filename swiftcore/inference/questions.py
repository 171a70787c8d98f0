"""What is to be answered: the last turn of each row of a file, or of the rows held out of training.

A row that can't be used becomes a question with an error, in its place among the others.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swiftcore.artifacts import Artifact, Store
from swiftcore.artifacts.lineage import LineageNode, lineage
from swiftcore.data import has_split, read_rows, sample_indices, section_files
from swiftcore.data.preparation import DroppedRow, Preparation, RowPreparer
from swiftcore.data.shards import table_header
from swiftcore.data.sources.local import SourceFile
from swiftcore.errors import DataError, UsageError
from swiftcore.evaluation.samples import samples_of_rows
from swiftcore.recipe.sections import DataSection

Row = Mapping[str, Any]
_ANSWER_ROLES = ("assistant", "tool_call")
# Splits that training has not seen, the likeliest to be meant first.
_HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Question:
    """One row to answer.

    Args:
        origin: file and line, or split and number.
        row: the standard row; the raw one, under `row`, where it has no standard form.
        prompt: the row without the answer it ends with.
        reference: that answer; None where the row ends with a question.
        error: why it can't be asked.
    """

    origin: str
    row: Row
    prompt: Row
    reference: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, row: Row, origin: str) -> "Question":
        """Return the question that a standard row asks last."""
        messages = row.get("messages") or ()
        if not messages or messages[-1].get("role") not in _ANSWER_ROLES:
            return cls(origin, row, row)
        last = samples_of_rows([row])[-1]
        return cls(origin, row, last.prompt_row, last.target)

    @classmethod
    def unusable(cls, raw: object, origin: str, error: str) -> "Question":
        """Return what stands for a row that has no standard form."""
        return cls(origin, {"row": raw}, {}, None, error)


def questions_of_files(section: DataSection, sample: int | None = None) -> list[Question]:
    """Read the rows of a section's `dataset`.

    Args:
        section: sources and how they are read. Each source's `#count` is honoured, and
            `dataset_shuffle` says whether it and `sample` take random rows or the first ones.
        sample: how many of all rows are wanted.

    Raises:
        SwiftError: as an ingest, for sources that are missing or damaged.
        UsageError: a source is a document.
        DataError: there is no row.
    """
    preparer = RowPreparer(Preparation(section))
    by_entry: dict[str, list[Question]] = {}
    counts: dict[str, int | None] = {}
    for place, file in enumerate(section_files(section, trace=False)):
        counts[file.spec.text] = file.spec.sample
        by_entry.setdefault(file.spec.text, []).extend(_of_file(file, place, section, preparer))
    chosen = [
        question
        for entry, found in by_entry.items()
        for question in _sampled(found, counts[entry], section)
    ]
    return _sampled(chosen, sample, section)


def questions_of_rows(rows: Sequence[Row], split: str) -> list[Question]:
    """Return the questions of standard rows of a dataset's split."""
    return [Question.of(row, f"{split}:{number}") for number, row in enumerate(rows)]


def held_out_rows(artifact: Artifact | None, store: Store) -> tuple[list[Row], str]:
    """Return the rows held out of the training that made a model or adapter, and their split.

    Raises:
        UsageError: nothing records that training, or it held no row out.
    """
    from swiftcore.data import load_rows

    dataset = None if artifact is None else _trained_on(lineage(store, artifact))
    if dataset is None:
        raise UsageError(
            "Nothing records which rows this model was trained on.",
            where="--load_data_args",
            found="a folder without a record" if artifact is None else "no dataset in its lineage",
            expected="what a recipe's train step made, or was made of it, and its dataset in the "
            "store",
            do="name the rows with --val_dataset",
        )
    for split in _HELD_OUT:
        if has_split(dataset.path, split) and (rows := load_rows(dataset.path, split)):
            return [dict(row) for row in rows], split
    raise UsageError(
        "No rows were held out of this model's training.",
        where="--load_data_args",
        found=f"{dataset.label} without validation or test rows",
        expected="a recipe with data.val_dataset, data.test_dataset or data.split_dataset_ratio",
        do="name the rows with --val_dataset",
    )


def _of_file(
    file: SourceFile, place: int, section: DataSection, preparer: RowPreparer
) -> Iterator[Question]:
    if file.document is not None:
        raise UsageError(
            "A document holds no questions.",
            where=file.name,
            expected="data files",
            do="make rows of it with swift dataset",
        )
    for raw in read_rows(file.path, file.name, table_header(section, file.options)):
        origin = f"{raw.source}:{raw.line}"
        try:
            row = preparer.prepare(raw, place, file.options).row
        except DroppedRow as err:
            yield Question.unusable(raw.row, origin, err.reason)
            continue
        yield Question.of(row, origin)


def _sampled(questions: list[Question], sample: int | None, section: DataSection) -> list[Question]:
    if sample is None:
        return questions
    if not questions:
        raise DataError("there are no rows to choose from", where="--val_dataset", found="0 rows")
    places, _ = sample_indices(
        len(questions), sample, shuffle=section.dataset_shuffle, seed=section.data_seed
    )
    return [questions[place] for place in places]


def _trained_on(tree: LineageNode) -> Artifact | None:
    """Return the dataset of the training nearest to the top of a lineage."""
    training = _nearest(tree, "train")
    encoded = [node for node in training.inputs if node.role == "encoded"] if training else []
    found = _nearest(encoded[0], "ingest") if encoded else None
    return None if found is None else found.artifact


def _nearest(tree: LineageNode, stage: str) -> LineageNode | None:
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        if node.artifact is not None and node.artifact.record.stage == stage:
            return node
        waiting.extend(node.inputs)
    return None
