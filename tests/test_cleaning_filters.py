"""Length and language filters, and the detector behind the second."""

import re
from pathlib import Path

import pytest

from swiftcore.data.cleaning.filters import LanguageFilter, LengthFilter
from swiftcore.data.cleaning.language import UNDETERMINED, detect, known_languages
from swiftcore.errors import UsageError

UDHR = Path(__file__).parents[2] / "shared/data/pretrain/udhr_article1_all_languages.txt"

ENGLISH = "The weather was fine when we walked along the river this morning."
GERMAN = "Das Wetter war schön, und wir gingen heute Morgen am Fluss spazieren."
CHINESE = "今天早上我们沿着河边散步的时候天气很好。"

# Headings of the file for languages the model knows.
UDHR_CODES = {
    **{
        "Afrikaans": "af",
        "Albanian, Tosk": "sq",
        "Amharic": "am",
        "Armenian": "hy",
        "Basque": "eu",
    },
    **{
        "Belarusan": "be",
        "Bengali": "bn",
        "Breton": "br",
        "Bulgarian": "bg",
        "Catalan-Valencian-Balear": "ca",
    },
    **{"Czech": "cs", "Danish": "da", "English": "en", "Esperanto": "eo", "Estonian": "et"},
    **{"Finnish": "fi", "French": "fr", "Galician": "gl", "Georgian": "ka"},
    **{"Greek (monotonic)": "el", "Gujarati": "gu", "Hebrew": "he", "Hindi": "hi"},
    **{
        "Hungarian": "hu",
        "Icelandic": "is",
        "Italian": "it",
        "Kannada": "kn",
        "Khmer, Central": "km",
    },
    **{"Korean": "ko", "Lao": "lo", "Latvian": "lv", "Lithuanian": "lt"},
    **{"Luxembourgeois": "lb", "Malayalam": "ml", "Maltese": "mt", "Marathi": "mr", "Nepali": "ne"},
    **{
        "Polish": "pl",
        "Romanian (2006)": "ro",
        "Russian": "ru",
        "Slovak": "sk",
        "Slovenian": "sl",
        "Somali": "so",
    },
    **{"Spanish": "es", "Swedish": "sv", "Tamil": "ta", "Thai": "th", "Ukrainian": "uk"},
    **{"Urdu": "ur", "Vietnamese": "vi", "Welsh": "cy", "Xhosa": "xh", "Zulu": "zu"},
    # Relatives of one another, the hard ones.
    **{
        "Bosnian (Latin)": "bs",
        "Croatian": "hr",
        "Serbian (Latin)": "sr",
        "Serbian (Cyrillic)": "sr",
    },
    **{"Norwegian, Bokmål": "no", "Norwegian, Nynorsk": "nn", "Malay (Latin)": "ms"},
    **{"Indonesian": "id", "Portuguese (Portugal)": "pt", "Portuguese (Brazil)": "pt"},
    **{"German, Standard (1996)": "de", "Dutch": "nl", "Farsi, Western": "fa", "Turkish": "tr"},
    **{"Chinese, Mandarin (Simplified)": "zh", "Japanese": "ja", "Telugu": "te"},
    **{"Panjabi, Eastern": "pa", "Pashto, Northern": "ps", "Frisian, Western": "fy"},
    **{"Gaelic, Irish": "ga", "Macedonian": "mk", "Uzbek, Northern (Latin)": "uz"},
    **{"Arabic, Standard": "ar", "Azerbaijani, North (Latin)": "az", "Tagalog (Tagalog)": "tl"},
}


def row(*texts: str, system: str | None = None) -> dict[str, object]:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_characters": 11}, None),
        ({"min_characters": 12}, "the row has fewer than 12 characters"),
        ({"max_characters": 10}, "the row has more than 10 characters"),
        ({"min_words": 3}, "the row has fewer than 3 words"),
        ({"max_words": 1}, "the row has more than 1 words"),
        ({"min_turns": 1, "max_turns": 1}, None),
        ({"min_turns": 2}, "the row has fewer than 2 turns"),
        ({}, None),
    ],
)
def test_length_filter_says_which_limit_a_row_breaks(limits, reason):
    assert LengthFilter(**limits).reason(row("hello", "world")) == reason


def test_words_of_scripts_without_spaces_are_characters():
    assert LengthFilter(min_words=6).reason(row("你好世界吗")) == "the row has fewer than 6 words"
    assert LengthFilter(max_words=5).reason(row("你好世界吗")) is None


def test_impossible_limits_are_refused():
    with pytest.raises(UsageError, match="no row can pass"):
        LengthFilter(min_words=5, max_words=4)
    with pytest.raises(UsageError, match="negative"):
        LengthFilter(max_turns=-1)


@pytest.mark.parametrize(("text", "code"), [(ENGLISH, "en"), (GERMAN, "de"), (CHINESE, "zh")])
def test_language_is_detected_with_confidence(text, code):
    assert detect(text)[0] == code
    assert 0.5 < detect(text)[1] <= 1
    assert detect(text) == detect(text)


@pytest.mark.parametrize("text", ["", "ok", "42", "x = 1 + 2", "好的", "?!", "12345 67890 " * 20])
def test_too_little_text_is_undetermined(text):
    assert detect(text) == (UNDETERMINED, 0.0)


def test_language_filter_keeps_its_languages_and_what_is_too_short_to_tell():
    keep = LanguageFilter(("en", "zh"))
    assert keep.reason(row(ENGLISH)) is None
    assert keep.reason(row(CHINESE)) is None
    assert keep.reason(row(GERMAN)) == "the language is de, not en or zh"
    assert keep.reason(row("ok")) is None
    strict = LanguageFilter(("en",), keep_undetermined=False)
    assert strict.reason(row("ok")) == "the language can't be told"


def test_system_prompt_does_not_decide_the_language():
    mixed = row(GERMAN, GERMAN, system=" ".join([ENGLISH] * 10))
    assert LanguageFilter(("de",)).reason(mixed) is None


def test_unknown_language_is_refused():
    with pytest.raises(UsageError, match="names no language") as caught:
        LanguageFilter(("en", "english"))
    assert caught.value.found == "english"
    with pytest.raises(UsageError):
        LanguageFilter(())
    assert {"en", "zh", "de", "ja", "th"} <= known_languages()
    assert "zxx" not in known_languages()


def udhr_texts() -> dict[str, str]:
    text = UDHR.read_text(encoding="utf-8").split("------", 1)[1]
    blocks = [block.strip().split("\n", 1) for block in re.split(r"\n\s*\n", text)]
    return {block[0].strip(): block[1].strip() for block in blocks if len(block) == 2}


@pytest.mark.skipif(not UDHR.is_file(), reason="../shared/data is not here")
def test_language_of_article_one_in_eighty_languages():
    texts = udhr_texts()
    known = {name: code for name, code in UDHR_CODES.items() if name in texts}
    assert len(known) >= 70
    wrong = {
        name: detect(texts[name]) for name, code in known.items() if detect(texts[name])[0] != code
    }
    assert len(wrong) <= 0.06 * len(known), wrong
