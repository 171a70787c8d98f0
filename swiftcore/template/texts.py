"""A family's texts, made ready for one tokenizer: fixed spans, and slots for what rows bring."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.spans import Span

SYSTEM, QUERY, ROUND0, ROUND1 = "SYSTEM", "QUERY", "ROUND0", "ROUND1"
_PLACEHOLDER = re.compile(
    r"\{\{(?P<name>SYSTEM|QUERY|ROUND0|ROUND1|BOS|EOS|ID|TOKEN|TODAY)(?::(?P<argument>[^}]*))?\}\}"
)
_ENCODER_TOKENS = {"bos_token": "cls_token", "eos_token": "sep_token"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a family: spans, and names of slots between them."""

    parts: tuple[Span | str, ...]

    @property
    def characters(self) -> str:
        """The text outside its slots."""
        return "".join(part.text for part in self.parts if isinstance(part, Span))

    def fill(self, **values: list[Span]) -> list[Span]:
        """Return the spans with the slots filled; what is put in is never read for slots."""
        spans: list[Span] = []
        for part in self.parts:
            if isinstance(part, str):
                spans += values[part]
            else:
                spans.append(part)
        return spans


@dataclass(frozen=True, slots=True)
class FamilyTexts:
    """All texts of a definition for one tokenizer and one day."""

    prefix: Text
    system_prefix: Text | None
    prompt: Text
    system_prompt: Text | None
    chat_sep: Text
    suffix: Text
    default_system: str | None


def prepare_texts(definition: ChatTemplate, tokenizer: Any, today: date) -> FamilyTexts:
    """Resolve the placeholders of a definition that do not depend on the row.

    Raises:
        UsageError: the tokenizer lacks a token that a text names.
    """

    def prepare(text: str) -> Text:
        return _prepare(text, definition.name, tokenizer, today)

    def prepare_if_any(text: str | None) -> Text | None:
        return None if text is None else prepare(text)

    system = definition.default_system
    return FamilyTexts(
        prefix=prepare(definition.prefix),
        system_prefix=prepare_if_any(definition.system_prefix),
        prompt=prepare(definition.prompt),
        system_prompt=prepare_if_any(definition.system_prompt),
        chat_sep=prepare(definition.chat_sep or ""),
        suffix=prepare(definition.suffix),
        default_system=system and prepare(system).characters,
    )


def _prepare(text: str, family: str, tokenizer: Any, today: date) -> Text:
    parts: list[Span | str] = []
    pending = ""
    position = 0
    for found in _PLACEHOLDER.finditer(text):
        pending += text[position : found.start()]
        position = found.end()
        name, argument = found["name"], found["argument"] or ""
        if name in ("BOS", "EOS"):
            pending += _own_token(tokenizer, family, f"{name.lower()}_token")
        elif name == "TODAY":
            pending += _format_date(today, argument)
        else:
            # Neighbouring fixed text stays one span: the tokenizer's cache of texts works by span.
            parts += [Span(pending)] if pending else []
            pending = ""
            parts.append(
                name
                if name not in ("ID", "TOKEN")
                else Span("", ids=(_token_id(name, argument, tokenizer, family),))
            )
    pending += text[position:]
    return Text((*parts, Span(pending)) if pending else tuple(parts))


def _own_token(tokenizer: Any, family: str, attribute: str) -> str:
    # Encoders such as BERT begin and end texts with tokens of other names.
    names = (attribute, _ENCODER_TOKENS[attribute])
    token = next(filter(None, (getattr(tokenizer, name, None) for name in names)), None)
    if token is None:
        raise _lacks(family, attribute)
    return str(token)


def _token_id(kind: str, argument: str, tokenizer: Any, family: str) -> int:
    if kind == "ID":
        token = int(argument)
        if token >= len(tokenizer):
            raise UsageError(
                f"template {family!r} needs a token the tokenizer does not have",
                where="tokenizer",
                found=f"{len(tokenizer)} tokens",
                expected=f"a token with id {token}",
                do="choose the template of this model's family, or 'jinja'",
            )
        return token
    settings: Mapping[str, Any] = getattr(tokenizer, "init_kwargs", {})
    token = getattr(tokenizer, argument, None)
    token = settings.get(argument) if token is None else token
    if not isinstance(token, int):
        raise _lacks(family, argument)
    return token


def _lacks(family: str, attribute: str) -> UsageError:
    return UsageError(
        f"template {family!r} needs a token the tokenizer does not have",
        where="tokenizer",
        found=f"no {attribute}",
        expected="a tokenizer that names it in tokenizer_config.json",
        do="set it there, or choose another template",
    )


def _format_date(day: date, pattern: str) -> str:
    # strftime would write month names in the machine's language.
    return (
        pattern.replace("%d", f"{day.day:02d}")
        .replace("%b", _MONTHS[day.month - 1])
        .replace("%m", f"{day.month:02d}")
        .replace("%Y", f"{day.year:04d}")
    )
