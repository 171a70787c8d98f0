"""Self-cognition: rows that say who the model is, with placeholders for its name and its author.

`{{NAME}}` and `{{AUTHOR}}` (also in lower case, as LLaMA-Factory writes them) are filled with the
Chinese or the English form. Which one, the row's `tag` says, zh or en; without a tag, Chinese
characters in the row do. ms-swift leaves a placeholder without a value in the training text; here
it is an error, because a model would learn to say `{{NAME}}`.
"""

import re
from collections.abc import Sequence

from swiftcore.data.quarantine import RejectedRow
from swiftcore.errors import UsageError

_PLACEHOLDER = re.compile(r"\{\{(NAME|AUTHOR|name|author)\}\}")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_MAX_DEPTH = 50


class SelfCognition:
    """Fills the placeholders of raw rows.

    Args:
        model_name: the model's name in Chinese and in English, or one form for both.
        model_author: its author, likewise.

    Raises:
        UsageError: more than two forms, or an empty one.
    """

    def __init__(
        self,
        model_name: str | Sequence[str] | None = None,
        model_author: str | Sequence[str] | None = None,
    ) -> None:
        self._forms = {
            "name": _forms("model_name", model_name),
            "author": _forms("model_author", model_author),
        }

    def fill(self, row: object) -> object:
        """Return a raw row with its placeholders filled; the row itself stays as it is.

        Raises:
            UsageError: a placeholder has no value.
            RejectedRow: the row is nested too deeply to be looked through.
        """
        if not _holds(row, _PLACEHOLDER, 0):
            return row
        tag = row.get("tag") if isinstance(row, dict) else None
        chinese = tag == "zh" if tag in ("zh", "en") else _holds(row, _HAN, 0)
        return self._filled(row, 0 if chinese else 1)

    def _filled(self, value: object, form: int) -> object:
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda found: self._value(found, form), value)
        if isinstance(value, list):
            return [self._filled(item, form) for item in value]
        if isinstance(value, dict):
            return {key: self._filled(item, form) for key, item in value.items()}
        return value

    def _value(self, found: re.Match[str], form: int) -> str:
        forms = self._forms[found[1].lower()]
        if forms is None:
            argument = f"model_{found[1].lower()}"
            text = found.string[max(0, found.start() - 40) : found.end() + 20]
            raise UsageError(
                "a placeholder of a self-cognition row is left without a value",
                where=f"data.{argument}",
                found=f"{found[0]} in {text!r}",
                expected="its Chinese and its English form, or one for both",
                do=f"set data.{argument}, for example {argument}: [小黄, Xiao Huang]",
            )
        return forms[form]


def _forms(argument: str, value: str | Sequence[str] | None) -> tuple[str, str] | None:
    if value is None:
        return None
    forms = [value] if isinstance(value, str) else list(value)
    if len(forms) not in (1, 2) or not all(form.strip() for form in forms):
        raise UsageError(
            "a name for self-cognition has no meaning",
            where=f"data.{argument}",
            found=", ".join(forms) or "nothing",
            expected="one form, or the Chinese and the English one",
            do=f"give data.{argument} one or two texts",
        )
    return forms[0], forms[-1]


def _holds(value: object, wanted: re.Pattern[str], depth: int) -> bool:
    if isinstance(value, str):
        return wanted.search(value) is not None
    if isinstance(value, (list, dict)):
        if depth > _MAX_DEPTH:
            raise RejectedRow("the row is nested too deeply to look for placeholders")
        items = value if isinstance(value, list) else value.values()
        return any(_holds(item, wanted, depth + 1) for item in items)
    return False
