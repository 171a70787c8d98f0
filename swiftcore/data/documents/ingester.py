"""Folders of documents, data files and hub datasets become one JSONL file.

Each file found is read or skipped with a reason. Each chunk of a document, and each data row that
has the wanted form, is written once: rows equal to an earlier one are counted as duplicates, over
all sources. A file that can't be read costs that file.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

from swiftcore.atomic import write_text_synced
from swiftcore.data.documents.chunks import Chunk
from swiftcore.data.documents.code import split_document
from swiftcore.data.documents.config import (
    HuggingFaceSource,
    IngestionConfig,
)
from swiftcore.data.documents.folders import FoundFile, SkippedFile, find_files
from swiftcore.data.documents.hub import Fetch, hub_files
from swiftcore.data.documents.kinds import document_kind, is_source_code
from swiftcore.data.documents.outcomes import ExtractedDocument, FailedDocument
from swiftcore.data.documents.output import RowOutput
from swiftcore.data.documents.pool import Extraction, default_workers, extract_in_order
from swiftcore.data.documents.probing import holds_rows
from swiftcore.data.documents.result import (
    Counts,
    IngestedFile,
    IngestionResult,
    skipped_lines,
)
from swiftcore.data.documents.schemas import (
    NO_INSTRUCTION,
    Row,
    conversation_row,
    origin_of_row,
    text_of_row,
    text_rows,
)
from swiftcore.data.documents.tokens import token_offsets
from swiftcore.data.quarantine import RejectedRow
from swiftcore.data.readers.files import SourceRow, data_suffix, read_rows
from swiftcore.data.readers.tables import TableHeader
from swiftcore.data.rows.formats import RowNormalizer
from swiftcore.data.rows.plan import KNOWN_COLUMNS
from swiftcore.errors import DataError, UsageError
from swiftcore.progress import Progress, Silent

_NUM_REASONS, _NUM_SHOWN = 20, 5
# Tables and JSON may be data or just documents; their first rows decide.
_MAYBE_DOCUMENTS = (".csv", ".tsv", ".json")


class DatasetIngester:
    """Ingests what a configuration names.

    Args:
        config: sources, output and form.
        fetch: brings hub datasets; the hub layer's `fetch_hub` unless given.

    Raises:
        UsageError: the configuration's tokenizer can't be used.
    """

    def __init__(self, config: IngestionConfig, fetch: Fetch | None = None) -> None:
        self.config = config
        self._fetch = fetch
        self._normalizer = RowNormalizer(config.columns)
        renamed = {name.lower() for name in config.columns}
        self._header = TableHeader(config.column_names, KNOWN_COLUMNS | renamed)
        self._offsets = token_offsets(config.tokenizer) if config.tokenizer else None

    def run(self, progress: Progress | None = None) -> IngestionResult:
        """Write the output and its report.

        Raises:
            DataError: an input does not exist, or no row came of all of them; an earlier output
                stays as it was.
            SwiftError: a hub dataset can't be fetched.
        """
        config, progress = self.config, progress or Silent()
        report_path = config.output_path.with_name(f"{config.output_path.name}.report.json")
        result = IngestionResult(config.format, config.output_path, report_path)
        with RowOutput(config.output_path) as output:
            ours = (config.output_path, report_path, output.quarantine_path)
            found = list(find_files(config.input_paths, ours))
            self._take_files(found, output, result, progress)
            result.num_found = len(found)
            _note_columns(self._normalizer, result, "the input files")
            for source in config.hf_sources:
                progress.update(len(found), None, source.name)
                self._take_hub(source, output, result)
            result.rejected_reasons = dict(output.reasons.most_common(_NUM_REASONS))
            result.check()
            if result.rows == 0:
                raise _nothing(result)
            rejected = output.has_rejected
            result.output_sha256 = output.publish()
            result.quarantine_path = output.quarantine_path if rejected else None
        text = json.dumps(result.as_dict(), indent=2, ensure_ascii=True)
        write_text_synced(report_path, text + "\n")
        progress.update(1, 1, f"{result.rows:,} rows")
        return result

    def _take_files(
        self,
        found: list[FoundFile | SkippedFile],
        output: RowOutput,
        result: IngestionResult,
        progress: Progress,
    ) -> None:
        documents = [file for file in found if self._is_document(file)]
        paths = (file.path for file in documents if isinstance(file, FoundFile))
        num_workers = min(self.config.num_workers or default_workers(), max(len(documents), 1))
        to_extract = set(documents)
        with closing(extract_in_order(paths, self.config.limits, num_workers)) as extractions:
            for number, file in enumerate(found):
                progress.update(number, len(found), file.name)
                extraction = next(extractions) if file in to_extract else None
                self._take(file, extraction, output, result)

    def _take(
        self,
        file: FoundFile | SkippedFile,
        extraction: Extraction | None,
        output: RowOutput,
        result: IngestionResult,
    ) -> None:
        if isinstance(file, SkippedFile):
            result.skipped.append(file)
        elif isinstance(extraction, FailedDocument):
            result.skipped.append(SkippedFile(file.name, extraction.reason))
        elif extraction is not None:
            self._take_document(file, extraction, output, result)
        elif data_suffix(file.path) is not None and document_kind(file.path) != "text":
            rows = read_rows(file.path, file.name, self._header)
            self._take_rows(file, rows, self._normalizer, output, result)
        else:
            result.skipped.append(SkippedFile(file.name, NO_INSTRUCTION))

    def _is_document(self, file: FoundFile | SkippedFile) -> bool:
        """Tell what is to be extracted from data files, and from what the format refuses anyway."""
        if isinstance(file, SkippedFile) or self._is_data(file):
            return False
        return self.config.format.holds_text or document_kind(file.path) is None

    def _take_document(
        self,
        file: FoundFile,
        document: ExtractedDocument,
        output: RowOutput,
        result: IngestionResult,
    ) -> None:
        taken = IngestedFile(file.name, document.kind, notes=list(document.notes))
        try:
            chunks = self._chunks(document)
        except DataError as err:
            result.skipped.append(SkippedFile(file.name, f"{err.message}: {err.found}"))
            return
        for row in text_rows(chunks, self.config.format, document.kind, file.name):
            _add_text(row, output, taken.counts)
        result.files.append(taken)

    def _take_hub(
        self, source: HuggingFaceSource, output: RowOutput, result: IngestionResult
    ) -> None:
        normalizer = RowNormalizer(dict(source.columns))
        left = source.max_samples
        files = hub_files(source, self._fetch)
        read = 0
        for file in files:
            read += 1
            result.num_found += 1
            rows = read_rows(file.path, file.name)
            taken = self._take_rows(file, islice(rows, left), normalizer, output, result)
            if taken is None:
                continue
            result.hf_rows += taken.counts.source_rows
            left = None if left is None else left - taken.counts.source_rows
            if left == 0:
                break
        told = {"files": f"{read} of {len(files.names)}"} if source.streaming else {}
        origin = {"dataset": source.name, "split": source.split} | files.origin
        result.hf_sources.append(origin | told)
        _note_columns(normalizer, result, source.name)

    def _take_rows(
        self,
        file: FoundFile,
        rows: Iterable[SourceRow],
        normalizer: RowNormalizer,
        output: RowOutput,
        result: IngestionResult,
    ) -> IngestedFile | None:
        """Take the rows of a data file; a file that is damaged as a whole is skipped as a whole."""
        taken = IngestedFile(file.name, "rows")
        try:
            output.begin()
            for raw in rows:
                taken.counts.source_rows += 1
                try:
                    self._take_row(raw, normalizer, output, taken.counts)
                except RejectedRow as err:
                    output.reject(raw, err.message, taken.counts)
        except DataError as err:
            output.take_back()
            found = f": {err.found}" if err.found else ""
            result.skipped.append(SkippedFile(file.name, f"{err.message}{found}"))
            return None
        output.keep()
        result.files.append(taken)
        return taken

    def _take_row(
        self, raw: SourceRow, normalizer: RowNormalizer, output: RowOutput, counts: Counts
    ) -> None:
        if raw.problem is not None:
            raise RejectedRow(raw.problem)
        form = self.config.format
        standard = normalizer.standard_row(raw.row)
        if not form.holds_text:
            output.add(conversation_row(standard, form), counts)
            return
        text = text_of_row(standard)
        language, path = origin_of_row(raw.row, raw.source, raw.line)
        kind = language if is_source_code(language) else "text"
        try:
            chunks = self._chunks(ExtractedDocument(Path(path), kind, text))
        except DataError as err:
            raise RejectedRow(err.message) from err
        for row in text_rows(chunks, form, language, path):
            _add_text(row, output, counts)

    def _chunks(self, document: ExtractedDocument) -> Sequence[Chunk]:
        config = self.config
        return split_document(document, config.chunk_size, config.chunk_overlap, self._offsets)

    def _is_data(self, file: FoundFile) -> bool:
        """Tell data from documents; tables and JSON of neither texts nor conversations are both."""
        suffix = data_suffix(file.path)
        if suffix is None or document_kind(file.path) == "text":
            return False
        if suffix not in _MAYBE_DOCUMENTS or not self.config.format.holds_text:
            return True
        try:
            if holds_rows(file.path, self.config.columns, self._header):
                return True
        except DataError:
            # A broken JSON file is damaged data; a table in another encoding is still a document.
            return suffix == ".json"
        # What is compressed has no reader as a document.
        return file.path.suffix.lower() != suffix


def _add_text(row: Row, output: RowOutput, counts: Counts) -> None:
    if str(row["text"]).strip():
        output.add(row, counts)
    else:
        counts.chunks += 1
        counts.blank += 1


def _note_columns(normalizer: RowNormalizer, result: IngestionResult, where: str) -> None:
    for name, count in sorted(normalizer.unused_columns.items()):
        result.unused_columns[name] = result.unused_columns.get(name, 0) + count
    missing = normalizer.missing_columns()
    if missing:
        raise UsageError(
            "a column is renamed that no row has",
            where=where,
            found=", ".join(missing),
            expected="one of " + ", ".join(normalizer.seen_columns()[:20]),
            do="correct the name, or leave it out",
        )


def _nothing(result: IngestionResult) -> DataError:
    total = result.totals
    found = [
        f"{result.num_found:,} files found, {len(result.skipped):,} skipped, "
        f"{total.rejected:,} of {total.source_rows:,} data rows rejected"
    ]
    reasons = list(result.rejected_reasons.items())[:_NUM_SHOWN]
    found += [f"  {count:,} rows: {reason}" for reason, count in reasons]
    return DataError(
        "no row came of all the inputs; nothing was written",
        where=result.output_path,
        found="\n".join([*found, *skipped_lines(result.skipped)]),
        expected=f"at least one row for the format {result.format}",
        do="look at the reasons; --format pretraining takes texts, the sft formats take "
        "conversations and pairs",
    )
