"""Secrets and personal data are found, masked or reported; look-alikes are left alone."""

import json
import pickle
import random
import string
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftcore.data.cleaning import checksums
from swiftcore.data.cleaning.privacy import (
    DETECTORS,
    KINDS,
    FindingCounts,
    PrivacyScanner,
    mask_text,
    scan_text,
)
from swiftcore.data.quarantine import RejectedRow
from swiftcore.errors import UsageError

PII_FILE = Path(__file__).parents[2] / "shared/data/embed/foundry_pii_classification.jsonl"


def noise(length: int, alphabet: str = string.ascii_letters + string.digits, seed: int = 7) -> str:
    """Made here, so that no key shape stands in the repository."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


HEX = "0123456789abcdef"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + noise(43)

FOUND = [
    ("PRIVATE_KEY", PEM.format("\n".join([noise(64)] * 5))),
    ("PRIVATE_KEY", PEM.format(noise(64) + "\\n" + noise(64)).replace("\n", "\\n")),
    ("PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----\n" + noise(64) + "\n" + noise(64)),
    ("AWS_KEY", "AKIA" + noise(16, string.ascii_uppercase + "234567")),
    ("GOOGLE_KEY", "AIza" + noise(35)),
    ("GITHUB_TOKEN", "ghp_" + noise(36)),
    ("GITHUB_TOKEN", "github_pat_" + noise(22) + "_" + noise(59)),
    ("GITLAB_TOKEN", "glpat-" + noise(20)),
    ("SLACK_TOKEN", "xoxb-" + noise(12, string.digits) + "-" + noise(24)),
    ("SLACK_TOKEN", "https://hooks.slack.com/services/T0AB12CD3/B0AB12CD3/" + noise(24)),
    ("OPENAI_KEY", "sk-" + noise(48)),
    ("OPENAI_KEY", "sk-proj-" + noise(60)),
    ("ANTHROPIC_KEY", "sk-ant-api03-" + noise(80)),
    ("HUGGINGFACE_TOKEN", "hf_" + noise(34)),
    ("STRIPE_KEY", "sk_live_" + noise(24)),
    ("SENDGRID_KEY", "SG." + noise(22) + "." + noise(43)),
    ("NPM_TOKEN", "npm_" + noise(36)),
    ("AZURE_KEY", "AccountKey=" + noise(86) + "=="),
    ("TELEGRAM_TOKEN", noise(9, "123456789") + ":AA" + noise(33)),
    ("JWT", JWT),
    ("URL_PASSWORD", "postgres://app:h4rd-2-guess@db.internal:5432/main"),
    ("SECRET", f'api_key = "{noise(32)}"'),
    ("SECRET", f'"client_secret": "{noise(40)}"'),
    ("SECRET", f"AUTH_TOKEN={noise(40, HEX)}"),
    ("SECRET", f"Authorization: Bearer {noise(40)}"),
    ("SECRET", "password = 'hunter2!'"),
    ("SECRET", "DB_PASSWORD=Tr0ub4dor&3"),
    ("EMAIL", "ann.lee+news@mail.example.co.uk"),
    ("EMAIL", "o'brien is b.obrien@uni-koeln.de"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("IBAN", "GB29NWBK60161331926819"),
    ("IBAN", "MT84MALT011000012345MTLCAST001S"),
    ("CREDIT_CARD", "4111 1111 1111 1111"),
    ("CREDIT_CARD", "5555555555554444"),
    ("CREDIT_CARD", "3782-822463-10005"),
    ("CN_ID", "11010519491231002X"),
    ("FR_NIR", "2 55 08 14 168 025 38"),
    ("CODICE_FISCALE", "RSSMRA85T10A562S"),
    ("CPF", "529.982.247-25"),
    ("US_SSN", "536-90-4399"),
    ("AADHAAR", "2341 2341 2346"),
    ("PHONE", "+49 (0)221 4710-123"),
    ("PHONE", "+1 415 555 2671"),
    ("PHONE", "+8613800138000"),
    ("PHONE", "(415) 555-2671"),
    ("PHONE", "415-555-2671"),
    ("PHONE", "138-0013-8000"),
    ("PHONE", "Tel.: 0221 4710123"),
    ("PHONE", "手机：13800138000"),
    ("IP_ADDRESS", "93.184.216.34"),
    ("IP_ADDRESS", "http://81.2.69.142/login"),
    ("IP_ADDRESS", "2a00:1450:4001:82a::200e"),
]

LOOK_ALIKES = [
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "md5 = 'd41d8cd98f00b204e9800998ecf8427e'",
    "token_id = 151643; max_tokens=4096; num_tokens: 1234567890123",
    "ISBN 978-3-16-148410-0, ISBN-10 0-306-40615-2, ISSN 2049-3630",
    "version 10.0.19041.1, numpy==2.4.6, v1.2.3.4, Chrome/114.0.0.0",
    "section 3.2.1.4 follows 3.2.1.3",
    "127.0.0.1:8080 and 0.0.0.0, 192.168.1.20, 10.0.0.7, 255.255.255.0, 224.0.0.1",
    "12:30:45 and 00:1A:2B:3C:4D:5E, std::vector<int>, a::b::c, ::1",
    "12345678 + 87654321 = 99999999; 3.14159265358979; 1,234,567,890",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "2 4 8 16 32 64 128 256 512 1024 2048 4096",
    "1234 5678 9012 3456 is no card, 4111111111111112 neither",
    "1700000000000 ms; 2024-01-15 10:30:00; 15/01/2024; 20240115103000",
    "DE00 1234 5678 9012 3456 78; ABCDEF12G34H567I",
    "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 2023-01-2345",
    "icon@2x.png, @app.route, user@localhost, git@github.com:org/repo.git, a@b",
    "-----BEGIN PRIVATE KEY----- is the first line of such a file, said the teacher",
    "password: str, password = input('password: '), password=os.environ['DB_PASSWORD']",
    'api_key="YOUR_API_KEY_1234567890", token = "<your-token-here-123>"',
    "api_key=settings.API_KEY_V2, token=self.tokenizer.encode_2, secret = mySecretValue2",
    "https://user:password@host/path, https://example.com:8080/a@b, http://[::1]:80/",
    "public_key = 'ssh-rsa', the key: value pairs, primary key = customer_number_17",
    "eyJub3QiOiJhIGp3dCJ9.eyJhIjoxfQ.signature-that-is-long-enough",
    "sk-learn, sk-SK locale, hf_hub, AKIA, ghp_short, xoxo-love",
    "her phone can hold 10800-2500 photos, call 911, phone 15 Pro",
    "24/7, tel 112, x = -1234567, +1234567, 1+2345678901",
    "The population is 331002651 and the GDP 21427700000000.",
    "\\frac{4532015112830367}{2} \\times 10^{12} \\approx 0.4532015112830367",
    "2x+4111111111111111y",
]


@pytest.mark.parametrize(("kind", "text"), FOUND, ids=lambda value: str(value)[:24])
def test_value_is_found_wherever_it_stands(kind: str, text: str) -> None:
    for frame in ("{}", "see {} now", "({})", "中文{}中文", "“{}”", "a\n{}\nb", "is {}."):
        assert [finding.kind for finding in scan_text(frame.format(text))] == [kind], frame


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=lambda text: text[:24])
def test_look_alike_is_left_alone(text: str) -> None:
    assert scan_text(text) == []
    assert mask_text(text) == text


def test_every_kind_has_a_case() -> None:
    untested = {
        *("TWILIO_KEY", "PYPI_TOKEN", "ALIBABA_KEY", "DATABRICKS_TOKEN", "DIGITALOCEAN_TOKEN"),
        *("GROQ_KEY", "XAI_KEY", "SHOPIFY_TOKEN", "AGE_KEY"),
    }
    assert set(KINDS) - {kind for kind, _ in FOUND} == untested


def test_masking_hides_all_of_the_value_and_nothing_else() -> None:
    text = f"Mail ann@example.org or pay to DE89370400440532013000, PAID. key={noise(9)}"
    assert mask_text(text) == f"Mail [EMAIL] or pay to [IBAN], PAID. key={noise(9)}"
    assert mask_text("BE68 5390 0754 7034 PAID BY ME") == "[IBAN] PAID BY ME"
    assert mask_text("ftp://joe:s3cr3t-word@files.example.org/x") == (
        "ftp://joe:[URL_PASSWORD]@files.example.org/x"
    )
    assert mask_text(f'{{"token": "{noise(32)}"}}') == '{"token": "[SECRET]"}'
    assert mask_text(PEM.format(noise(64))) == "[PRIVATE_KEY]"


def tool_row() -> dict[str, object]:
    arguments = {"to": "ann@example.org", "card": 4111111111111111, "note": "see\nb@example.org"}
    call = json.dumps({"name": "send", "arguments": arguments})
    return {
        "messages": [
            {"role": "system", "content": "You are ann@example.org's assistant."},
            {"role": "user", "content": "Send it."},
            {"role": "tool_call", "content": call},
            {"role": "tool_response", "content": '[{"ann@example.org": 1, "b@example.org": 2}]'},
            {"role": "assistant", "content": "Done.", "loss": True},
        ],
        "rejected_messages": [{"role": "assistant", "content": "To ann@example.org"}],
        "tools": '[{"name": "send", "description": "Mail root@example.org"}]',
        "images": [{"bytes": None, "path": "ann@example.org.png"}],
        "solution": "ann@example.org",
        "label": True,
        "margin": 0.5,
    }


def test_masking_reaches_every_text_of_a_row_and_keeps_json_json() -> None:
    scanned = PrivacyScanner("mask", "mask").scan(tool_row())
    messages = scanned.row["messages"]
    assert isinstance(messages, list)
    assert messages[0]["content"] == "You are [EMAIL]'s assistant."
    assert json.loads(messages[2]["content"])["arguments"] == {
        "to": "[EMAIL]",
        "card": "[CREDIT_CARD]",
        "note": "see\n[EMAIL]",
    }
    assert json.loads(messages[3]["content"]) == [{"[EMAIL]": 1, "[EMAIL] 2": 2}]
    assert messages[4] == {"role": "assistant", "content": "Done.", "loss": True}
    assert scanned.row["rejected_messages"] == [{"role": "assistant", "content": "To [EMAIL]"}]
    assert json.loads(str(scanned.row["tools"]))[0]["description"] == "Mail [EMAIL]"
    assert scanned.row["solution"] == "[EMAIL]"
    assert scanned.row["images"] == tool_row()["images"]
    assert scanned.reason is None
    assert {f.place for f in scanned.findings} >= {
        "messages[0].content",
        "messages[2].content.arguments.card",
        "tools[0].description",
    }


def test_findings_never_hold_the_value() -> None:
    row = tool_row()
    for scanner in (PrivacyScanner(), PrivacyScanner("mask", "mask"), PrivacyScanner("drop")):
        findings = scanner.scan(row).findings
        assert findings
        assert "example.org" not in repr(findings)
        assert "4111" not in repr(findings)


def test_warning_changes_nothing() -> None:
    row = tool_row()
    scanned = PrivacyScanner("warn", "warn").scan(row)
    assert scanned.row is row
    assert row == tool_row()
    assert len(scanned.findings) == 9


def test_secret_can_drop_where_personal_data_is_masked() -> None:
    scanner = PrivacyScanner(secrets="drop", personal="mask")
    key = "ghp_" + noise(36)
    row = {"messages": [{"role": "user", "content": f"{key} of ann@example.org"}]}
    scanned = scanner.scan(row)
    assert scanned.reason == "the row holds GITHUB_TOKEN"
    assert scanned.row == {"messages": [{"role": "user", "content": "[GITHUB_TOKEN] of [EMAIL]"}]}
    mixed = PrivacyScanner(secrets="mask", personal="warn").scan(row)
    assert mixed.reason is None
    assert mixed.row["messages"] == [
        {"role": "user", "content": "[GITHUB_TOKEN] of ann@example.org"}
    ]
    assert [f.kind for f in mixed.findings] == ["GITHUB_TOKEN", "EMAIL"]


def test_kinds_can_be_ignored_and_switched_off() -> None:
    row = {"messages": [{"role": "user", "content": "ann@example.org at 93.184.216.34"}]}
    kinds = [f.kind for f in PrivacyScanner(ignore=["IP_ADDRESS"]).scan(row).findings]
    assert kinds == ["EMAIL"]
    assert PrivacyScanner(personal="off").scan(row).findings == []


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="no such action"):
        PrivacyScanner(secrets="shout")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no such kind"):
        PrivacyScanner(ignore=["EMIAL"])


def test_repeated_key_in_json_hides_nothing() -> None:
    text = '{"a": "ann@example.org", "a": 1}'
    row = {"messages": [{"role": "tool_call", "content": text}]}
    scanned = PrivacyScanner("mask", "mask").scan(row)
    assert scanned.row["messages"] == [
        {"role": "tool_call", "content": '{"a": "[EMAIL]", "a": 1}'},
    ]


def test_value_behind_a_json_escape_is_found() -> None:
    row = {"messages": [{"role": "tool_call", "content": '{"a": "x\\u0040example.org"}'}]}
    assert PrivacyScanner("mask", "mask").scan(row).row["messages"] == [
        {"role": "tool_call", "content": '{"a": "[EMAIL]"}'}
    ]


def test_name_of_a_value_in_json_tells_what_it_is():
    arguments = {
        "password": "hunter2!",
        "api_key": noise(32),
        "phone_number": "0221 4710123",
        "phoneNumber": 13800138000,
        "phones": ["4155552671"],
        "monkey": noise(32),
        "token_count": 1234567890123,
        "query": "4155552671",
    }
    call = json.dumps({"name": "login", "arguments": arguments})
    row = {"messages": [{"role": "tool_call", "content": call}], "secret": noise(40)}
    scanned = PrivacyScanner("mask", "mask").scan(row)
    assert scanned.row["secret"] == "[SECRET]"
    messages = scanned.row["messages"]
    assert isinstance(messages, list)
    assert json.loads(messages[0]["content"])["arguments"] == arguments | {
        "password": "[SECRET]",
        "api_key": "[SECRET]",
        "phone_number": "[PHONE]",
        "phoneNumber": "[PHONE]",
    }


def test_deep_row_is_rejected_and_deep_json_text_is_searched_as_text() -> None:
    deep: object = "ann@example.org"
    for _ in range(200):
        deep = [deep]
    with pytest.raises(RejectedRow, match="nested deeper"):
        PrivacyScanner().scan({"messages": [], "solution": deep})
    row = {"messages": [{"role": "tool", "content": "[" * 5000 + '"ann@example.org"' + "]" * 5000}]}
    assert [f.kind for f in PrivacyScanner().scan(row).findings] == ["EMAIL"]


def test_scanner_can_be_sent_to_another_process_and_counts_merge() -> None:
    scanner = pickle.loads(pickle.dumps(PrivacyScanner("mask", "drop")))
    total, rest = FindingCounts(), FindingCounts()
    total.add(scanner.scan(tool_row()).findings)
    rest.add(scanner.scan(tool_row()).findings)
    total.merge(rest)
    assert total.rows["EMAIL"] == 2
    assert total.values["EMAIL"] == 16


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.sampled_from([text for _, text in FOUND]), st.text(max_size=80))
def test_masked_text_has_nothing_left_to_mask(before: str, value: str, after: str) -> None:
    masked = mask_text(f"{before} {value} {after}")
    assert mask_text(masked) == masked


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=10**8, max_value=10**11))
def test_check_digits_are_those_of_the_standards(number: int) -> None:
    digits = str(number)
    assert sum(checksums.luhn(digits + last) for last in string.digits) == 1
    first = "2" + f"{number:011d}"[:10]
    assert sum(checksums.aadhaar(first + last) for last in string.digits) == 1


HOSTILE = {
    "letters": "a" * 1_000_000,
    "digits": "1" * 1_000_000,
    "spaced digits": "1 " * 500_000,
    "grouped digits": "4111 1111 1111 1112 " * 50_000,
    "dotted": "1.1" * 333_333,
    "plus digits": "+1-" * 333_333,
    "hyphens": "a-" * 500_000,
    "at signs": "a@" * 500_000,
    "mail without end": "a@" + "b." * 499_999,
    "keys that begin": "-----BEGIN RSA PRIVATE KEY-----" * 32_000,
    "jwt that begins": "eyJ" * 333_333,
    "jwt with dots": ("eyJ" + "a" * 60 + ".") * 15_000,
    "urls": "ab://c:" * 140_000,
    "url password": "ab://" + "c:" * 499_000,
    "assignments": "token=" * 166_000,
    "names": "password" * 125_000,
    "quoted": "token='" * 140_000,
    "colons": "2a00:" * 200_000,
    "capitals": "AB12" * 250_000,
    "iban": "DE89 " * 200_000,
    "prefixes": "sk-ghp_hf_AKIAxoxb-" * 52_000,
    "phones": "tel " * 250_000,
    "bearer": "bearer " * 142_000,
    "opening": "(" * 1_000_000,
    "zeros": "00" + "1 " * 499_000,
}
WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world"]


def cpu_seconds(text: str) -> float:
    started = time.process_time()
    scan_text(text)
    return time.process_time() - started


@pytest.fixture(scope="module")
def hostile_seconds() -> dict[str, float]:
    """The time that 250,000 characters of each hostile text take; both tests below need it."""
    return {name: cpu_seconds(text[:250_000]) for name, text in HOSTILE.items()}


def test_no_text_makes_the_search_slow(hostile_seconds: dict[str, float]) -> None:
    prose = " ".join(random.Random(1).choices(WORDS, k=45_000))
    prose += " Mail ann@example.org, 93.184.216.34: token=1, tel. +1 415 555 2671, SK eyJ ://."
    plain = cpu_seconds(prose) / len(prose)
    slowest = {name: seconds / 250_000 / plain for name, seconds in hostile_seconds.items()}
    assert max(slowest.values()) < 60, slowest


def test_time_grows_with_length_and_not_faster(hostile_seconds: dict[str, float]) -> None:
    for name, text in HOSTILE.items():
        short = cpu_seconds(text[:31_250])
        assert hostile_seconds[name] < 8 * 4 * max(short, 0.002), name


def test_nothing_matches_an_empty_text() -> None:
    assert scan_text("") == []
    for detector in DETECTORS:
        assert detector.pattern.search("") is None


@pytest.mark.skipif(not PII_FILE.is_file(), reason="../shared/data is not here")
def test_business_texts_have_personal_data_only_where_annotators_saw_some() -> None:
    flagged = {0: 0, 1: 0}
    rows = [json.loads(line) for line in PII_FILE.read_text().splitlines()]
    for row in rows:
        flagged[row["gold"]] += bool(scan_text(row["query"]))
    # The annotators mark business secrets in prose, which no pattern finds; what matters here is
    # that texts they call harmless are left alone.
    harmless = sum(row["gold"] == 0 for row in rows)
    assert flagged[0] <= 0.02 * harmless
