"""The typed sections of a recipe: what to make. Every field shapes a result, or it is not here.

Field names are those of ms-swift's documented arguments, so its users keep their habits. A field
exists from the day something reads it; `swift args` lists the documented arguments that do not work
yet and says so. Where a run happens (device, paths, ports) is `Runtime`, in its own module.
"""

from swiftcore.recipe.sections.base import Dtype, Name, Section
from swiftcore.recipe.sections.data import CleaningSection, DataSection, DocumentsSection
from swiftcore.recipe.sections.infer import InferSection
from swiftcore.recipe.sections.model import ModelSection, ScratchModel
from swiftcore.recipe.sections.quantize import QuantizeSection
from swiftcore.recipe.sections.results import (
    DeploySection,
    EvaluateSection,
    Gate,
    MergeSection,
)
from swiftcore.recipe.sections.sample import SampleSection
from swiftcore.recipe.sections.serve_backends import (
    InferBackend,
    ServeBackend,
    ToolSettings,
    check_backend_settings,
    tool_settings,
)
from swiftcore.recipe.sections.template import TemplateSection
from swiftcore.recipe.sections.train import Strategy, TrainSection
from swiftcore.recipe.sections.tuner import Intervention, TrainType, TunerSection
from swiftcore.recipe.sections.whole import Recipe

# Sections of commands that are no stage: a recipe has none of them.
COMMAND_SECTIONS: dict[str, type[Section]] = {
    "infer": InferSection,
    "sample": SampleSection,
}

__all__ = [
    "COMMAND_SECTIONS",
    "CleaningSection",
    "DataSection",
    "DeploySection",
    "DocumentsSection",
    "Dtype",
    "EvaluateSection",
    "Gate",
    "InferBackend",
    "InferSection",
    "Intervention",
    "MergeSection",
    "ModelSection",
    "Name",
    "QuantizeSection",
    "Recipe",
    "SampleSection",
    "ScratchModel",
    "Section",
    "ServeBackend",
    "Strategy",
    "TemplateSection",
    "ToolSettings",
    "TrainSection",
    "TrainType",
    "TunerSection",
    "check_backend_settings",
    "tool_settings",
]
