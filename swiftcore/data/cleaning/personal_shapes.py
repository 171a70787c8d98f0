"""Personal data: addresses, telephone numbers, and numbers of people that carry check digits.

Precision comes before recall: a number counts when its check digits, its grouping or the words
before it say what it is. Names and postal addresses are not sought; no pattern finds them.
"""

import ipaddress
import re

from swiftcore.data.cleaning import checksums
from swiftcore.data.cleaning.detectors import Detector

# Length of national numbers after a calling code; other codes: 7 to 12 digits.
_NATIONAL_DIGITS = {
    **{"1": (10, 10), "7": (10, 10), "20": (8, 10), "27": (9, 9), "31": (9, 9), "32": (8, 9)},
    **{"33": (9, 9), "34": (9, 9), "39": (6, 11), "41": (9, 9), "44": (9, 10), "45": (8, 8)},
    **{"46": (7, 10), "47": (8, 8), "48": (9, 9), "49": (6, 12), "52": (10, 10), "55": (10, 11)},
    **{"61": (9, 9), "64": (8, 10), "65": (8, 8), "81": (9, 10), "82": (8, 10), "86": (9, 11)},
    **{"90": (10, 10), "91": (10, 10), "351": (9, 9), "852": (8, 8), "971": (8, 9)},
}
_CALLING_CODE = re.compile(
    r"[17]|20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|(?:2[1-69]|3[578]|42|5[09]|6[789]|8[0578]|9[679])\d"
)
_FILE_ENDING = re.compile(
    r"png|jpe?g|gif|svg|webp|bmp|ico|css|js|ts|py|md|txt|json|html?|xml|ya?ml|so|dll|exe|zip|gz"
    r"|tar|local",
    re.IGNORECASE,
)
_SERVICE_NAMES = frozenset({"git", "noreply", "no-reply"})

_EMAIL = re.compile(
    r"[A-Za-z0-9](?<![\w.+%-].)[\w.+%-]{0,63}@((?:[A-Za-z0-9-]{1,63}\.){1,6}([A-Za-z]{2,24}))(?![\w@-])",
    re.ASCII,
)
_INTERNATIONAL = re.compile(
    r"[+0](?<![\w+.].)(?:(?<=\+)|0(?=[1-9]\d{0,2}[ .-]))[ ]?"
    r"\(?[1-9](?:[ .()/-]{0,3}\d){7,14}(?!\w)",
    re.ASCII,
)
_NORTH_AMERICAN = re.compile(
    r"[(2-9](?<![\w.+/-].)(?<!\d .)(?:(?<=\()[2-9]\d{2}\)[ .-]{0,2}|(?<=\d)\d{2}([.-]))"
    r"[2-9]\d{2}[ .-]\d{4}(?![\w/-])(?!\.\d)",
    re.ASCII,
)
_NAMED_NUMBER = re.compile(
    r"(?:(?<![A-Za-z])(?:tel|phone|telephone|mobile|cell|cellphone|fax|whatsapp|telefon|teléfono"
    r"|téléphone)(?:[ _-]?(?:number|num|no|nr))?(?![A-Za-z])|电话|手机|手機|電話|联系方式)"
    r"(?:[ \t:：.#=\"'(]|is|at|是|为|号码|号){0,6}"
    r"(\+?\(?\d(?:[ .()/-]{0,2}\d){6,13})(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_PHONE_WORDS = ("téléphone", "teléfono", "电话", "手机", "手機", "電話", "联系方式")
_DATE = re.compile(r"(?:19|20)\d{2}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d{2}")
_CHINESE_MOBILE = re.compile(r"1(?<![\w.+/-]1)[3-9]\d([ -])\d{4}\1\d{4}(?![\w/-])", re.ASCII)

_CARD = re.compile(
    r"\d(?<![\w.+-].)(?:\d{12,18}|\d{3}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{3}([ -])\d{6}\2\d{4,5})"
    r"(?![\w-])(?!\.\d)",
    re.ASCII,
)
_IBAN = re.compile(
    r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_SSN = re.compile(
    r"[0-8](?<![\w.+-].)\d{2}(?<!000)(?<!666)-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])(?!\.\d)", re.ASCII
)
_CHINESE_ID = re.compile(r"[1-9](?<![\w.].)\d{16}[\dXx](?!\w)(?!\.\d)", re.ASCII)
_CPF = re.compile(r"\d(?<![\w.-].)\d{2}\.\d{3}\.\d{3}-\d{2}(?![\w-])", re.ASCII)
_CODICE_FISCALE = re.compile(
    r"[A-Z](?<![A-Za-z0-9].)[A-Z]{5}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?![A-Za-z0-9])"
)
_FRENCH_NIR = re.compile(
    r"[12](?<![\w.].)[ ]?\d{2}[ ]?\d{2}[ ]?\d{2}[ ]?\d{3}[ ]?\d{3}[ ]?\d{2}(?!\w)", re.ASCII
)
_AADHAAR = re.compile(
    r"[2-9](?<![\w.-].)(?<!\d .)\d{3}([ -])\d{4}\1\d{4}(?![\w-])(?! \d)", re.ASCII
)

_IP_4 = re.compile(r"\d(?<![\w.-].)\d{0,2}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-])(?!\.\d)", re.ASCII)
_IP_6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])", re.ASCII)
_VERSION_BEFORE = re.compile(r"(?:\bv|version|release|build|section|chapter|§|/)[ :=]{0,2}$", re.I)
_DOCUMENTATION = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)


def _digits_of(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _email(match: re.Match[str]) -> tuple[int, int] | None:
    local = match[0][: match[0].index("@")]
    if _FILE_ENDING.fullmatch(match[2]) or local.lower() in _SERVICE_NAMES or ".." in match[0]:
        return None
    return match.span()


def _international(match: re.Match[str]) -> tuple[int, int] | None:
    digits = _digits_of(match[0]).removeprefix("00")
    found = _CALLING_CODE.match(digits)
    if found is None:
        return None
    code = found[0]
    fewest, most = _NATIONAL_DIGITS.get(code, (7, 12))
    national = digits.removeprefix(code)
    if code in ("44", "49", "39", "31", "33", "41", "61") and "(0)" in match[0]:
        national = national.removeprefix("0")
    if not fewest <= len(national) <= most or (code == "1" and national[0] in "01"):
        return None
    return match.span()


def _named_number(match: re.Match[str]) -> tuple[int, int] | None:
    return None if _DATE.match(match[1]) else match.span(1)


def _card(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if checksums.card_number(_digits_of(match[0])) else None


def _iban(match: re.Match[str]) -> tuple[int, int] | None:
    """Accept an IBAN; a word in capitals after it may be part of the match, not of the IBAN."""
    length, end = checksums.IBAN_LENGTHS.get(match[0][:2], 0), 0
    for place, char in enumerate(match[0]):
        length -= char != " "
        if length == 0:
            end = place + 1
            break
    value = match[0][:end]
    follows = match[0][end : end + 1]
    if not end or follows not in ("", " ") or not checksums.iban(value.replace(" ", "")):
        return None
    return match.start(), match.start() + end


def _chinese_id(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if checksums.chinese_id(match[0]) else None


def _cpf(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if checksums.cpf(_digits_of(match[0])) else None


def _codice_fiscale(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if checksums.codice_fiscale(match[0]) else None


def _french_nir(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if checksums.french_nir(_digits_of(match[0])) else None


def _aadhaar(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if checksums.aadhaar(_digits_of(match[0])) else None


def _ip_4(match: re.Match[str]) -> tuple[int, int] | None:
    before = match.string[max(match.start() - 12, 0) : match.start()]
    octets = match[0].split(".")
    if _VERSION_BEFORE.search(before) and not before.endswith("//"):
        return None
    if all(len(octet) == 1 for octet in octets):
        return None  # 1.2.3.4 is a version or a heading far more often than an address
    return match.span() if _points_at_someone(match[0]) else None


def _ip_6(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span() if _points_at_someone(match[0]) else None


def _points_at_someone(text: str) -> bool:
    """Tell whether an address could be a person's: no private, loopback or multicast one.

    Addresses set aside for documentation count: they look as real ones do.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_multicast or (address.version == 4 and int(address) >> 24 in (0, 255)):
        return False
    return address.is_global or any(
        address in network for network in _DOCUMENTATION if network.version == address.version
    )


PERSONAL: tuple[Detector, ...] = (
    Detector("EMAIL", "personal", _EMAIL, ("@",), _email),
    Detector("IBAN", "personal", _IBAN, accept=_iban, numeric=True),
    Detector("CREDIT_CARD", "personal", _CARD, accept=_card, numeric=True),
    Detector("CN_ID", "personal", _CHINESE_ID, accept=_chinese_id, numeric=True),
    Detector("FR_NIR", "personal", _FRENCH_NIR, accept=_french_nir, numeric=True),
    Detector("CODICE_FISCALE", "personal", _CODICE_FISCALE, accept=_codice_fiscale),
    Detector("CPF", "personal", _CPF, accept=_cpf, numeric=True),
    Detector("US_SSN", "personal", _SSN, numeric=True),
    Detector("AADHAAR", "personal", _AADHAAR, accept=_aadhaar, numeric=True),
    Detector("PHONE", "personal", _INTERNATIONAL, accept=_international, numeric=True),
    Detector("PHONE", "personal", _NORTH_AMERICAN, numeric=True),
    Detector("PHONE", "personal", _CHINESE_MOBILE, numeric=True),
    Detector(
        "PHONE",
        "personal",
        _NAMED_NUMBER,
        ("tel", "phone", "mobile", "cell", "fax", "whatsapp", *_PHONE_WORDS),
        _named_number,
        ignore_case=True,
        numeric=True,
    ),
    Detector("IP_ADDRESS", "personal", _IP_4, (".",), _ip_4),
    Detector("IP_ADDRESS", "personal", _IP_6, (":",), _ip_6),
)
