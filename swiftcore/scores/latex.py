"""The value of a formula as mathematicians write it, in LaTeX or plain text.

Nothing is simplified symbolically: a formula is evaluated, with fixed numbers in place of its
letters, so that two formulas that are equal agree and others do not. A formula from a model can
neither run code nor, by towers of powers, run for long.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(
    r"\s+|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<command>\\(?:[A-Za-z]+|.))|(?P<word>[A-Za-z])"
    r"|(?P<sign>\*\*|[-+*/^_!|(){}\[\]=,<>:;%°√π∞×÷·−])"
)
_MAX_CHARACTERS = 600
_MAX_EXPONENT = 100_000
_MAX_FACTORIAL = 2_000
_DIGITS = 40
_CONSTANTS = {"\\pi": "pi", "π": "pi", "\\infty": "inf", "∞": "inf"}
_FUNCTIONS = {
    "\\sin": "sin",
    "\\cos": "cos",
    "\\tan": "tan",
    "\\cot": "cot",
    "\\sec": "sec",
    "\\csc": "csc",
    "\\arcsin": "asin",
    "\\arccos": "acos",
    "\\arctan": "atan",
    "\\ln": "log",
    "\\exp": "exp",
}
_WORDS = re.compile(r"(?<![A-Za-z\\])(sqrt|pi|sin|cos|tan|cot|ln|log|exp|infty|frac)(?![a-z])")
# Letters side by side are a product; three and more are a word.
_NAME = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_TIMES = {"*", "×", "·", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "÷", "\\div"}
_SKIPPED = {"\\left", "\\right", "\\displaystyle", "\\,", "\\!", "\\;", "\\:", "\\ ", "\\quad"}
_SKIPPED |= {"\\big", "\\Big", "\\bigl", "\\bigr", "\\limits", "\\qquad"}
_FRACTIONS = {"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"}
_NO_ATOMS = {"\\rvert", "\\div", "\\cdot", "\\times", "\\ast", "\\circ", "\\pm", "\\mp"}
_OPENING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", "\\lvert": "\\rvert"}


class NotAFormula(ValueError):
    """A text is no formula that this module can evaluate."""


def evaluate(formula: str, trial: int = 0) -> Any:
    """Return the complex value of a formula, an mpmath number of 40 digits.

    Args:
        formula: LaTeX or plain text, without commas and equality signs.
        trial: which set of numbers stands for the letters.

    Raises:
        NotAFormula: it can't be read, has no finite value, or is too large to compute.
    """
    import mpmath

    if len(formula) > _MAX_CHARACTERS:
        raise NotAFormula("too long")
    with mpmath.workdps(_DIGITS):
        try:
            value = _Reader(_tokens(formula), trial).whole()
            value = mpmath.mpmathify(value)
        except (ZeroDivisionError, OverflowError, ValueError, TypeError, RecursionError) as err:
            raise NotAFormula(str(err)) from err
        if mpmath.isnan(value):
            raise NotAFormula("no value")
        return value


def same_value(first: str, second: str, trials: int = 3) -> bool:
    """Tell whether two formulas have one value, whatever numbers their letters stand for.

    Raises:
        NotAFormula: one of them is none.
    """
    import mpmath

    with mpmath.workdps(_DIGITS):
        for trial in range(trials):
            left, right = evaluate(first, trial), evaluate(second, trial)
            if mpmath.isinf(left) or mpmath.isinf(right):
                return bool(left == right)
            scale = max(abs(left), abs(right), mpmath.mpf(1))
            if abs(left - right) > scale * mpmath.mpf(10) ** -12:
                return False
    return True


def _tokens(formula: str) -> list[str]:
    formula = _WORDS.sub(lambda match: "\\" + match.group(), formula).replace("−", "-")
    if _NAME.search(formula):
        raise NotAFormula("words")
    tokens, position = [], 0
    while position < len(formula):
        match = _TOKEN.match(formula, position)
        if match is None:
            raise NotAFormula(f"unexpected {formula[position]!r}")
        position = match.end()
        if match.lastgroup and match.group() not in _SKIPPED:
            tokens.append(match.group())
    return tokens


class _Reader:
    """Evaluates tokens by recursive descent: sum, product, signed power, atom."""

    def __init__(self, tokens: list[str], trial: int) -> None:
        self._tokens = tokens
        self._place = 0
        self._trial = trial

    def whole(self) -> Any:
        value = self._sum()
        if self._place < len(self._tokens):
            raise NotAFormula(f"unexpected {self._tokens[self._place]!r}")
        return value

    @property
    def _next(self) -> str | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, expected: str | None = None) -> str:
        token = self._next
        if token is None or (expected is not None and token != expected):
            raise NotAFormula(f"found {token!r} for {expected!r}")
        self._place += 1
        return token

    def _sum(self) -> Any:
        value = self._product()
        while self._next in ("+", "-"):
            sign = self._take()
            term = self._product()
            value = value + term if sign == "+" else value - term
        return value

    def _product(self) -> Any:
        value = self._signed()
        while True:
            token = self._next
            if token in _TIMES:
                self._take()
                value = value * self._signed()
            elif token in _OVER:
                self._take()
                value = value / self._signed()
            elif token is not None and self._starts_atom(token):
                value = value * self._power()
            else:
                return value

    def _starts_atom(self, token: str) -> bool:
        return (
            token[0].isalnum()
            or token in _FRACTIONS
            or token in _CONSTANTS
            or token in _FUNCTIONS
            or token in ("(", "[", "{", "\\sqrt", "√", "\\log", "\\binom", "\\lvert")
            or (token.startswith("\\") and token[1:].isalpha() and token not in _NO_ATOMS)
        )

    def _signed(self) -> Any:
        if self._next == "-":
            self._take()
            return -self._signed()
        if self._next == "+":
            self._take()
            return self._signed()
        return self._power()

    def _power(self) -> Any:
        value = self._atom()
        while self._next in ("^", "**", "!", "%", "\\%", "°"):
            token = self._take()
            if token == "!":
                value = self._factorial(value)
            elif token in ("^", "**") and self._next == "\\circ":
                self._take()
            elif token in ("^", "**"):
                value = _raise(value, self._argument(signed=True))
        return value

    def _argument(self, *, signed: bool = False) -> Any:
        """Return what follows a command: a group in braces, or one token (`\\frac9{19}`)."""
        if self._next == "{":
            return self._group("{")
        if signed and self._next == "-":
            self._take()
            return -self._argument()
        token = self._next or ""
        if token[:1].isdigit() and len(token) > 1 and not signed:
            self._tokens[self._place : self._place + 1] = list(token)
        return self._atom()

    def _group(self, opening: str) -> Any:
        self._take(opening)
        value = self._sum()
        self._take(_OPENING[opening])
        return value

    def _atom(self) -> Any:
        import mpmath

        token = self._next
        if token is None:
            raise NotAFormula("it ends too early")
        if token[0].isdigit() or token[0] == ".":
            return self._number()
        if token in ("(", "[", "{"):
            return self._group(token)
        if token in ("|", "\\lvert"):
            return abs(self._group(token))
        self._take()
        if token in _FRACTIONS:
            above = self._argument()
            return above / self._argument()
        if token == "\\binom":
            above = self._argument()
            return mpmath.binomial(above, self._argument())
        if token in ("\\sqrt", "√"):
            return self._root()
        if token == "\\log":
            return self._logarithm()
        if token in _FUNCTIONS:
            return self._function(getattr(mpmath, _FUNCTIONS[token]))
        if token in _CONSTANTS:
            return +getattr(mpmath, _CONSTANTS[token])
        if token == "i":
            return mpmath.mpc(0, 1)
        if token == "e":
            return +mpmath.e
        if token.isalpha() or (token.startswith("\\") and token[1:].isalpha()):
            return self._letter(token)
        raise NotAFormula(f"unexpected {token!r}")

    def _number(self) -> Any:
        import mpmath

        value = mpmath.mpf(self._take())
        # A number straight before a fraction of numbers is a mixed number, not a product.
        if self._next in _FRACTIONS and self._is_number(self._place + 1):
            return value + self._atom()
        return value

    def _is_number(self, place: int) -> bool:
        """Tell whether a fraction's parts from here on are whole numbers."""
        parts = [token for token in self._tokens[place : place + 6] if token not in "{}"][:2]
        return bool(parts) and all(token.isdigit() for token in parts)

    def _root(self) -> Any:
        import mpmath

        if self._next == "[":
            degree = self._group("[")
            return mpmath.power(self._argument(), 1 / degree)
        return mpmath.sqrt(self._argument())

    def _logarithm(self) -> Any:
        import mpmath

        base: Any = 10
        if self._next == "_":
            self._take()
            base = self._argument()
        return self._function(mpmath.log) / mpmath.log(base)

    def _function(self, function: Callable[[Any], Any]) -> Any:
        power = None
        if self._next == "^":
            self._take()
            power = self._argument(signed=True)
        value = function(self._power())
        return value if power is None else _raise(value, power)

    def _letter(self, name: str) -> Any:
        """Return the number that stands for a letter, its subscript being part of its name."""
        import mpmath

        if self._next == "_":
            self._take()
            start = self._place
            self._argument()
            name += "_" + "".join(self._tokens[start : self._place]).strip("{}")
        digest = hashlib.sha256(f"{name} {self._trial}".encode()).digest()
        return mpmath.mpf(int.from_bytes(digest[:8], "big")) / 2**63 + mpmath.mpf(1) / 3

    def _factorial(self, value: Any) -> Any:
        import mpmath

        if abs(value) > _MAX_FACTORIAL:
            raise NotAFormula("too large a factorial")
        return mpmath.factorial(value)


def _raise(base: Any, exponent: Any) -> Any:
    import mpmath

    if abs(exponent) > _MAX_EXPONENT or abs(base) > mpmath.mpf(10) ** _MAX_EXPONENT:
        raise NotAFormula("too large a power")
    return mpmath.power(base, exponent)
