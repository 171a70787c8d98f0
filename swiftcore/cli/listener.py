"""What a person sees in the terminal while steps run."""

import sys
from collections.abc import Mapping
from typing import Any

from swiftcore.artifacts import Outcome
from swiftcore.artifacts.lease import Owner
from swiftcore.cli.tables import duration
from swiftcore.progress import Progress, Silent, TerminalProgress
from swiftcore.stages import Step


class TerminalListener:
    """Prints a line for each step, and its progress on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def started(self, step: Step) -> Progress:
        """Give the step a progress line."""
        return Silent() if self._quiet else TerminalProgress(step.stage.name)

    def waiting(self, step: Step, owner: Owner) -> None:
        """Say who is being waited for."""
        self._say(f"  waiting  {step.label}: {owner.describe()} is making it")

    def metrics(self, step: Step, line: Mapping[str, Any]) -> None:
        """Leave metrics to the progress line."""

    def finished(self, step: Step, outcome: Outcome) -> None:
        """Say whether the step ran."""
        verb = "reused" if outcome.reused else "ran"
        seconds = "" if outcome.reused else f"  {duration(outcome.seconds)}"
        fingerprint = outcome.artifact.fingerprint[:12]
        self._say(f"  {verb:<8} {step.label:<24} {fingerprint}{seconds}  {outcome.reason}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)
