"""Whether a table or JSON file is data: rows with a text or a conversation, or just a document."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.readers.files import read_rows
from swiftcore.data.readers.tables import TableHeader
from swiftcore.data.rows.formats import RowNormalizer

_PROBED_ROWS = 1000


def holds_rows(path: Path, columns: Mapping[str, str], header: TableHeader) -> bool:
    """Tell whether one of a file's first rows has a standard form.

    Args:
        path: the file.
        columns: `{source name: standard name}`, renamed first.
        header: what is known of the columns of a csv or tsv file.

    Raises:
        DataError: it is damaged as a whole.
    """
    normalizer = RowNormalizer(columns)
    for raw in islice(read_rows(path, header=header), _PROBED_ROWS):
        try:
            if raw.problem is None:
                normalizer.standard_row(raw.row)
                return True
        except RejectedRow:
            continue
    return False
