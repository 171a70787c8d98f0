"""One row through the normaliser, for tests that say what becomes of it."""

from swiftcore.data import normalize_rows


def kept(row: object, **options: object) -> dict:
    """Return the standard row of a row that has to be kept."""
    rows, quarantine = normalize_rows([row], **options)
    assert not quarantine, quarantine
    return rows[0]


def why_rejected(row: object, **options: object) -> str:
    """Return why a row is quarantined, which it has to be."""
    rows, quarantine = normalize_rows([row], **options)
    assert rows == []
    return quarantine[0].reason
