"""Pieces that commands share: parsers that raise our errors, and the recipe and store options."""

import argparse
import json
from pathlib import Path
from typing import Any, NoReturn

from swiftcore.artifacts import Store
from swiftcore.errors import UsageError
from swiftcore.recipe import LoadedRecipe, Runtime, load_recipe

DEFAULT_RECIPE = Path("recipes/demo.yaml")


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations whose errors are blocks like all others."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and exiting."""
        raise UsageError(
            "The command line is not right.",
            where=self.prog,
            found=message,
            expected=self.format_usage().strip().removeprefix("usage: "),
            do=f"{self.prog} --help explains each option",
        )


def add_recipe(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add the recipe, its overrides and the store."""
    parser.add_argument(
        "recipe",
        type=Path,
        nargs=None if required else "?",
        default=DEFAULT_RECIPE,
        help=f"recipe file (default: {DEFAULT_RECIPE})",
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        help="override a value of the recipe; may be repeated",
    )
    add_store(parser)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the store and machine-readable output."""
    parser.add_argument("--store", type=Path, help="artifact store (default: runtime.store)")
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def loaded_recipe(options: argparse.Namespace) -> LoadedRecipe:
    """Return the recipe with its overrides, the store's place among them."""
    overrides = list(options.overrides)
    if options.store:
        overrides.append(f"runtime.store={json.dumps(str(options.store))}")
    return load_recipe(options.recipe, overrides)


def opened_store(options: argparse.Namespace) -> Store:
    """Return the store that the options name, or the default one."""
    return Store(options.store or Runtime().store)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
