"""Think blocks: which prompts open with one, which answers get one, which of them are left out.

With nothing chosen the rules are those of ms-swift 3.10: a prompt opens as the family does by
default, trained answers without a block get the family's empty one, and blocks before the last
user message are left out of prompts and of rows in which only the last answer counts. The three
controls are those of ms-swift 4.x.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from swiftcore.errors import DataError, UsageError
from swiftcore.template.conversation import AnswerPart, Round
from swiftcore.template.definition import ChatTemplate

ROW_CONTROLS = ("enable_thinking", "preserve_thinking")
"""Controls that a row may set for itself in `chat_template_kwargs`."""

Answer = tuple[str, tuple[AnswerPart, ...] | None]
"""What stands before an answer, and the answer; None where it is still to come."""


@dataclass(frozen=True, slots=True)
class ThinkingControls:
    """What a caller, or a row, says about thinking; None leaves it to the family.

    Args:
        enable_thinking: prompts open a think block, or close it at once.
        preserve_thinking: think blocks before the last user message stay.
        add_non_thinking_prefix: trained answers without a think block get the family's empty one.
    """

    enable_thinking: bool | None = None
    preserve_thinking: bool | None = None
    add_non_thinking_prefix: bool | None = None

    def chosen(self) -> dict[str, bool]:
        """Return the controls that are set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def for_row(self, given: Mapping[str, Any], family: ChatTemplate) -> "ThinkingControls":
        """Return the controls with those of a row put over them.

        Raises:
            DataError: the row sets something else, or something the family has no use for.
        """
        if not given:
            return self
        for name, value in given.items():
            if name not in ROW_CONTROLS or not isinstance(value, bool):
                raise DataError(
                    "a row sets something its template does not know",
                    where=f"chat_template_kwargs.{name}",
                    found=value,
                    expected=" or ".join(f"{known}: true|false" for known in ROW_CONTROLS),
                    do="remove it from the row, or choose template 'jinja'",
                )
        controls = replace(self, **given)
        if problem := controls.problem(family):
            raise DataError(
                f"template {family.name!r} {problem}",
                where="chat_template_kwargs",
                found=dict(given),
                expected="a row that leaves it to the family",
                do="remove it from the row",
            )
        return controls

    def check(self, family: ChatTemplate, *, use_chat_template: bool = True) -> None:
        """Refuse a control that would do nothing.

        Raises:
            UsageError: the family has no use for it, or rows are plain text.
        """
        problem = self.problem(family)
        if not use_chat_template and self.chosen():
            problem = "is not used for plain text, where nothing opens an answer"
        if problem:
            raise UsageError(
                f"template {family.name!r} {problem}",
                where="template",
                found=", ".join(f"{name}: {value}" for name, value in self.chosen().items()),
                expected="the control left unset",
                do="remove it, or choose the template of another family",
            )

    def problem(self, family: ChatTemplate) -> str | None:
        """Say which control the family has no use for, if one is set."""
        if self.enable_thinking is not None:
            if family.thinking_prefix == family.non_thinking_prefix:
                return "opens prompts one way only: enable_thinking would do nothing"
            if not self.enable_thinking and family.always_thinks:
                return "always thinks: enable_thinking can't be false (response_prefix can be '')"
        if self.preserve_thinking is not None and not family.is_thinking:
            return "leaves out no think blocks: preserve_thinking would do nothing"
        if self.add_non_thinking_prefix is not None and not family.non_thinking_prefix:
            return "has no empty think block: add_non_thinking_prefix would do nothing"
        return None


NO_THINKING_CONTROLS = ThinkingControls()


def opening(family: ChatTemplate, controls: ThinkingControls, turn: Round) -> str:
    """Return where the model's words begin in a prompt that asks for the answer to `turn`."""
    if turn.source == "tool" and not family.thinks_after_tools:
        return ""
    thinks = controls.enable_thinking
    if thinks is None:
        thinks = family.thinks_by_default
    return family.thinking_prefix if thinks else family.non_thinking_prefix


def begun_block(prompt: str, mark: str) -> str:
    """Return the think block that a prompt opens for its answer, which belongs to the answer.

    Args:
        prompt: its text.
        mark: what begins a think block.
    """
    return prompt[prompt.rindex(mark) :] if prompt.rstrip().endswith(mark) else ""


def open_answers(
    family: ChatTemplate,
    controls: ThinkingControls,
    rounds: tuple[Round, ...],
    *,
    is_prompt: bool,
    last_counts: bool,
) -> list[Answer]:
    """Return, for each round, what the family writes before the answer, and the answer.

    Args:
        family: the definition.
        controls: the caller's and the row's.
        rounds: the conversation.
        is_prompt: it asks for the next answer.
        last_counts: only the last answer is trained.
    """
    if not family.is_thinking and not family.non_thinking_prefix:
        return [(_plain_opening(family, turn), turn.answer) for turn in rounds]
    asked = [index for index, turn in enumerate(rounds) if turn.source == "user"]
    last_user = asked[-1] if asked else 0  # a family of one round may keep tool responses only
    preserves = controls.preserve_thinking
    if preserves is None:
        preserves = family.preserve_thinking
    if preserves is None:
        preserves = not family.is_thinking or not (is_prompt or last_counts)
    opened: list[Answer] = []
    for index, turn in enumerate(rounds):
        if turn.answer is None:
            opened.append(("", None))
            continue
        parts = turn.answer
        # A prompt that keeps its history repeats what was trained, empty blocks included.
        shortens = is_prompt and family.is_thinking and controls.preserve_thinking is not True
        prefix = family.history_thinking_prefix if shortens else family.non_thinking_prefix
        if index < last_user and not preserves:
            parts = tuple(_without_thinking(part, family) for part in turn.answer)
            prefix = family.history_thinking_prefix
        elif not shortens and controls.add_non_thinking_prefix is False:
            prefix = ""
        opened.append((_opening_of(parts[0], prefix, turn, family), parts))
    return opened


def _plain_opening(family: ChatTemplate, turn: Round) -> str:
    text = family.answer_opening
    if not text or turn.answer is None or turn.answer[0].call is not None:
        return ""
    first_token = text[: text.index(">") + 1]
    return "" if turn.answer[0].text.startswith(first_token) else text


def _opening_of(first: AnswerPart, prefix: str, turn: Round, family: ChatTemplate) -> str:
    if not prefix or (turn.source == "tool" and not family.thinks_after_tools):
        return ""
    return "" if first.text.startswith((family.thinking_marks[0], prefix)) else prefix


def _without_thinking(part: AnswerPart, family: ChatTemplate) -> AnswerPart:
    _, marker, answer = part.text.rpartition(family.thinking_marks[1])
    return replace(part, text=answer.lstrip("\n")) if marker else part
