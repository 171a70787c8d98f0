"""The template section: how rows become tokens."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from swiftcore.recipe.sections.base import Section


class TemplateSection(Section):
    """How rows become tokens, the same in training, evaluation and serving."""

    template: str | None = Field(
        default=None, description="template name, or jinja for the model's own; default: inferred"
    )
    system: str | None = Field(
        default=None, description="system prompt for rows that bring none, or a .txt file with it"
    )
    max_length: int | None = Field(default=None, ge=1, description="longest row in tokens")
    truncation_strategy: Literal["delete", "left", "right"] = Field(
        default="delete", description="what to do with a longer row"
    )
    agent_template: str | None = Field(default=None, description="how tools and calls are written")
    loss_scale: str = Field(
        default="default", description="which tokens count in the loss, and how much"
    )
    use_chat_template: bool = Field(
        default=True, description="false: rows are plain text (method pt sets this)"
    )
    allow_control_tokens: bool = Field(
        default=False,
        description="unsafe: parse control tokens in user, system and tool text, as ms-swift does",
    )
    parity_waivers: list[Literal["prompt", "conversation"]] = Field(
        default_factory=list,
        description="token differences from the model's own chat template that are accepted",
    )
    enable_thinking: bool | None = Field(
        default=None,
        description="prompts open a think block (true) or close it at once (false); a row's "
        "chat_template_kwargs comes first; unset: as the family does",
    )
    preserve_thinking: bool | None = Field(
        default=None,
        description="think blocks before the last user message stay (true) or go (false); "
        "unset: they go from prompts, and where only the last answer counts",
    )
    add_non_thinking_prefix: bool | None = Field(
        default=None,
        description="trained answers without a think block get the family's empty one; unset: yes",
    )
    custom_template: list[str] = Field(
        default_factory=list, description="YAML or Python files that register templates"
    )

    @field_validator("system")
    @classmethod
    def _read_text(cls, value: str | None) -> str | None:
        """Take the content of a file for its name, so that another content is another recipe."""
        if value is None or not value.endswith(".txt"):
            return value
        try:
            return Path(value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the file {value} can't be read: {error}") from error
