"""The language of a text, by py3langid: an n-gram model in the package, the same answer each time.

Its languages are named by ISO 639 codes, of two letters where there is one. Close relatives
(Bosnian, Croatian and Serbian; Indonesian and Malay) are often taken for one another.
"""

import importlib.util
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from swiftcore.data.cleaning.text import UNSPACED
from swiftcore.errors import EnvironmentMissing

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNDETERMINED = "und"
# The model's own word for text that is in no language: code, figures, tables.
_NO_LANGUAGE = "zxx"
# The detector reads bytes one by one; this much is enough for its decision.
MAX_CHARACTERS = 600
MIN_EVIDENCE = 16

_LETTERS = re.compile(r"[^\W\d_]+")
_UNSPACED = re.compile(f"[{UNSPACED}]+")
# A character of a script without spaces says about as much as this many letters.
_UNSPACED_WEIGHT = 4


def detect(text: str) -> tuple[str, float]:
    """Return the language code of a text and the detector's confidence in it, from 0 to 1.

    The first 600 characters decide. A text with fewer than 16 letters (four characters of a
    script without spaces) is `("und", 0.0)`: anything else would be a guess. So is a text in which
    the model sees no language, such as figures or code.

    Raises:
        EnvironmentMissing: py3langid is not installed.

    Source: Lui and Baldwin 2012, "langid.py: An Off-the-shelf Language Identification Tool".
    """
    sample = text[:MAX_CHARACTERS]
    if _evidence(sample) < MIN_EVIDENCE:
        return UNDETERMINED, 0.0
    code, confidence = _identifier().classify(sample)
    if code == _NO_LANGUAGE:
        return UNDETERMINED, 0.0
    return str(code), round(float(confidence), 3)


def can_detect() -> bool:
    """Tell whether the detector is installed."""
    return importlib.util.find_spec("py3langid") is not None


def known_languages() -> frozenset[str]:
    """Return the codes that `detect` can answer."""
    return frozenset(_identifier().labels) - {_NO_LANGUAGE}


def _evidence(text: str) -> int:
    letters = sum(map(len, _LETTERS.findall(text)))
    if letters >= MIN_EVIDENCE or text.isascii():
        return letters
    return letters + (_UNSPACED_WEIGHT - 1) * sum(map(len, _UNSPACED.findall(text)))


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as err:
        raise EnvironmentMissing(
            "languages are told by the package py3langid, which is not installed",
            do="pip install 'swiftcore[clean]'",
        ) from err
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
