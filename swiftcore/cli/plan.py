"""`swift plan`: what would run, what is reused, why, and what it will cost."""

from collections.abc import Sequence

from swiftcore.artifacts import Store
from swiftcore.cli.options import Parser, add_recipe, loaded_recipe, print_json
from swiftcore.cli.tables import duration, print_table, size
from swiftcore.stages import build_road
from swiftcore.stages.needs import TrainNeeds
from swiftcore.stages.plan import PlannedStep, plan
from swiftcore.stages.releases import missing_engine


def main(argv: Sequence[str]) -> int:
    """Print the plan of a recipe; nothing is run."""
    parser = Parser("swift plan", "Say what `swift run` would do, without doing it.")
    add_recipe(parser)
    options = parser.parse_args(argv[1:])
    loaded = loaded_recipe(options)
    store = Store(loaded.runtime.store)
    steps = plan(build_road(loaded, store), store, loaded.runtime)
    if options.json:
        print_json([step.as_dict() for step in steps])
        return 0
    rows = [
        [
            step.action,
            step.label,
            (step.fingerprint or "")[:12],
            duration(step.seconds),
            size(step.size_bytes),
            step.reason,
        ]
        for step in steps
    ]
    print_table(["", "step", "fingerprint", "took", "size", "why"], rows)
    for step in steps:
        if step.needs is not None:
            print(_needs_line(step.label, step.needs))
    print(summary(steps))
    lacking = missing_engine(loaded.recipe, loaded.runtime)
    if lacking is not None:
        print(f"warning: {lacking}")
    return 0


def _needs_line(label: str, needs: TrainNeeds) -> str:
    line = f"{label} needs {needs.describe()}"
    if needs.seconds is not None:
        line += f"; about {duration(needs.seconds)} at the speed of the last training here"
    return line + "."


def summary(steps: list[PlannedStep]) -> str:
    """Return one sentence on the whole plan."""
    to_run = [step for step in steps if step.action == "run"]
    if not to_run:
        return f"All {len(steps)} steps are reused."
    known = [step.seconds for step in to_run if step.seconds is not None]
    bytes_known = sum(step.size_bytes or 0 for step in to_run)
    unknown = len(to_run) - len(known)
    text = f"{len(steps) - len(to_run)} reused, {len(to_run)} to run"
    if known:
        text += f": about {duration(sum(known))} and {size(bytes_known)}, as past runs took"
    if unknown:
        text += (
            f"; {unknown} never ran here, so nothing is known of {'it' if unknown == 1 else 'them'}"
        )
    return text + "."
