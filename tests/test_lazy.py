"""Names that packages import late: type checkers and the running program see the same ones."""

import ast
from pathlib import Path

import pytest

import swiftcore
from swiftcore.lazy import late_names
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
