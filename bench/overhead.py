"""What orchestration costs: the same road by the bare stage functions and as a Prefect flow.

    python bench/overhead.py [--rounds 3]

Both run the tiny recipe of the tests in fresh stores, one after the other, in processes of their
own; then each runs again with everything cached. The figures of a round are ratios of one another,
so a busy machine does little harm. Seconds are wall time; CPU counts the process and its children.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO))

from tests.roads import SWIFT, tiny_recipes  # noqa: E402 - needs the repository on the path


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of one command."""

    wall: float
    cpu: float


def timed(arguments: list[str]) -> Cost:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*SWIFT, *arguments],
        cwd=REPO,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, cpu)


def one_round(folder: Path, steps: int) -> dict[str, Cost]:
    _, bare = tiny_recipes(folder / "bare", max_steps=steps)
    _, flow = tiny_recipes(folder / "flow", max_steps=steps)
    stage = ["stage", "evaluate", str(bare), "--out", str(folder / "out/evaluate")]
    run = ["run", str(flow), "--set", "deploy=null", "--json"]
    return {
        "bare, cold": timed(stage),
        "flow, cold": timed(run),
        "bare, cached": timed(stage),
        "flow, cached": timed(run),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="training steps of each recipe")
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(Path(folder), options.steps))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(f"{'':14}{'wall s':>9}{'CPU s':>9}   (medians of {options.rounds} rounds)")
    for name in rounds[0]:
        wall = statistics.median(costs[name].wall for costs in rounds)
        cpu = statistics.median(costs[name].cpu for costs in rounds)
        print(f"{name:14}{wall:9.2f}{cpu:9.2f}")
    for kind in ("cold", "cached"):
        more = [c[f"flow, {kind}"].wall - c[f"bare, {kind}"].wall for c in rounds]
        ratio = [c[f"flow, {kind}"].wall / c[f"bare, {kind}"].wall for c in rounds]
        print(
            f"{kind}: the flow takes {statistics.median(more):.1f} s more, "
            f"{statistics.median(ratio):.2f} times the bare stages"
        )


if __name__ == "__main__":
    main()
