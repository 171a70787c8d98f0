"""Answers of mathematical problems: where a solution states it, and whether two are the same.

The same number in another form is the same (1/2 and 0.5, \\frac{\\sqrt3}{3} and 1/\\sqrt{3}), and
so is an equal formula, a set in another order, an interval with spaces. A rounded number is not.
"""

import re
from collections.abc import Sequence

from swiftcore.scores.latex import NotAFormula, same_value

_BOXED = re.compile(r"\\f?boxed\s*\{")
_JOINED = re.compile(r"[\s$]*(?:,|\band\b)(?:\s*\band\b)?[\s$]*")
_STATED = re.compile(
    r"(?:final answer|answer)\s*(?:is|:|=)\s*:?\s*(.+?)(?=\.\s|\.?\s*$|\n)",
    re.IGNORECASE | re.MULTILINE,
)
_MARKED = re.compile(r"####\s*(.+)")
_INLINE = re.compile(r"\$([^$\n]+)\$")
_NUMBER = re.compile(r"(?<![\w.])[-−]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|mathrm|textit|mathbf)\s*\{([^{}]*)\}")
# Words after a value are its unit, with the power that belongs to them.
_UNIT = re.compile(r"(?<=[\d})])\s*\\(?:text|mbox|mathrm)\s*\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?")
_SPOKEN_UNIT = re.compile(
    r"(?<=[\d})])\s*\b(?:(?:square|cubic)\s+)?(?:dollars?|cents?|degrees?|units?|inch(?:es)?|feet"
    r"|miles?|meters?|cm|km|mm|kg|hours?|minutes?|seconds?|days?|years?)\b(?:\s*\^\s*\{?[23]\}?)?"
)
_MARKS = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\%|%|\\\$|\$|\\!|\\left|\\right|\\[()]")
_SPACED_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LABEL = re.compile(r"^\s*[A-Za-z](?:\([A-Za-z]\))?\s*(?:=|\\in)\s*")
_MATRIX = re.compile(r"\s*\\begin\{([pbvB]?matrix)\}(.*?)\\end\{\1\}\s*", re.DOTALL)
_TYPED = str.maketrans({"−": "-", "–": "-", "’": "'", "\u00a0": " "})
_BRACKETS = {"(": "open", "[": "closed", ")": "open", "]": "closed"}


def final_answer(solution: str) -> str | None:
    """Return the answer that a solution states; None when it states none.

    Looked for in this order: the last `\\boxed{}`, what follows the last `####`, what follows the
    last "answer is", the last formula between dollar signs in the last line, the last number.
    """
    boxed = last_boxed(solution)
    if boxed is not None:
        return boxed
    for pattern in (_MARKED, _STATED):
        if found := pattern.findall(solution):
            return found[-1].strip().strip("*").strip()
    last_line = solution.strip().rpartition("\n")[2]
    if inline := _INLINE.findall(last_line):
        return inline[-1].strip()
    numbers = _NUMBER.findall(solution)
    return numbers[-1] if numbers else None


def last_boxed(text: str) -> str | None:
    """Return what is in the last complete `\\boxed{}`; braces inside it are counted."""
    for match in reversed(list(_BOXED.finditer(text))):
        end = _closing(text, match.end())
        if end is not None:
            return text[match.end() : end].strip()
    return None


def _closing(text: str, start: int) -> int | None:
    """Return the place of the brace that closes one opened just before `start`."""
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if text[place] in "{}" and text[place - 1] == "\\":
            depth += (text[place] == "}") - (text[place] == "{")
        if not depth:
            return place
    return None


def boxed_run(text: str) -> list[str]:
    """Return what the last `\\boxed{}` holds, and those before it that a comma or "and" joins."""
    run: list[str] = []
    end = len(text)
    for start, stop, content in reversed(_outer_boxes(text)):
        if run and not _JOINED.fullmatch(text[stop:end]):
            break
        run.insert(0, content)
        end = start
    return run


def _outer_boxes(text: str) -> list[tuple[int, int, str]]:
    """Return start, end and content of the complete boxes that are in no other one."""
    boxes: list[tuple[int, int, str]] = []
    for match in _BOXED.finditer(text):
        if boxes and match.start() < boxes[-1][1]:
            continue
        end = _closing(text, match.end())
        if end is not None:
            boxes.append((match.start(), end + 1, text[match.end() : end].strip()))
    return boxes


def answers_agree(answer: str, expected: str) -> bool:
    """Tell whether two answers are the same; what can't be read is compared as it is written."""
    mine, theirs = _plain(answer), _plain(expected)
    if not mine:
        return False
    if mine.replace(" ", "") == theirs.replace(" ", ""):
        return True
    mine, theirs = _without_label(mine, theirs)
    for take_apart in (_matrix, _set, _pair, _list):
        left, right = take_apart(mine), take_apart(theirs)
        if left is not None and right is not None:
            return _parts_agree(left, right, ordered=take_apart in (_matrix, _pair))
        if left is not None or right is not None:
            return False
    return _values_agree(mine, theirs)


def _parts_agree(left: Sequence[str], right: Sequence[str], *, ordered: bool) -> bool:
    if len(left) != len(right):
        return False
    if ordered:
        return all(answers_agree(a, b) for a, b in zip(left, right, strict=True))
    rest = list(right)
    for part in left:
        match = next((i for i, other in enumerate(rest) if answers_agree(part, other)), None)
        if match is None:
            return False
        del rest[match]
    return True


def _values_agree(mine: str, theirs: str) -> bool:
    if "=" in mine or "=" in theirs:
        return _equations_agree(mine, theirs)
    try:
        return same_value(mine, theirs)
    except NotAFormula:
        pass  # words and other notation are compared as they are written
    return _same_words(mine, theirs)


def _equations_agree(mine: str, theirs: str) -> bool:
    """Tell whether two equations say the same: one side minus the other, up to the sign."""
    sides = [text.split("=") for text in (mine, theirs)]
    if any(len(parts) != 2 for parts in sides):
        return _same_words(mine, theirs)
    (a, b), (c, d) = sides
    try:
        return any(same_value(f"({a})-({b})", f"{sign}(({c})-({d}))") for sign in ("", "-")) or (
            same_value(a, c) and same_value(b, d)
        )
    except NotAFormula:
        return _same_words(mine, theirs)


def _same_words(mine: str, theirs: str) -> bool:
    return _spelled(mine) == _spelled(theirs) != ""


def _spelled(text: str) -> str:
    return re.sub(r"[\s{}\\]+", "", text).casefold()


def _plain(text: str) -> str:
    """Return an answer without what does not belong to its value: dollars, units, degrees."""
    text = text.translate(_TYPED).strip().strip("$").strip().rstrip(".").strip()
    text = _SPACED_THOUSANDS.sub("", text)
    if not set(text) & set("([{"):
        text = _THOUSANDS.sub("", text)
    text = _SPOKEN_UNIT.sub("", _UNIT.sub("", text))
    text = _MARKS.sub("", _TEXT.sub(r"\1", text))
    return " ".join(text.split()).rstrip(".,").strip()


def _without_label(mine: str, theirs: str) -> tuple[str, str]:
    """Drop "x =" where only one of two answers has it; two equations are compared as such."""
    if "=" in mine and "=" in theirs:
        return mine, theirs
    return _LABEL.sub("", mine), _LABEL.sub("", theirs)


def _matrix(text: str) -> list[str] | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in re.split(r"\\\\", match.group(2)) if row.strip()]
    return [f"{len(rows)}", *(cell for row in rows for cell in row.split("&"))]


def _set(text: str) -> list[str] | None:
    if text.startswith("\\{") and text.endswith("\\}"):
        return _split(text[2:-2])
    return None


def _pair(text: str) -> list[str] | None:
    """Return the brackets and the parts of a tuple or an interval."""
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    parts = _split(text[1:-1])
    return None if len(parts) < 2 else [_BRACKETS[text[0]], *parts, _BRACKETS[text[-1]]]


def _list(text: str) -> list[str] | None:
    if "\\pm" in text:
        return [text.replace("\\pm", sign) for sign in "+-"]
    parts = _split(re.sub(r",?\s*\b(?:and|or)\b\s*", ", ", text))
    return parts if len(parts) > 1 else None


def _split(text: str) -> list[str]:
    """Split at the commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in [*parts, text[start:]]]
