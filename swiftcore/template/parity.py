"""Token by token: our template against the one that came with the tokenizer."""

from collections.abc import Iterable, Mapping
from typing import Any

from swiftcore.template.conversation import Conversation, read_conversation
from swiftcore.template.template import Template

MAX_SHOWN = 10
_CONTEXT_TOKENS = 8


def parity_report(
    template: Template, tokenizer: Any, rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare prompts and full conversations with `tokenizer.apply_chat_template`.

    Returns a dict: `has_template`, and for `prompt` and `conversation` the counts compared, equal,
    differing, refused (rows the other template can't render), and the first differences decoded.
    """
    if not getattr(tokenizer, "chat_template", None):
        return {
            "has_template": False,
            "text": "no template: the tokenizer has none to compare with",
        }
    if not template.options.use_chat_template:
        return {
            "has_template": True,
            "text": "not compared: rows are plain text without a template",
        }
    prompts, conversations = _Tally(), _Tally()
    for index, row in enumerate(rows):
        _compare_row(template, tokenizer, row, index, prompts, conversations)
    return {
        "has_template": True,
        "text": f"prompt {prompts.summary()}; conversation {conversations.summary()}",
        "prompt": prompts.as_dict(),
        "conversation": conversations.as_dict(),
    }


class _Tally:
    def __init__(self) -> None:
        self.compared = self.equal = self.refused = 0
        self.differences: list[dict[str, Any]] = []

    def summary(self) -> str:
        return f"{self.equal} of {self.compared} equal, {self.refused} refused"

    def as_dict(self) -> dict[str, Any]:
        return {
            "compared": self.compared,
            "equal": self.equal,
            "differing": self.compared - self.equal,
            "refused": self.refused,
            "differences": self.differences,
        }

    def add(self, index: int, ours: list[int], theirs: list[int], template: Template) -> None:
        self.compared += 1
        if ours == theirs:
            self.equal += 1
        elif len(self.differences) < MAX_SHOWN:
            self.differences.append(_difference(index, ours, theirs, template))


def _compare_row(
    template: Template,
    tokenizer: Any,
    row: Mapping[str, Any],
    index: int,
    prompts: _Tally,
    conversations: _Tally,
) -> None:
    conversation = read_conversation(row)
    messages = _openai_messages(template, conversation)
    tools = list(conversation.tools) or None
    answered = conversation.rounds[-1].answer is not None
    asked = messages[:-1] if answered else messages
    theirs = _render(tokenizer, asked, tools, prompt=True)
    if theirs is None:
        prompts.refused += 1
    else:
        kept = [*row["messages"]]
        while answered and kept and kept[-1]["role"] in ("assistant", "tool_call"):
            kept.pop()
        if kept and kept[-1]["role"] != "system":
            ours = _encode(template, {**row, "messages": kept}, prompt=True)
            prompts.add(index, ours, theirs, template)
    if not answered:
        return
    theirs = _render(tokenizer, messages, tools, prompt=False)
    if theirs is None:
        conversations.refused += 1
    else:
        conversations.add(index, _encode(template, row, prompt=False), theirs, template)


def _encode(template: Template, row: Mapping[str, Any], *, prompt: bool) -> list[int]:
    pieces = template.plan(row, "infer" if prompt else "train")
    return [token for ids in template.pieces.encode(pieces) for token in ids]


def _render(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[Any] | None, *, prompt: bool
) -> list[int] | None:
    # A model's template is somebody else's program: whatever it raises means it refused the row.
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=prompt
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError):
        return None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _openai_messages(template: Template, conversation: Conversation) -> list[dict[str, Any]]:
    system = conversation.system
    if system is None:
        system = template.options.system
    messages: list[dict[str, Any]] = []
    if system:
        messages.append({"role": "system", "content": system})
    for turn in conversation.rounds:
        role = "tool" if turn.source == "tool" else "user"
        messages += [{"role": role, "content": query} for query in turn.queries]
        if turn.answer is None:
            continue
        text = "".join(part.text for part in turn.answer if part.call is None)
        calls = [
            {
                "type": "function",
                "function": {"name": part.call.name, "arguments": part.call.arguments},
            }
            for part in turn.answer
            if part.call is not None
        ]
        answer: dict[str, Any] = {"role": "assistant", "content": text}
        messages.append(answer | ({"tool_calls": calls} if calls else {}))
    return messages


def _difference(
    index: int, ours: list[int], theirs: list[int], template: Template
) -> dict[str, Any]:
    position = next(
        (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    start, stop = max(position - _CONTEXT_TOKENS, 0), position + _CONTEXT_TOKENS
    return {
        "row": index,
        "token": position,
        "before": template.decode(ours[start:position]),
        "ours": template.decode(ours[position:stop]),
        "theirs": template.decode(theirs[position:stop]),
    }
