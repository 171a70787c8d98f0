"""Secrets: private keys, the key shapes of vendors, tokens, passwords in URLs and assignments.

Shapes of vendors' keys are those their documentation gives and secret scanners share (gitleaks,
GitHub secret scanning). A secret without a shape is found where it is assigned to a telling name,
when it looks random.
"""

import base64
import binascii
import json
import math
import re
from collections import Counter
from itertools import pairwise

from swiftcore.data.cleaning.detectors import Detector, first_group, whole_match

_PEM_BEGIN = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
# The body as a file has it, or with \n written out as JSON does; a key that breaks off counts too.
# Ends at the first character no PEM body has, so a dash of the END line or of another BEGIN.
_PEM_BODY = r"[A-Za-z0-9+/=\s\\,:.()]{8,20000}"
_PEM_END = r"(-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
_BASE_64_LINE = re.compile(r"[A-Za-z0-9+/=]{16,}")

# kind, hints, what a key looks like; letters and digits before or after it make it something else
_VENDOR_KEYS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("AWS_KEY", ("AKIA", "ASIA", "ABIA", "ACCA"), r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    ("GOOGLE_KEY", ("AIza",), r"AIza[A-Za-z0-9_-]{35}"),
    ("GOOGLE_KEY", ("GOCSPX-",), r"GOCSPX-[A-Za-z0-9_-]{28}"),
    ("GOOGLE_KEY", ("ya29.",), r"ya29\.[A-Za-z0-9_-]{30,400}"),
    ("GITHUB_TOKEN", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    ("GITHUB_TOKEN", ("github_pat_",), r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{40,80}"),
    ("GITLAB_TOKEN", ("glpat-",), r"glpat-[A-Za-z0-9_-]{20,64}"),
    ("SLACK_TOKEN", ("xox",), r"xox[abeprs]-[A-Za-z0-9-]{10,250}"),
    ("SLACK_TOKEN", ("xapp-",), r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-z0-9]{32,100}"),
    (
        "SLACK_TOKEN",
        ("hooks.slack.com",),
        r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{40,60}",
    ),
    ("ANTHROPIC_KEY", ("sk-ant-",), r"sk-ant-[A-Za-z0-9_-]{24,200}"),
    ("OPENAI_KEY", ("sk-",), r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{40,200}"),
    ("OPENAI_KEY", ("sk-",), r"sk-[A-Za-z0-9]{32,64}"),
    ("HUGGINGFACE_TOKEN", ("hf_",), r"hf_[A-Za-z0-9]{34,40}"),
    ("STRIPE_KEY", ("_live_", "_test_"), r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,247}"),
    ("STRIPE_KEY", ("whsec_",), r"whsec_[A-Za-z0-9+/]{32,64}"),
    ("SENDGRID_KEY", ("SG.",), r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("TWILIO_KEY", ("SK",), r"SK[0-9a-f]{32}"),
    ("NPM_TOKEN", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    ("PYPI_TOKEN", ("pypi-",), r"pypi-AgEI[A-Za-z0-9_-]{50,400}"),
    ("AZURE_KEY", ("AccountKey=",), r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    ("AZURE_KEY", ("SharedAccessKey=",), r"SharedAccessKey=([A-Za-z0-9+/]{43}=)"),
    ("TELEGRAM_TOKEN", (":AA",), r"\d{8,10}:AA[A-Za-z0-9_-]{33}"),
    ("ALIBABA_KEY", ("LTAI",), r"LTAI[A-Za-z0-9]{12,26}"),
    ("DATABRICKS_TOKEN", ("dapi",), r"dapi[0-9a-f]{32}"),
    ("DIGITALOCEAN_TOKEN", ("_v1_",), r"do[opr]_v1_[0-9a-f]{64}"),
    ("GROQ_KEY", ("gsk_",), r"gsk_[A-Za-z0-9]{48,60}"),
    ("XAI_KEY", ("xai-",), r"xai-[A-Za-z0-9]{60,100}"),
    ("SHOPIFY_TOKEN", ("shp",), r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("AGE_KEY", ("AGE-SECRET-KEY-1",), r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
)

_NAME = (
    r"(?:api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|auth[_-]?key|signing[_-]?key"
    r"|encryption[_-]?key|account[_-]?key|master[_-]?key|secret|token|passwd|password|passphrase"
    r"|pwd|credential)"
)
# The value is found first and the name before it then: `=` and `:` are rarer than the names.
_NAME_BEFORE = re.compile(
    rf"({_NAME}[\w-]{{0,30}})[\"'`\]]{{0,2}}[ \t]{{0,4}}$", re.IGNORECASE | re.ASCII
)
_MAX_NAME = 80
_ASSIGNED = re.compile(
    r"[:=][=>]?[ \t]{0,4}[rbfu]{0,2}([\"'`]?)([^\s\"'`,;<>()\[\]{}]{6,300})", re.ASCII
)
_NAME_HINTS = ("key", "secret", "token", "passw", "passphrase", "pwd", "credential")
_HARMLESS_NAME = re.compile(
    r"(?:hash|id|ids|type|name|count|length|len|size|limit|url|uri|path|file|expiry|expires|at|s"
    r"|index|format|class|policy|field|prompt)$",
    re.IGNORECASE,
)
_PASSWORD_NAME = re.compile(r"passw|passphrase|pwd", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"(?i:your|placeholder|change_?me|dummy|redacted|x{4,}|insert|todo|replace|\*{3}|\.\.\.|\$\{"
    r"|\{\{|%\()|example|Example|^(?:\$|%|@)"
)
_ATTRIBUTE_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
_BEARER = re.compile(r"\bbearer[ ]{1,3}([A-Za-z0-9._~+/-]{20,1000}={0,2})", re.IGNORECASE)
_URL_PASSWORD = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://"
    r"[^\s/:@'\"<>]{0,100}:([^\s/@'\"<>]{1,200})@[A-Za-z0-9\[]",
    re.ASCII,
)
_DULL_PASSWORDS = {"pass", "password", "passwd", "pwd", "pw", "secret", "user", "token", "port"}
_JWT = re.compile(
    r"(?<![\w.-])(eyJ[A-Za-z0-9_-]{8,2000})\.eyJ[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{16,1000}",
    re.ASCII,
)

_MIN_TOKEN_LENGTH = 16
_MIN_PASSWORD_LENGTH = 6
_MIN_BITS_PER_CHARACTER = 3.0
# Random base62 or hex changes between capital, small letter and digit at 40-65 % of its places,
# identifiers in camelCase or snake_case below that, and they seldom have a digit.
_MIN_CHANGES = 0.35


def looks_random(value: str) -> bool:
    """Tell whether a value looks drawn at random: long, mixed, and high in entropy."""
    if len(value) < _MIN_TOKEN_LENGTH or not any(char.isdigit() for char in value):
        return False
    counts = Counter(value)
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    changes = sum(_class_of(a) != _class_of(b) for a, b in pairwise(value))
    return bits >= _MIN_BITS_PER_CHARACTER and changes / (len(value) - 1) >= _MIN_CHANGES


def _class_of(char: str) -> int:
    if char.isdigit():
        return 0
    if char.isalpha():
        return 1 if char.islower() else 2
    return 3


def _pem(match: re.Match[str]) -> tuple[int, int] | None:
    lines = list(_BASE_64_LINE.finditer(match[1]))
    if not lines:
        return None  # prose about keys
    end = match.end() if match[2] else match.start(1) + lines[-1].end()
    return match.start(), end


def _jwt(match: re.Match[str]) -> tuple[int, int] | None:
    header = match[1]
    try:
        decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return match.span() if isinstance(decoded, dict) and "alg" in decoded else None


def _url_password(match: re.Match[str]) -> tuple[int, int] | None:
    value = match[1]
    if value.lower() in _DULL_PASSWORDS or _PLACEHOLDER.search(value) or value[0] in "<{[":
        return None
    return match.span(1)


def _assigned(match: re.Match[str]) -> tuple[int, int] | None:
    quote, value = match.groups()
    if value.isalpha():
        return None
    named = _NAME_BEFORE.search(match.string[max(match.start() - _MAX_NAME, 0) : match.start()])
    if named is None or _HARMLESS_NAME.search(named[1]) or _PLACEHOLDER.search(value):
        return None
    if not quote and _ATTRIBUTE_PATH.fullmatch(value):
        return None
    is_password = _PASSWORD_NAME.search(named[1]) and _is_password(value, bool(quote))
    return match.span(2) if is_password or looks_random(value) else None


def _is_password(value: str, quoted: bool) -> bool:
    kinds = {_class_of(char) for char in value}
    has_digit = 0 in kinds
    if value.lower() in _DULL_PASSWORDS or not (has_digit or 3 in kinds) or kinds <= {0}:
        return False
    return len(value) >= _MIN_PASSWORD_LENGTH and len(kinds) >= (2 if quoted and has_digit else 3)


def _bearer(match: re.Match[str]) -> tuple[int, int] | None:
    return match.span(1) if looks_random(match[1]) else None


def _vendor_key(kind: str, hints: tuple[str, ...], shape: str) -> Detector:
    pattern = re.compile(rf"(?<![A-Za-z0-9_-]){shape}(?![A-Za-z0-9])", re.ASCII)
    return Detector(kind, "secret", pattern, hints, first_group if pattern.groups else whole_match)


SECRETS: tuple[Detector, ...] = (
    Detector(
        "PRIVATE_KEY",
        "secret",
        re.compile(f"{_PEM_BEGIN}({_PEM_BODY}){_PEM_END}"),
        ("PRIVATE KEY",),
        _pem,
    ),
    *(_vendor_key(*row) for row in _VENDOR_KEYS),
    Detector("JWT", "secret", _JWT, ("eyJ",), _jwt),
    Detector("URL_PASSWORD", "secret", _URL_PASSWORD, ("://",), _url_password),
    Detector("SECRET", "secret", _BEARER, ("bearer",), _bearer, ignore_case=True),
    Detector("SECRET", "secret", _ASSIGNED, _NAME_HINTS, _assigned, ignore_case=True),
)
