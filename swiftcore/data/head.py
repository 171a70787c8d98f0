"""The first training rows of a section's sources, for a look at them without an ingest.

They go the way of an ingest up to the single row: registered functions, standard form, filters.
What needs all rows is left out: duplicates, sampling, splits and order.
"""

from collections import Counter
from dataclasses import dataclass, field

from swiftcore.data.ingest import section_files
from swiftcore.data.preparation import DroppedRow, Preparation, RowPreparer
from swiftcore.data.readers.files import read_rows
from swiftcore.errors import UsageError
from swiftcore.recipe.sections import DataSection

Row = dict[str, object]


@dataclass
class Head:
    """The first rows, as far as they were read.

    Args:
        rows: standard rows.
        origins: file and line of each.
        left_out: reasons for which rows were left out, with their number.
        is_complete: the sources hold no further row.
    """

    rows: list[Row] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter[str])
    is_complete: bool = True


def head_rows(section: DataSection, count: int) -> Head:
    """Read up to `count` rows from the section's training sources, in their order.

    Raises:
        SwiftError: as an ingest, for sources that are missing or damaged.
        UsageError: a source is a document, which becomes rows in an ingest only.
    """
    head = Head()
    preparer = RowPreparer(Preparation(section))
    for index, file in enumerate(section_files(section, trace=False)):
        if file.role != "train":
            continue
        if file.document is not None:
            raise UsageError(
                "documents become rows in the ingest stage only",
                where=file.name,
                found="a document",
                expected="data files, or a dataset that was ingested",
                do="run `swift stage ingest RECIPE --out FOLDER` first",
            )
        for raw in read_rows(file.path, file.name):
            if len(head.rows) == count:
                head.is_complete = False
                return head
            try:
                row = preparer.prepare(raw, index, file.options).row
            except DroppedRow as err:
                head.left_out[err.reason] += 1
                continue
            head.rows.append(row)
            head.origins.append(f"{raw.source}:{raw.line}")
    return head
