"""Template names to templates."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from types import EllipsisType
from typing import Any

from swiftcore.errors import UsageError
from swiftcore.template.definition import ChatTemplate
from swiftcore.template.family import FamilyTemplate
from swiftcore.template.registry import JINJA, find_definition
from swiftcore.template.template import Template, TemplateOptions
from swiftcore.template.thinking import ThinkingControls

_TRUNCATIONS = {"delete", "left", "right", "split"}


def get_template(
    name: str | ChatTemplate,
    tokenizer: Any,
    *,
    agent_template: str | None = None,
    loss_scale: str | Mapping[str, Any] = "default",
    max_length: int | None = None,
    truncation_strategy: str = "delete",
    default_system: str | EllipsisType | None = ...,
    use_chat_template: bool = True,
    response_prefix: str | None = None,
    today: date | str | None = None,
    allow_control_tokens: bool = False,
    enable_thinking: bool | None = None,
    preserve_thinking: bool | None = None,
    add_non_thinking_prefix: bool | None = None,
) -> Template:
    """Return the template called `name` for a Hugging Face tokenizer.

    Args:
        name: one of `list_templates()`, or a definition; "jinja" is the tokenizer's own chat
            template.
        tokenizer: a fast Hugging Face tokenizer.
        agent_template: how tools are written; default: the family's.
        loss_scale: which tokens count, and how much, joined by `+`; a part may be a YAML or JSON
            file; or what `Template.settings` holds.
        max_length: most tokens of a row.
        truncation_strategy: delete (or raise), left, right, split.
        default_system: system prompt of rows that bring none; "" for none, default the family's.
        use_chat_template: False: rows are plain text, ended by eos.
        response_prefix: where an answer starts in prompts; default: the family's.
        today: the date some templates print; default: SWIFTCORE_TODAY, else the clock.
        allow_control_tokens: parse control tokens in everybody's text, as ms-swift does. Unsafe:
            whoever writes a row or a message can then end a turn and speak as somebody else.
        enable_thinking: prompts open a think block (True) or close it at once (False); a row's
            `chat_template_kwargs` comes first. Default: the family's way.
        preserve_thinking: think blocks before the last user message stay in prompts too (True), or
            go in training too (False). Default: they go from prompts, and from rows of which only
            the last answer counts.
        add_non_thinking_prefix: False leaves trained answers without a think block as they are;
            by default they get the family's empty one.

    Raises:
        UsageError: a name is unknown, the tokenizer lacks a control token of the family, or a
            thinking control would do nothing there.
    """
    if name == JINJA and use_chat_template:
        # Jinja itself is only needed by models that bring their own template.
        from swiftcore.template.jinja import JinjaTemplate

        make: Callable[[TemplateOptions], Template] = partial(JinjaTemplate, tokenizer)
    else:
        if isinstance(name, str):
            name = find_definition("default" if name == JINJA else name)
        make = partial(FamilyTemplate, name, tokenizer)
    strategy = "delete" if truncation_strategy == "raise" else truncation_strategy
    if strategy not in _TRUNCATIONS:
        raise UsageError(
            "unknown truncation strategy",
            where="truncation_strategy",
            found=truncation_strategy,
            expected=" | ".join(sorted(_TRUNCATIONS)),
            do="choose one of these",
        )
    options = TemplateOptions(
        agent_template=agent_template,
        loss_scale=loss_scale,
        max_length=max_length,
        truncation_strategy=strategy,  # pyright: ignore[reportArgumentType]
        system=default_system if isinstance(default_system, str) else None,
        use_chat_template=use_chat_template,
        response_prefix=response_prefix,
        today=_read_today(today),
        allow_control_tokens=allow_control_tokens,
        thinking=ThinkingControls(enable_thinking, preserve_thinking, add_non_thinking_prefix),
    )
    return make(options)


def _read_today(today: date | str | None) -> date:
    if isinstance(today, date):
        return today
    text = today if today is not None else os.environ.get("SWIFTCORE_TODAY")
    if not text:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as err:
        raise UsageError(
            "the date is not a date",
            where="today",
            found=text,
            expected="YYYY-MM-DD",
            do="write it like 2026-11-21",
        ) from err
