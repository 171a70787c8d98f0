"""Tokenisation in which only our own control tokens become control tokens.

A control token is an added token of the tokenizer. In template text all are parsed; in assistant
text those flagged special are not; in all other text none is. The tokenizer itself parses them
everywhere, so a piece that holds one where it may not be parsed is cut at the allowed tokens, and
the rest is encoded by a tokenizer that shares the vocabulary but knows no added token. Every result
is checked: its added tokens must be exactly the allowed ones.
"""

import re
from dataclasses import dataclass
from typing import Any, Protocol

from swiftcore.errors import DataError, UsageError
from swiftcore.template.spans import Author, Piece

_MAX_TEMPLATE_TEXTS = 256


class FastTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that this module uses."""

    added_tokens_decoder: dict[int, Any]
    backend_tokenizer: Any

    def decode(self, token_ids: list[int], **kwargs: Any) -> Any:
        """Turn ids into text."""
        ...


@dataclass(frozen=True, slots=True)
class _Match:
    start: int
    end: int
    token: int


class PieceTokenizer:
    """Encode pieces of text with one Hugging Face tokenizer.

    Raises:
        UsageError: the tokenizer has no tokenizer.json behind it.
    """

    def __init__(self, tokenizer: FastTokenizer) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UsageError(
                "templates need a fast tokenizer",
                where="tokenizer",
                found=type(tokenizer).__name__,
                expected="a tokenizer with a tokenizer.json",
                do="load it with AutoTokenizer and save it again, which writes tokenizer.json",
            )
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {token: entry for token, entry in added.items() if entry.content}
        self._id_of = {entry.content: token for token, entry in self._added.items()}
        longest_first = sorted(self._id_of, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.num_kept_as_text = 0
        # Separators and suffixes: a third of all pieces, and only a handful of texts.
        self._template_texts: dict[str, list[int]] = {}
        self._plain = _without_added_tokens(backend, at_start=True)
        self._plain_inside = _without_added_tokens(backend, at_start=False)

    @property
    def token_ids(self) -> dict[str, int]:
        """Control token texts and their ids."""
        return dict(self._id_of)

    def is_special(self, token: int) -> bool:
        """Say whether the id is an added token flagged special."""
        return token in self._added and bool(self._added[token].special)

    def find(self, text: str) -> re.Match[str] | None:
        """Return the first control token's text in `text`, or None."""
        return self._pattern.search(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, control tokens included."""
        text = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def encode(self, pieces: list[Piece]) -> list[list[int]]:
        """Encode each piece on its own, without tokens the tokenizer would put around a text."""
        results: list[list[int]] = [[] for _ in pieces]
        ready: list[tuple[int, str, list[int]]] = []
        for index, piece in enumerate(pieces):
            if piece.ids:
                results[index] = list(piece.ids)
                continue
            text = piece.text
            if not text:
                continue
            is_template = all(span.author is Author.TEMPLATE for span in piece.spans)
            if is_template and (known := self._template_texts.get(text)) is not None:
                results[index] = list(known)
                continue
            matches = self._matches(text)
            allowed = [match for match in matches if self._is_allowed(match, piece)]
            if len(allowed) == len(matches):
                ready.append((index, text, [match.token for match in allowed]))
            else:
                self.num_kept_as_text += len(matches) - len(allowed)
                results[index] = self._encode_guarded(text, allowed)
        for (index, text, expected), ids in zip(
            ready, self._encode_batch([text for _, text, _ in ready]), strict=True
        ):
            results[index] = ids
            if self._added_in(ids) != expected:
                matches = self._matches(text)
                results[index] = self._encode_guarded(text, matches)
            self._remember(pieces[index], text, results[index])
        return results

    def _remember(self, piece: Piece, text: str, ids: list[int]) -> None:
        is_template = all(span.author is Author.TEMPLATE for span in piece.spans)
        if is_template and len(self._template_texts) < _MAX_TEMPLATE_TEXTS:
            self._template_texts[text] = list(ids)

    def _matches(self, text: str) -> list[_Match]:
        return [
            _Match(found.start(), found.end(), self._id_of[found.group()])
            for found in self._pattern.finditer(text)
        ]

    def _is_allowed(self, match: _Match, piece: Piece) -> bool:
        start = 0
        for span in piece.spans:
            end = start + len(span.text)
            if match.start < end:
                if match.end > end or span.author is Author.DATA:
                    return False
                return span.author is Author.TEMPLATE or not self._added[match.token].special
            start = end
        return False

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        backend = self._tokenizer.backend_tokenizer
        if backend.truncation is not None or backend.padding is not None:
            # Left behind by someone's `tokenizer(..., truncation=True)`; theirs to keep.
            backend = type(backend).from_str(backend.to_str())
            backend.no_truncation()
            backend.no_padding()
        return _encode_texts(backend, texts)

    def _encode_guarded(self, text: str, allowed: list[_Match]) -> list[int]:
        """Encode text so that nothing but the allowed matches becomes an added token."""
        ids: list[int] = []
        position = 0
        for match in allowed:
            entry = self._added[match.token]
            section = text[position : match.start]
            ids += self._encode_section(section.rstrip() if entry.lstrip else section, position)
            ids.append(match.token)
            position = match.end
            if entry.rstrip:
                position += len(text[position:]) - len(text[position:].lstrip())
        ids += self._encode_section(text[position:], position)
        expected = [match.token for match in allowed]
        if self._added_in(ids) != expected:
            raise DataError(
                "this tokenizer has no way to write a control token's text as ordinary characters",
                where="message content",
                found=text[:120],
                expected="text whose characters can be encoded one by one",
                do="remove the control token from the row",
            )
        return ids

    def _encode_section(self, text: str, position: int) -> list[int]:
        if not text:
            return []
        plain = self._plain if position == 0 else self._plain_inside
        ids = _encode_texts(plain, [text])[0]
        hostile = self.find(text)
        if hostile is None or not self._added_in(ids):
            return ids
        # The vocabulary itself holds the token's text: break it after its first character.
        middle = hostile.start() + 1
        return self._encode_section(text[:middle], position) + self._encode_section(
            text[middle:], position + middle
        )

    def _added_in(self, ids: list[int]) -> list[int]:
        added = self._added
        return [token for token in ids if token in added]


def _encode_texts(backend: Any, texts: list[str]) -> list[list[int]]:
    try:
        if len(texts) == 1:
            return [backend.encode(texts[0], add_special_tokens=False).ids]
        return [each.ids for each in backend.encode_batch_fast(texts, add_special_tokens=False)]
    except (TypeError, UnicodeEncodeError) as err:
        raise DataError(
            "a text holds characters that are no valid Unicode",
            where="message content",
            found=str(err)[:200],
            expected="text without lone surrogates",
            do="decode the source with errors='replace', or drop the row",
        ) from err


def _without_added_tokens(backend: Any, *, at_start: bool) -> Any:
    """Build a tokenizer over the same vocabulary that parses no added token.

    `at_start=False` is for text in the middle of a sequence, where a SentencePiece-style tokenizer
    must not put the space marker it puts before a first word.
    """
    from tokenizers import Tokenizer, pre_tokenizers

    plain = Tokenizer(backend.model)
    if backend.normalizer is not None:
        plain.normalizer = backend.normalizer
    pre_tokenizer = backend.pre_tokenizer
    if pre_tokenizer is None:
        return plain
    if (
        not at_start
        and isinstance(pre_tokenizer, pre_tokenizers.Metaspace)
        and pre_tokenizer.prepend_scheme == "first"
    ):
        pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=pre_tokenizer.replacement,
            prepend_scheme="never",
            split=pre_tokenizer.split,
        )
    plain.pre_tokenizer = pre_tokenizer
    return plain
