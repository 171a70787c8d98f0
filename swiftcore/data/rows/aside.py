"""What reading a row's messages turns up beside the messages."""

Message = dict[str, object]
Row = dict[str, object]


class Aside:
    """Media found inside messages, and remarks that belong into the report.

    Args:
        media: `images`, `videos` and `audios` found in content parts, in their order.
        tags_only: media named in content parts that stand for entries of the row's columns.
        notes: what was left out of this row although the source has it, one sentence each.
    """

    __slots__ = ("media", "notes", "tags_only")

    def __init__(self) -> None:
        self.media: dict[str, list[object]] = {}
        self.tags_only: set[str] = set()
        self.notes: set[str] = set()

    def add_media(self, medium: str, value: object) -> None:
        """Keep one image, video or audio that a content part brings."""
        self.media.setdefault(f"{medium}s", []).append(value)

    def leave_out(self, key: object) -> None:
        """Say that a key of a message has no place in a standard message."""
        self.notes.add(f"message key {str(key)[:40]!r} is left out")
