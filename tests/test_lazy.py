"""Names that packages import late: type checkers and the running program see the same ones."""

import ast
import gc
import importlib
import sys
from pathlib import Path

import pytest

import swiftcore
from swiftcore.lazy import import_without, late_names, uncollected
from tests.making import REPO

PACKAGES = sorted(
    path for path in (REPO / "swiftcore").rglob("__init__.py") if "late_names(" in path.read_text()
)


def _typed_names(tree: ast.Module, package: str) -> dict[str, str]:
    """Return the names that only type checkers import, with their modules below the package."""
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {
        alias.name: (node.module or "").removeprefix(f"{package}.")
        for node in imports
        for alias in node.names
    }


def _late_names(tree: ast.Module) -> dict[str, str]:
    calls = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__getattr__"
    ]
    assert len(calls) == 1
    assert isinstance(calls[0], ast.Call)
    modules = ast.literal_eval(calls[0].args[1])
    return {name: module for module, names in modules.items() for name in names}


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_late_names_are_those_that_type_checkers_see(path: Path):
    tree = ast.parse(path.read_text())
    package = ".".join(path.parent.relative_to(REPO).parts)
    late = _late_names(tree)
    assert late == _typed_names(tree, package)
    for module in set(late.values()):
        place = REPO / "swiftcore" / package.removeprefix("swiftcore").strip(".").replace(".", "/")
        found = place / module.replace(".", "/")
        assert found.with_suffix(".py").is_file() or (found / "__init__.py").is_file()


def test_a_name_is_found_and_an_unknown_one_is_an_attribute_error():
    assert swiftcore.DatasetFormat("code") == "code"
    with pytest.raises(AttributeError, match="module 'swiftcore' has no attribute 'Nothing'"):
        _ = swiftcore.Nothing  # pyright: ignore[reportAttributeAccessIssue]
    find = late_names("swiftcore", {"errors": ["SwiftError"]})
    assert find("SwiftError").__module__ == "swiftcore.errors"


def test_a_package_seems_absent_during_an_import_and_is_there_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wanted_by_few.py").write_text("")
    (tmp_path / "asks_for_all.py").write_text(
        "from importlib.util import find_spec\n"
        "found = find_spec('wanted_by_few') is not None, find_spec('json') is not None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import_without("asks_for_all", ["wanted_by_few", "json"])
    # json was imported before, and what is there already stays.
    assert sys.modules.pop("asks_for_all").found == (False, True)
    assert importlib.import_module("wanted_by_few") is sys.modules.pop("wanted_by_few")
    with pytest.raises(ModuleNotFoundError):
        import_without("no_such_module", ["wanted_by_few"])
    assert "wanted_by_few" not in sys.modules


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_inside_and_what_was_made_there_is_left_alone_afterwards(
    enabled: bool,
) -> None:
    gc.unfreeze()
    if not enabled:
        gc.disable()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.enable()
