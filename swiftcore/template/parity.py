"""Token by token: our template against the one that came with the tokenizer.

Two kinds of token lists are compared: prompts, as serving sends them, and whole conversations, as
training sees them. Equal means the same ids, with two allowances that no model can notice: our
answers are tokenised apart from what stands around them, as they are generated, so the same text
may be cut elsewhere at that border; and what follows the last stop token is never reached.

What can't be compared is counted, not passed over: rows that the other template refuses, rows whose
text holds control tokens (ours keeps them as text, the other one obeys them), and conversations of
a template whose own prompt is no beginning of its own conversation.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from swiftcore.errors import DataError, GateRefused
from swiftcore.template.conversation import Conversation, read_conversation
from swiftcore.template.template import Template

Kind = Literal["prompt", "conversation"]
KINDS: tuple[Kind, ...] = ("prompt", "conversation")
MAX_SHOWN = 10
_CONTEXT_TOKENS = 8


def parity_report(
    template: Template, tokenizer: Any, rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare prompts and full conversations with the tokenizer's own chat template.

    Returns a dict: `has_template`, `text`, and for `prompt` and `conversation` the counts compared,
    equal, differing, refused (rows the other template can't render), holding_tokens, inconsistent,
    and the first differences decoded.
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
    comparison = _Comparison(template, tokenizer)
    for index, row in enumerate(rows):
        comparison.add(index, row)
    tallies = comparison.tallies
    return {
        "has_template": True,
        "text": "; ".join(f"{kind} {tallies[kind].summary()}" for kind in KINDS),
        **{kind: tallies[kind].as_dict() for kind in KINDS},
    }


def require_parity(template: Template, parity: Mapping[str, Any], waived: Iterable[str]) -> None:
    """Refuse a parity report with differences that nobody waived.

    Args:
        template: what was compared.
        parity: see `parity_report`.
        waived: kinds whose differences are accepted.

    Raises:
        GateRefused: prompts or conversations differ; the first difference is shown.
    """
    for kind in KINDS:
        tally = parity.get(kind)
        if not tally or not tally["differing"] or kind in waived:
            continue
        first = tally["differences"][0]
        hint = _HINTS[kind] if template.name != "jinja" else ""
        raise GateRefused(
            f"{tally['differing']} of {tally['compared']} {kind}s are other tokens than "
            "the model's own chat template writes",
            where=f"template {template.name}, row {first['row']} of the sample, "
            f"token {first['token']}, after {first['before']!r}",
            found=repr(first["ours"]),
            expected=repr(first["theirs"]),
            do=f"{hint}set template.template to the model's family or to jinja, or accept the "
            f"difference with template.parity_waivers: [{kind}]",
        )


_HINTS: dict[Kind, str] = {
    "prompt": "set template.system if only the system prompt differs, ",
    "conversation": "set template.loss_scale to last_round if earlier answers differ, ",
}


class _Tally:
    def __init__(self) -> None:
        self.compared = self.equal = self.refused = 0
        self.holding_tokens = self.inconsistent = 0
        self.differences: list[dict[str, Any]] = []

    def summary(self) -> str:
        parts = [f"{self.equal} of {self.compared} equal, {self.refused} refused"]
        if self.holding_tokens:
            parts.append(f"{self.holding_tokens} with control tokens in their text")
        if self.inconsistent:
            parts.append(f"{self.inconsistent} that do not begin with their own prompt")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "compared": self.compared,
            "equal": self.equal,
            "differing": self.compared - self.equal,
            "refused": self.refused,
            "holding_tokens": self.holding_tokens,
            "inconsistent": self.inconsistent,
            "differences": self.differences,
        }


class _Comparison:
    """Compares rows one by one and keeps the counts."""

    def __init__(self, template: Template, tokenizer: Any) -> None:
        from swiftcore.template.jinja import JinjaTemplate

        self._ours = template
        self._theirs = JinjaTemplate(tokenizer, template.options, is_reference=True)
        self._tokenizer = tokenizer
        self._added = set(template.pieces.token_ids.values())
        self.tallies: dict[Kind, _Tally] = {kind: _Tally() for kind in KINDS}

    def add(self, index: int, row: Mapping[str, Any]) -> None:
        conversation = read_conversation(row)
        kinds: dict[Kind, Mapping[str, Any]] = {}
        if asked := _unanswered(row):
            kinds["prompt"] = asked
        if conversation.rounds[-1].answer is not None:
            kinds["conversation"] = row
        for kind, compared in kinds.items():
            tally = self.tallies[kind]
            try:
                theirs = self._their_text(read_conversation(compared), kind)
            except _HoldsTokens:
                tally.holding_tokens += 1
            except _Inconsistent:
                tally.inconsistent += 1
            except DataError:
                tally.refused += 1
            else:
                self._compare(tally, index, compared, kind, theirs)

    def _their_text(self, conversation: Conversation, kind: Kind) -> str:
        if self._theirs.holds_tokens(conversation):
            raise _HoldsTokens
        text = self._theirs.written(conversation, prompt=kind == "prompt")
        if kind == "conversation" and not text.startswith(self._theirs.last_prompt(conversation)):
            raise _Inconsistent
        return text

    def _compare(
        self, tally: _Tally, index: int, row: Mapping[str, Any], kind: Kind, text: str
    ) -> None:
        theirs = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        pieces = self._ours.plan(row, "infer" if kind == "prompt" else "train")
        ours = [token for ids in self._ours.pieces.encode(pieces) for token in ids]
        tally.compared += 1
        if self._is_same(ours, theirs, kind):
            tally.equal += 1
        elif len(tally.differences) < MAX_SHOWN:
            tally.differences.append(_difference(index, ours, theirs, self._ours))

    def _is_same(self, ours: list[int], theirs: list[int], kind: Kind) -> bool:
        if ours == theirs:
            return True
        controls = [token for token in ours if token in self._added]
        other_controls = [token for token in theirs if token in self._added]
        one, other = self._ours.decode(ours), self._ours.decode(theirs)
        if one == other:
            return controls == other_controls
        if kind == "prompt":
            return False
        one, other = one.rstrip(), other.rstrip()
        short, long = sorted((one, other), key=len)
        stopped = any(short.endswith(word) for word in self._ours.stop_words)
        if not long.startswith(short) or not stopped:
            return False
        size = min(len(controls), len(other_controls))
        is_end = self._theirs.is_only_special(long[len(short) :])
        return is_end and controls[:size] == other_controls[:size]


class _HoldsTokens(Exception):
    """A row's text holds control tokens."""


class _Inconsistent(Exception):
    """A template's own prompt is no beginning of its own conversation."""


def _unanswered(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row as it is asked, without its last answer; None if nothing is asked."""
    kept = [*row["messages"]]
    while kept and kept[-1]["role"] in ("assistant", "tool_call"):
        kept.pop()
    return {**row, "messages": kept} if kept and kept[-1]["role"] != "system" else None


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
