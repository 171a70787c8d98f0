"""Tokens as people read them: the text each one stands for, hidden characters made visible.

A token is not always text. Byte-level vocabularies split a character over several tokens, which are
kept together here until it is whole; what never becomes whole (a row may be cut anywhere) is shown
as its bytes. Joined, the units of a row say what `Template.decode` says.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from swiftcore.template.template import Template

_BROKEN = "\ufffd"
# A character of UTF-8 has at most four bytes, and a token at least one of them.
_MAX_SPLIT = 4
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACES = re.compile(r"\r\n|[\n\t]|  +| +(?=[\r\n])")
_ARROWS = {"\n": "↵", "\r\n": "␍↵", "\t": "⇥"}
_HIDDEN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"))


@dataclass(frozen=True, slots=True)
class Unit:
    """Tokens that are text together: nearly always one.

    Args:
        start: place of the first in the row.
        ids: the tokens.
        text: their text; of broken units their bytes in hexadecimal.
        weight: loss weight.
        is_control: an added token of the tokenizer.
        is_broken: the tokens hold a part of a character only.
    """

    start: int
    ids: tuple[int, ...]
    text: str
    weight: float
    is_control: bool = False
    is_broken: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbours of equal weight; the control tokens among them stay their own units."""

    weight: float
    units: tuple[Unit, ...]


def read_units(template: Template, ids: Sequence[int], weights: Sequence[float]) -> list[Unit]:
    """Return a row's tokens as units of text.

    Args:
        template: knows the tokenizer.
        ids: the row's tokens.
        weights: the loss weight of each.
    """
    control = {token: text for text, token in template.pieces.token_ids.items()}
    decode = _decoder(template)
    units: list[Unit] = []
    place, before = 0, 0
    while place < len(ids):
        token = ids[place]
        if token in control:
            units.append(Unit(place, (token,), control[token], weights[place], is_control=True))
            before, place = place, place + 1
            continue
        stop, text = _whole(template, decode, ids, weights, before, place, control)
        if text is None:
            found = _token_bytes(template.tokenizer, ids[place:stop])
            shown = decode([token]) if found is None else found.hex(" ").upper()
            unit = Unit(place, (token,), shown, weights[place], is_broken=found is not None)
        else:
            unit = Unit(place, tuple(ids[place:stop]), text, weights[place])
        units.append(unit)
        before, place = place, stop
    return units


def runs_of(units: Sequence[Unit]) -> list[Run]:
    """Group neighbours of equal weight."""
    runs: list[list[Unit]] = []
    for unit in units:
        if runs and runs[-1][-1].weight == unit.weight:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return [Run(run[0].weight, tuple(run)) for run in runs]


def shown_units(units: Sequence[Unit]) -> Iterator[tuple[Unit, list[tuple[str, bool]]]]:
    """Yield each unit with its text in parts, as `visible` gives them; a broken one is one mark."""
    for unit, following in zip_longest(units, units[1:]):
        if unit.is_broken or not unit.text:
            yield unit, [(unit.text or "∅", True)]
            continue
        parts = list(visible(unit.text))
        last = following is None or following.is_control or following.text[:1] in ("\n", "\r")
        text, is_mark = parts[-1]
        if last and text.endswith(" ") and not is_mark:
            # A space at the end of a line, a message or a run is seen by nobody but the model.
            parts[-1:] = [(text[:-1], False), ("·", True)] if len(text) > 1 else [("·", True)]
        yield unit, parts


def visible(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in parts, each with whether it is a mark for characters that would not show.

    Line ends and tabs keep their effect: the mark comes before the character. Runs of spaces and
    spaces at the end of a line are dots; all other invisible characters, among them those that turn
    the direction of writing, are replaced by their number.
    """
    position = 0
    for found in _SPACES.finditer(text):
        yield from _numbered(text[position : found.start()])
        spaces = found.group()
        if spaces in _ARROWS:
            yield _ARROWS[spaces], True
            yield spaces[-1], False
        else:
            yield "·" * len(spaces), True
        position = found.end()
    yield from _numbered(text[position:])


def _numbered(text: str) -> Iterator[tuple[str, bool]]:
    plain = ""
    for character in text:
        if character == " " or unicodedata.category(character) not in _HIDDEN:
            plain += character
            continue
        if plain:
            yield plain, False
            plain = ""
        code = ord(character)
        picture = chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"
        yield picture, True
    if plain:
        yield plain, False


def _whole(
    template: Template,
    decode: Callable[[list[int]], str],
    ids: Sequence[int],
    weights: Sequence[float],
    before: int,
    start: int,
    control: Mapping[int, str],
) -> tuple[int, str | None]:
    """Return where the unit that starts here ends, and its text; None: no whole characters."""
    for stop in range(start + 1, min(start + _MAX_SPLIT, len(ids)) + 1):
        if ids[stop - 1] in control or weights[stop - 1] != weights[start]:
            break
        text = _text(decode, ids, before, start, stop)
        if _BROKEN not in text:
            return stop, text
        # The mark for broken text may be meant: then it is in the bytes.
        found = _token_bytes(template.tokenizer, ids[start:stop])
        if found is not None and (meant := _as_text(found)) is not None:
            return stop, meant
    return start + 1, None


def _text(
    decode: Callable[[list[int]], str], ids: Sequence[int], before: int, start: int, stop: int
) -> str:
    """Decode some tokens as they read after those before them.

    Word-based decoders leave out the space before a first word, so tokens are never decoded alone
    unless they are the first.
    """
    context = decode(list(ids[before:start])) if before < start else ""
    whole = decode(list(ids[before:stop]))
    joins = whole.startswith(context) and not context.endswith(_BROKEN)
    return whole[len(context) :] if joins else decode(list(ids[start:stop]))


def _decoder(template: Template) -> Callable[[list[int]], str]:
    # The tokenizer's own decode takes ten times as long, for options that are not wanted here.
    return functools.partial(template.tokenizer.backend_tokenizer.decode, skip_special_tokens=False)


def _as_text(found: bytes) -> str | None:
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _token_bytes(tokenizer: Any, ids: Sequence[int]) -> bytes | None:
    """Return the bytes that tokens stand for; None where the vocabulary is not one of bytes."""
    found = b""
    for token in tokenizer.convert_ids_to_tokens(list(ids)):
        single = _BYTE_TOKEN.fullmatch(token)
        if single:
            found += bytes([int(single[1], 16)])
            continue
        letters = letter_bytes()
        if not all(letter in letters for letter in token):
            return None
        found += bytes(letters[letter] for letter in token)
    return found


@functools.cache
def letter_bytes() -> dict[str, int]:
    """Return the letters that byte-level vocabularies write for the 256 bytes.

    Source: GPT-2 (bytes_to_unicode): printable Latin-1 stands for itself, the rest follows at 256.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}
