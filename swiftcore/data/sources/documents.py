"""Which of the files that an entry names are documents, and which hold rows."""

from pathlib import Path

from swiftcore.data.documents.kinds import document_kind
from swiftcore.data.readers.files import data_suffix
from swiftcore.data.sources.row_options import RowOptions
from swiftcore.errors import DataError
from swiftcore.recipe.sections import DataSection

_ROW_SUFFIXES = (".jsonl", ".ndjson")
_MAYBE_ROWS = ("json", "csv", "tsv")


def is_document(path: Path, section: DataSection, options: RowOptions) -> bool:
    """Tell whether a source file is read as a document.

    What no reader of data files knows is one, if there is a reader for it as a document. With
    `data.documents`, so are text files, and tables and JSON without a row in a standard form.

    Args:
        path: the file.
        section: the recipe's data section.
        options: what the file's registration does to its rows.
    """
    kind, suffix = document_kind(path), data_suffix(path)
    if suffix is None or kind is None or section.documents is None:
        return suffix is None and kind is not None
    if kind not in _MAYBE_ROWS:
        return True
    if suffix in _ROW_SUFFIXES or options.preprocess is not None:
        return False
    return not _holds_rows(path, section, options)


def _holds_rows(path: Path, section: DataSection, options: RowOptions) -> bool:
    from swiftcore.data.documents.probing import holds_rows
    from swiftcore.data.shards import table_header

    try:
        columns = (section.columns or {}) | options.columns
        return holds_rows(path, columns, table_header(section, options))
    except DataError:
        # Settings with comments, a table in another encoding: text all the same.
        return False
