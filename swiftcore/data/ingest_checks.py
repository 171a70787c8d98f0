"""What an ingest refuses: settings without meaning, and sources of which too much is bad."""

from collections.abc import Sequence

from swiftcore.data.documents.chunks import check_size
from swiftcore.data.quarantine import QuarantineFile
from swiftcore.data.readers.files import TABLE_SUFFIXES, data_suffix
from swiftcore.data.sources.local import SourceFile
from swiftcore.data.sources.registration import checked_names
from swiftcore.errors import DataError, UsageError
from swiftcore.recipe.sections import DataSection


def check_section(section: DataSection) -> None:
    """Refuse settings that contradict each other.

    Raises:
        UsageError: two settings have no meaning together.
    """
    if section.split_dataset_ratio > 0 and section.val_dataset:
        raise UsageError(
            "validation rows are named twice",
            where="data.split_dataset_ratio and data.val_dataset",
            found=f"{section.split_dataset_ratio} and {', '.join(section.val_dataset)}",
            expected="one of the two",
            do="set data.split_dataset_ratio to 0, or remove data.val_dataset",
        )
    if section.split_dataset_ratio > 0 and section.streaming:
        raise UsageError(
            "a stream has no length that a share could be split off from",
            where="data.split_dataset_ratio and data.streaming",
            found=section.split_dataset_ratio,
            expected="0",
            do="name data.val_dataset, or set data.streaming to false",
        )
    documents = section.documents
    if documents is None:
        return
    if documents.chunk_size or documents.chunk_overlap:
        check_size(documents.chunk_size, documents.chunk_overlap)
    if documents.format == "code" and section.remove_unused_columns:
        raise UsageError(
            "the columns of code are asked for and dropped",
            where="data.documents.format and data.remove_unused_columns",
            found="code and true",
            expected="language, path and lines of each text as columns",
            do="set data.remove_unused_columns to false, or remove data.documents.format",
        )


def check_files(section: DataSection, files: Sequence[SourceFile]) -> None:
    """Refuse settings that no file has a use for.

    Raises:
        UsageError: columns are named without a table, or documents asked for without one.
    """
    checked_names(section.column_names, "data.column_names")
    if section.column_names and not any(are_tables([file]) for file in files):
        raise UsageError(
            "columns are named, and no file needs their names",
            where="data.column_names",
            found=", ".join(file.name for file in files[:8]),
            expected="a .csv or .tsv file",
            do="remove data.column_names; to rename columns, use data.columns",
        )
    if section.documents is not None and not any(file.document for file in files):
        raise UsageError(
            "documents are asked for, and there is none",
            where="data.documents",
            found=", ".join(file.name for file in files[:8]),
            expected="a PDF, DOCX, HTML, Markdown, source code ... among the sources",
            do="remove data.documents",
        )


def are_tables(files: Sequence[SourceFile]) -> bool:
    """Tell whether all files are csv or tsv."""
    return all(data_suffix(file.path) in TABLE_SUFFIXES for file in files)


def bad_row(reason: str, place: str) -> DataError:
    """Return the error over the first bad row, where `data.strict` wants none."""
    return DataError(
        "a row has no standard form, and data.strict is on",
        where=place,
        found=reason,
        do="mend the row, or set data.strict to false to set bad rows aside",
    )


def too_many_bad(
    where: str,
    problem: str,
    quarantine: QuarantineFile,
    max_share: float | None = None,
    tables: bool = False,
) -> DataError:
    """Return the error over a source or role of which too much is bad.

    Args:
        where: the source or role.
        problem: how much is bad.
        quarantine: where it stands.
        max_share: what would have been allowed; None: even that would not help.
        tables: the files are csv or tsv, so their headers may be missing.
    """
    allowed = "" if max_share is None else ", or raise data.max_quarantine_ratio"
    allowed += ", or data.column_names if there is no header line" if tables else ""
    return DataError(
        problem,
        where=where,
        found="\n".join(quarantine.examples()),
        expected=None if max_share is None else f"at most {max_share:.1%}",
        do=f"look into {quarantine.path}, mend the source or set data.columns{allowed}",
    )
