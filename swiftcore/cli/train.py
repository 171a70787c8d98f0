"""`swift sft` and `swift pt`: a recipe written as flags, run in this process."""

from collections.abc import Sequence
from pathlib import Path

from swiftcore.artifacts import Store
from swiftcore.cli.listener import TerminalListener
from swiftcore.cli.options import print_json
from swiftcore.recipe import build_recipe
from swiftcore.recipe.arguments import recipe_from_flags
from swiftcore.stages import build_road, run_steps

_HELP = """usage: swift {name} --model MODEL --dataset FILE [FILE ...] [--ARGUMENT VALUE ...]

{text} Arguments are ms-swift's; `swift args` lists them, their
defaults and which of them work. Example:

  swift {name} --model ./my-model --dataset rows.jsonl --train_type lora --lora_rank 8

Flags make a recipe, so the same call again reuses what it made. --store DIR sets the artifact
store, --json prints the result as JSON."""
_TEXT = {"sft": "Supervised fine-tuning.", "pt": "Pre-training."}


def main(argv: Sequence[str]) -> int:
    """Train from flags and say where the result is."""
    name, flags = argv[0], list(argv[1:])
    if "-h" in flags or "--help" in flags:
        print(_HELP.format(name=name, text=_TEXT[name]))
        return 0
    as_json = "--json" in flags
    values = recipe_from_flags(name, [flag for flag in flags if flag != "--json"])
    loaded = build_recipe(values, path=Path(f"{name}-flags"))
    store = Store(loaded.runtime.store)
    road = build_road(loaded, store)
    made = run_steps(road.steps, store, loaded.runtime, TerminalListener(quiet=as_json))
    result = made[road.steps[-1].label]
    if as_json:
        print_json({"path": str(result.path), "fingerprint": result.fingerprint})
    else:
        print(f"  result   {result.path}")
    return 0
