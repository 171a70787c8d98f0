"""Errors keep their words on the way through pickles and JSON."""

import copy
import json
import pickle
from importlib import import_module

import pytest

from swiftcore.errors import SwiftError, from_dict

# Kinds that are no part of `swiftcore.errors` exist once their module is imported.
for module in ("backends.tool_failure", "data.documents.outcomes", "data.quarantine"):
    import_module(f"swiftcore.{module}")


def all_kinds(kind: type[SwiftError] = SwiftError) -> list[type[SwiftError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in all_kinds(child))]


KINDS = sorted(set(all_kinds()), key=lambda kind: kind.__name__)
FIELDS = ("message", "where", "found", "expected", "do")


def full(kind: type[SwiftError]) -> SwiftError:
    return kind("It broke.", where="a.py:3", found="x\ny", expected="z", do="mend it")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("bare", [False, True])
def test_error_is_picklable_and_keeps_its_fields(kind: type[SwiftError], bare: bool):
    error = kind("It broke.") if bare else full(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert [getattr(again, name) for name in FIELDS] == [getattr(error, n) for n in FIELDS]
        assert str(again) == str(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_survives_json(kind: type[SwiftError]):
    error = full(kind)
    again = from_dict(json.loads(json.dumps(error.as_dict())))
    assert type(again) is kind
    assert again.as_dict() == error.as_dict()


def test_error_of_an_unknown_kind_is_still_an_error():
    again = from_dict({"error": "FromTheFuture", "message": "new"})
    assert type(again) is SwiftError
    assert again.message == "new"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_exit_code_is_one_of_the_documented_ones(kind: type[SwiftError]):
    assert kind.exit_code in {1, 2, 3, 4, 5, 6, 130}


def test_block_names_where_found_expected_and_do():
    lines = str(full(SwiftError)).splitlines()
    assert lines[0] == "It broke."
    assert [line.strip().partition(":")[0] for line in lines[1:]] == [
        "where",
        "found",
        "y",
        "expected",
        "do",
    ]
