"""Templates: rows to tokens, the same in training, evaluation and serving."""

from typing import TYPE_CHECKING, Any

from swiftcore.template.agents import ParsedText, list_agent_templates, parse_tool_calls
from swiftcore.template.conversation import ToolCall
from swiftcore.template.custom import chosen_custom, read_template_files
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.encoded_folder import EncodedRows, load_encoded
from swiftcore.template.encoding import Encoded
from swiftcore.template.factory import get_template
from swiftcore.template.infer import InferredModel, infer_model, infer_template
from swiftcore.template.parity import parity_report
from swiftcore.template.registry import list_templates, register_template
from swiftcore.template.settings import (
    load_template,
    read_template_settings,
    write_template_settings,
)
from swiftcore.template.template import Template, render_chat

if TYPE_CHECKING:
    from swiftcore.template.dataset import EncodeReport, encode_dataset

__all__ = [
    "ChatTemplate",
    "EncodeReport",
    "Encoded",
    "EncodedRows",
    "InferredModel",
    "ParsedText",
    "Template",
    "ToolCall",
    "chosen_custom",
    "encode_dataset",
    "get_template",
    "infer_model",
    "infer_template",
    "list_agent_templates",
    "list_templates",
    "load_encoded",
    "load_template",
    "parity_report",
    "parse_tool_calls",
    "read_template_files",
    "read_template_settings",
    "register_template",
    "render_chat",
    "write_template_settings",
]


def __getattr__(name: str) -> Any:
    # Encoding a dataset brings the recipe and data rooms along; templates alone do not need them.
    if name in ("EncodeReport", "encode_dataset"):
        from swiftcore.template import dataset

        return getattr(dataset, name)
    raise AttributeError(name)
