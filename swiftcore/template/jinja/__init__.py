"""A model's own chat template: rendered under limits, its answers proven by rendering.

`sandbox` renders, `messages` writes rows the way a template wants them, `answers` proves which part
of the text the assistant wrote, `template` puts that behind the interface all templates have.
"""

from swiftcore.template.jinja.messages import MessageStyle, write_messages
from swiftcore.template.jinja.sandbox import Rendered, render
from swiftcore.template.jinja.template import JinjaTemplate, read_chat_template

__all__ = [
    "JinjaTemplate",
    "MessageStyle",
    "Rendered",
    "read_chat_template",
    "render",
    "write_messages",
]
