"""Documents among the sources of a recipe: read once, and kept as JSON lines beside the shards.

From there their chunks are rows like all others; the line of a row is the number of its chunk. A
document that gives no text is one bad row with the reason.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from swiftcore.data.documents.chunks import check_size
from swiftcore.data.documents.code import split_document
from swiftcore.data.documents.outcomes import (
    ExtractedDocument,
    ExtractionLimits,
    FailedDocument,
)
from swiftcore.data.documents.pool import extract_in_order
from swiftcore.data.documents.schemas import DatasetFormat, text_rows
from swiftcore.data.documents.tokens import token_offsets
from swiftcore.errors import DataError
from swiftcore.progress import Progress
from swiftcore.recipe.sections import DocumentsSection

_MIB = 2**20
_NO_TEXT = "the document holds no text"


@dataclass(frozen=True)
class Document:
    """A document to read.

    Args:
        path: the file.
        name: how reports name it.
        inner: its place within its entry, which rows of code name.
    """

    path: Path
    name: str
    inner: str


@dataclass(frozen=True)
class StagedDocument:
    """What became of a document.

    Args:
        path: JSON lines of its chunks.
        problem: why there are none.
        notes: what a reader of the report should know of it.
    """

    path: Path
    problem: str | None = None
    notes: list[str] = field(default_factory=list)


class Stager:
    """Reads documents as a section says.

    Args:
        section: how they become texts.
        folder: where their chunks are kept; made when there is a document.
        num_workers: documents read at once; what comes of them is the same for any number.

    Raises:
        UsageError: sizes don't fit together, or there is no such tokenizer.
    """

    def __init__(self, section: DocumentsSection, folder: Path, num_workers: int) -> None:
        if section.chunk_size or section.chunk_overlap:
            check_size(section.chunk_size, section.chunk_overlap)
        self._section = section
        self._folder = folder
        self._num_workers = num_workers
        self._offsets = token_offsets(Path(section.tokenizer)) if section.tokenizer else None

    def stage(self, documents: Sequence[Document], progress: Progress) -> Iterator[StagedDocument]:
        """Read the documents and yield what became of each, in their order."""
        if not documents:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        memory, seconds = self._section.max_memory_mib * _MIB, self._section.max_seconds
        limits = ExtractionLimits(memory_bytes=memory, seconds_a_file=seconds)
        paths = (document.path for document in documents)
        workers = min(self._num_workers, len(documents))
        with closing(extract_in_order(paths, limits, workers)) as extractions:
            for number, (document, found) in enumerate(zip(documents, extractions, strict=True)):
                progress.update(number, len(documents), document.name)
                path = self._folder / f"{number:06d}.jsonl"
                if isinstance(found, FailedDocument):
                    yield StagedDocument(path, found.reason)
                else:
                    yield self._kept(found, document, path)

    def _kept(self, found: ExtractedDocument, document: Document, path: Path) -> StagedDocument:
        section = self._section
        try:
            chunks = split_document(found, section.chunk_size, section.chunk_overlap, self._offsets)
        except DataError as err:
            return StagedDocument(path, f"{err.message}: {err.found}")
        rows = list(text_rows(chunks, DatasetFormat(section.format), found.kind, document.inner))
        written = [row for row in rows if str(row["text"]).strip()]
        if not written:
            return StagedDocument(path, _NO_TEXT)
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in written)
        notes = [f"{document.name}: {note}" for note in found.notes]
        if len(written) < len(rows):
            notes.append(f"{document.name}: {len(rows) - len(written):,} blank chunks left out")
        return StagedDocument(path, None, notes)
