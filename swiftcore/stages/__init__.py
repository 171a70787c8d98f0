"""Stages: one function each, the graph that joins them, and the runner that makes or reuses."""

from swiftcore.stages.contract import Source, Stage, StageCall, StageInput, StageRun
from swiftcore.stages.graph import STAGES, Link, Road, Step, build_road
from swiftcore.stages.runner import Listener, Quiet, run_stage, run_steps, served_candidate

__all__ = [
    "STAGES",
    "Link",
    "Listener",
    "Quiet",
    "Road",
    "Source",
    "Stage",
    "StageCall",
    "StageInput",
    "StageRun",
    "Step",
    "build_road",
    "run_stage",
    "run_steps",
    "served_candidate",
]
