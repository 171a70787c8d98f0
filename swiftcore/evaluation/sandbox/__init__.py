"""Programs that a model wrote, run where they can do little harm."""

from swiftcore.evaluation.sandbox.running import Limits, Outcome, Sandbox, open_sandbox

__all__ = ["Limits", "Outcome", "Sandbox", "open_sandbox"]
