"""The 25 kinds of verifiable instructions of IFEval, each a check of a text.

Source: Zhou et al., "Instruction-Following Evaluation for Large Language Models", 2023, whose
definitions these are. Two aids differ from the paper's program: sentences are split here by a rule
instead of NLTK's model, and languages are told by py3langid instead of langdetect.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from swiftcore.data.cleaning.language import UNDETERMINED, detect

Check = Callable[[str, Mapping[str, Any]], bool]

_ABBREVIATIONS = re.compile(
    r"\b(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|jr|sr|inc|ltd|no|fig|al|[A-Z])\.", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"')\]”’*]*(?=\s|$)|[。！？]")
_LIST_NUMBER = re.compile(r"^\s*\d+[.)]\s+", re.MULTILINE)
_CONSTRAINED = ("my answer is yes.", "my answer is no.", "my answer is maybe.")
_BULLET = re.compile(r"^\s*(?:\*(?!\*)|-(?!-))\s*\S.*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<!\*)\*(?!\*)([^\n*]+)\*(?!\*)|\*\*([^\n*]+)\*\*")
_PLACEHOLDER = re.compile(r"\[[^\]\n]+\]")
_TITLE = re.compile(r"<<([^\n<>]+)>>")
_FENCE = re.compile(r"\A```(?:json)?\s*|\s*```\Z", re.IGNORECASE)


def follows(instruction: str, text: str, settings: Mapping[str, Any]) -> bool:
    """Tell whether a text follows an instruction; an empty text follows none.

    Raises:
        KeyError: there is no such instruction, or a setting that it needs is missing.
    """
    return bool(text.strip()) and CHECKS[instruction](text, settings)


def count_sentences(text: str) -> int:
    """Return the number of sentences of a text."""
    text = _LIST_NUMBER.sub("", text)
    text = _ABBREVIATIONS.sub(lambda match: match.group().replace(".", ""), text)
    parts = [part for part in _SENTENCE_END.split(text) if re.search(r"\w", part)]
    return len(parts)


def count_words(text: str) -> int:
    """Return the number of words of a text."""
    return len(re.findall(r"\w+", text))


def _holds(count: int, relation: str | None, wanted: int) -> bool:
    if relation == "less than":
        return count < wanted
    if relation in ("at least", None):
        return count >= wanted
    raise KeyError(f"relation {relation!r}")


def _keywords_exist(text: str, settings: Mapping[str, Any]) -> bool:
    return all(_times(keyword, text) for keyword in settings["keywords"])


def _keyword_frequency(text: str, settings: Mapping[str, Any]) -> bool:
    found = _times(settings["keyword"], text)
    return _holds(found, settings["relation"], settings["frequency"])


def _times(keyword: str, text: str) -> int:
    return len(re.findall(re.escape(keyword.strip()), text, re.IGNORECASE))


def _forbidden_words(text: str, settings: Mapping[str, Any]) -> bool:
    words = settings["forbidden_words"]
    return not any(re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE) for w in words)


def _letter_frequency(text: str, settings: Mapping[str, Any]) -> bool:
    count = text.casefold().count(settings["letter"].casefold())
    return _holds(count, settings["let_relation"], settings["let_frequency"])


def _language(text: str, settings: Mapping[str, Any]) -> bool:
    return _is_language(text, settings["language"])


def _is_language(text: str, code: str) -> bool:
    """Tell whether a text is in a language; one too short to tell is believed."""
    return detect(text)[0] in (code.partition("-")[0], UNDETERMINED)


def _number_sentences(text: str, settings: Mapping[str, Any]) -> bool:
    return _holds(count_sentences(text), settings["relation"], settings["num_sentences"])


def _number_words(text: str, settings: Mapping[str, Any]) -> bool:
    return _holds(count_words(text), settings["relation"], settings["num_words"])


def _number_paragraphs(text: str, settings: Mapping[str, Any]) -> bool:
    """Count the paragraphs between `***`; none may be empty, but for the first and the last."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = [part for i, part in enumerate(parts) if part.strip() or 0 < i < len(parts) - 1]
    return all(part.strip() for part in inner) and len(inner) == settings["num_paragraphs"]


def _nth_paragraph_first_word(text: str, settings: Mapping[str, Any]) -> bool:
    paragraphs = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    place = settings["nth_paragraph"]
    if len(paragraphs) != settings["num_paragraphs"] or not 1 <= place <= len(paragraphs):
        return False
    word = re.match(r"[\"'“‘]*([^\s.,?!'\"]*)", paragraphs[place - 1])
    return bool(word) and word.group(1).casefold() == settings["first_word"].casefold()


def _placeholders(text: str, settings: Mapping[str, Any]) -> bool:
    return len(_PLACEHOLDER.findall(text)) >= settings["num_placeholders"]


def _postscript(text: str, settings: Mapping[str, Any]) -> bool:
    marker = settings["postscript_marker"]
    letters = [re.escape(letter) for letter in re.sub(r"[.\s]", "", marker)]
    return re.search(r"^\s*" + r"\.?\s?".join(letters) + r"\.?", text, re.M | re.I) is not None


def _bullets(text: str, settings: Mapping[str, Any]) -> bool:
    return len(_BULLET.findall(text)) == settings["num_bullets"]


def _constrained(text: str, settings: Mapping[str, Any]) -> bool:
    return any(choice in text.strip().casefold() for choice in _CONSTRAINED)


def _highlights(text: str, settings: Mapping[str, Any]) -> bool:
    found = [match for match in _HIGHLIGHT.finditer(text) if "".join(match.groups("")).strip()]
    return len(found) >= settings["num_highlights"]


def _sections(text: str, settings: Mapping[str, Any]) -> bool:
    mark = re.escape(settings["section_spliter"].strip())
    return len(re.findall(rf"\s?{mark}\s?\d+\s?", text)) >= settings["num_sections"]


def _json_format(text: str, settings: Mapping[str, Any]) -> bool:
    try:
        json.loads(_FENCE.sub("", text.strip()))
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, settings: Mapping[str, Any]) -> bool:
    return any(found.strip() for found in _TITLE.findall(text))


def _two_responses(text: str, settings: Mapping[str, Any]) -> bool:
    parts = text.split("******")
    kept = [part.strip() for i, part in enumerate(parts) if part.strip() or 0 < i < len(parts) - 1]
    return len(kept) == 2 and all(kept) and kept[0] != kept[1]


def _repeats_prompt(text: str, settings: Mapping[str, Any]) -> bool:
    wanted = settings["prompt_to_repeat"].strip().casefold()
    return text.strip().casefold().startswith(wanted)


def _ends_with(text: str, settings: Mapping[str, Any]) -> bool:
    return text.strip().strip('"').casefold().endswith(settings["end_phrase"].strip().casefold())


def _quoted(text: str, settings: Mapping[str, Any]) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == '"' and text[-1] == '"'


def _capital_words(text: str, settings: Mapping[str, Any]) -> bool:
    count = sum(word.isupper() for word in re.findall(r"[\w'’-]+", text))
    return _holds(count, settings["capital_relation"], settings["capital_frequency"])


def _all_capital(text: str, settings: Mapping[str, Any]) -> bool:
    return text.isupper() and _is_language(text.lower(), "en")


def _all_lowercase(text: str, settings: Mapping[str, Any]) -> bool:
    return text.islower() and _is_language(text, "en")


def _no_comma(text: str, settings: Mapping[str, Any]) -> bool:
    return "," not in text


CHECKS: dict[str, Check] = {
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _all_capital,
    "change_case:english_lowercase": _all_lowercase,
    "combination:repeat_prompt": _repeats_prompt,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:json_format": _json_format,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": _title,
    "keywords:existence": _keywords_exist,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:frequency": _keyword_frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_words": _number_words,
    "punctuation:no_comma": _no_comma,
    "startend:end_checker": _ends_with,
    "startend:quotation": _quoted,
}
