"""Tokenisation in which only our own control tokens become control tokens.

A control token is an added token of the tokenizer. In template text all are parsed; in assistant
text those flagged special are not; in all other text none is. The tokenizer itself parses them
everywhere, so a piece that holds one where it may not be parsed is cut at the allowed tokens, and
the rest is encoded by a tokenizer that shares the vocabulary but knows no added token. Every result
is checked: its added tokens must be exactly the allowed ones.

`parse_data=True` gives all that up: every text is what the tokenizer makes of it, as in ms-swift.
"""

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from swiftcore.errors import DataError, UsageError
from swiftcore.template.spans import Author, Piece

_MAX_TEMPLATE_TEXTS = 256
_SPACES = re.compile(r"\s*")


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


@dataclass(slots=True)
class TokenRequest:
    """Pieces on their way through the tokenizer.

    Args:
        pieces: what was asked for.
        results: ids of each piece, as far as they are known.
        places: which pieces the texts are of.
        texts: what the tokenizer has to encode.
    """

    pieces: list[Piece]
    results: list[list[int]] = field(init=False)
    places: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results = [[] for _ in self.pieces]


class PieceTokenizer:
    """Encode pieces of text with one Hugging Face tokenizer.

    Args:
        tokenizer: the tokenizer.
        parse_data: control tokens in anybody's text become control tokens.

    Raises:
        UsageError: the tokenizer has no tokenizer.json behind it.
    """

    def __init__(self, tokenizer: FastTokenizer, *, parse_data: bool = False) -> None:
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
        self.parse_data = parse_data
        added = tokenizer.added_tokens_decoder
        self._added = {token: entry for token, entry in added.items() if entry.content}
        self._id_of = {entry.content: token for token, entry in self._added.items()}
        longest_first = sorted(self._id_of, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # Stands for characters the vocabulary lacks: no control token, unless a text spells it.
        self._unknown = getattr(tokenizer, "unk_token_id", None)
        self.num_kept_as_text = self.num_parsed_in_data = 0
        # Separators and suffixes: a third of all pieces, and only a handful of texts.
        self._template_texts: dict[str, list[int]] = {}
        self._span_tokens: dict[str, list[int]] = {}
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
        """Encode each piece on its own, without tokens the tokenizer would put around a text.

        Raises:
            DataError: a text can't be encoded.
        """
        request = self.request(pieces)
        return self.complete(request, self.tokenize(request.texts))

    def request(self, pieces: list[Piece]) -> "TokenRequest":
        """Answer what needs no tokenizer, and gather the texts that do."""
        request = TokenRequest(pieces)
        for index, piece in enumerate(pieces):
            if piece.ids:
                request.results[index] = list(piece.ids)
                continue
            text = piece.text
            if not text:
                continue
            if piece.is_template and (known := self._template_texts.get(text)) is not None:
                request.results[index] = list(known)
                continue
            request.places.append(index)
            request.texts.append(text)
        return request

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text; touches no state, so another thread may do it.

        Raises:
            DataError: a text is no valid Unicode.
        """
        return self._encode_batch(texts)

    def complete(self, request: "TokenRequest", encoded: list[list[int]]) -> list[list[int]]:
        """Return the ids of each piece of a request, checked.

        Raises:
            DataError: a control token's text can't be written as ordinary characters.
        """
        for index, text, ids in zip(request.places, request.texts, encoded, strict=True):
            piece = request.pieces[index]
            if self._added_in(ids) != self._template_tokens(piece):
                ids = self._settled(piece, ids)
            request.results[index] = ids
            if piece.is_template and len(self._template_texts) < _MAX_TEMPLATE_TEXTS:
                self._template_texts[text] = list(ids)
        return request.results

    def _template_tokens(self, piece: Piece) -> list[int]:
        """Return the control tokens that the template's own spans of a piece have."""
        if len(piece.spans) == 1 and not piece.is_template:
            return []
        tokens: list[int] = []
        for span in piece.spans:
            if span.author is Author.TEMPLATE:
                known = self._span_tokens.get(span.text)
                if known is None:
                    known = [match.token for match in self._matches(span.text)]
                    if len(self._span_tokens) < _MAX_TEMPLATE_TEXTS:
                        self._span_tokens[span.text] = known
                tokens += known
        return tokens

    def _settled(self, piece: Piece, ids: list[int]) -> list[int]:
        """Return the ids of a piece in which more than the template's tokens were parsed."""
        matches = self._matches(piece.text)
        allowed = [match for match in matches if self._is_allowed(match, piece)]
        if self.parse_data:
            self.num_parsed_in_data += len(matches) - len(allowed)
            return ids
        self.num_kept_as_text += len(matches) - len(allowed)
        found, expected = self._added_in(ids), [match.token for match in allowed]
        if found == expected:
            return ids
        if len(allowed) == len(matches) and self._known(found) == expected:
            return ids
        return self._encode_guarded(piece.text, allowed)

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
                position = _SPACES.match(text, position).end()  # pyright: ignore[reportOptionalMemberAccess]
        ids += self._encode_section(text[position:], position)
        expected = [match.token for match in allowed]
        if self._known(self._added_in(ids)) != expected:
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
        hostile, found = self._matches(text), self._added_in(ids)
        if all(match.token != self._unknown for match in hostile):
            found = self._known(found)
        if not hostile or not found:
            return ids
        # The vocabulary itself holds a token's text: break each after its first character.
        cuts = [0, *(match.start + 1 for match in hostile), len(text)]
        broken: list[int] = []
        for start, end in pairwise(cuts):
            broken += self._encode_section(text[start:end], position + start)
        return broken

    def _known(self, added: list[int]) -> list[int]:
        """Return added tokens without the one for unknown characters."""
        return [token for token in added if token != self._unknown]

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
