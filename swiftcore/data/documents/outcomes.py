"""What reading one document comes to: its text, or the reason why there is none."""

from dataclasses import dataclass, field
from pathlib import Path

from swiftcore.errors import DataError


class DocumentRefused(DataError):
    """One document can't become text; the message is the reason."""


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """How much one file may cost before it is given up.

    Args:
        memory_bytes: address space of the process that reads, libraries included.
        seconds_a_file: wall-clock time for one file.
        max_file_bytes: size of the file.
        max_text_characters: length of the text that comes out.
        max_unpacked_bytes: size of an archive's members (DOCX and EPUB are archives), unpacked.
        max_expansion: unpacked size over packed size; deflate itself ends at 1,032. It counts from
            `free_unpacked_bytes` on, because little repetitive files compress well.
        free_unpacked_bytes: unpacked size below which `max_expansion` is not asked for.
        max_members: number of files in an archive.
    """

    memory_bytes: int = 2 * 2**30
    seconds_a_file: float = 60.0
    max_file_bytes: int = 256 * 2**20
    max_text_characters: int = 100_000_000
    max_unpacked_bytes: int = 512 * 2**20
    max_expansion: int = 200
    free_unpacked_bytes: int = 8 * 2**20
    max_members: int = 10_000


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A named stretch of a document's text: a page, slide, sheet, chapter or cell."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Break:
    """A place where source code is best cut.

    Args:
        at: position in the text, always the start of a line.
        level: 0 before a top-level definition, 1 before a member of one, and so on.
    """

    at: int
    level: int


@dataclass(frozen=True, slots=True)
class ExtractedDocument:
    """The text of a document.

    Args:
        path: the file.
        kind: what `document_kind` says of it.
        text: all of its text.
        parts: pages, slides, sheets, chapters or cells; empty where there are none.
        breaks: where source code is best cut; empty for other documents.
        notes: what a reader of the text should know, for example pages without text.
    """

    path: Path
    kind: str
    text: str
    parts: tuple[DocumentPart, ...] = ()
    breaks: tuple[Break, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that gave no text, and why."""

    path: Path
    kind: str | None
    reason: str


@dataclass(slots=True)
class Reading:
    """What a reader hands on: named sections of text in their order, and notes."""

    sections: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
