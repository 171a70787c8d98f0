"""`swift export`: for now, a dataset encoded once and kept in a folder, for later training."""

from collections.abc import Sequence
from pathlib import Path

from swiftcore.artifacts import Store
from swiftcore.artifacts.adopt import materialize
from swiftcore.cli.listener import TerminalListener
from swiftcore.cli.options import Parser, print_json
from swiftcore.errors import UsageError
from swiftcore.recipe import build_recipe
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.stages import build_road, run_steps

_TEXT = """Encode a dataset for a model and put it into a folder. A later
`swift sft --cached_dataset FOLDER` trains on it, after comparing its record with the tokenizer and
template settings of that training. Other flags are ms-swift's: --model, --dataset, --template,
--max_length, ..."""


def main(argv: Sequence[str]) -> int:
    """Encode a dataset from flags and say where it is."""
    parser = Parser("swift export", _TEXT)
    parser.add_argument("--to_cached_dataset", nargs="?", const="true", default="false")
    parser.add_argument("--output_dir", type=Path, help="folder for the encoded dataset")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options, flags = parser.parse_known_args(argv[1:])
    if options.to_cached_dataset.lower() not in ("true", "1", "yes") or options.output_dir is None:
        raise UsageError(
            "swift export encodes datasets; its other work is not built yet",
            where="swift export",
            found=" ".join(argv[1:]) or "no flag",
            expected="--to_cached_dataset true --output_dir FOLDER --model MODEL --dataset FILE",
            do="to merge or quantize, add `merge: {}` or `quantize: {}` to a recipe and run it",
        )
    loaded = build_recipe(recipe_from_flags("export", flags), path=Path("export-flags"))
    store = Store(loaded.runtime.store)
    road = build_road(loaded, store)
    made = run_steps(
        road.until("template"), store, loaded.runtime, TerminalListener(quiet=options.json)
    )
    artifact = made[road.step("template").label]
    materialize(artifact, options.output_dir)
    if options.json:
        print_json({"path": str(options.output_dir), "fingerprint": artifact.fingerprint})
    else:
        print(f"  encoded  {options.output_dir}")
    return 0
