"""What a chat template is: data, not a class hierarchy.

Texts may hold placeholders: `{{SYSTEM}}`, `{{QUERY}}`, `{{ROUND0}}` and `{{ROUND1}}` (the number of
the round, from 0 or from 1), `{{BOS}}` and `{{EOS}}` (the tokenizer's own tokens), `{{ID:195}}` (a
token by its id), `{{TOKEN:user_token_id}}` (a token whose id is an attribute of the tokenizer) and
`{{TODAY:%d %b %Y}}` (the date of the encoding, in English whatever the locale).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The texts around messages in one model family.

    Args:
        name: public name, that of ms-swift 4.x.
        prompt: one user round, up to where the answer begins.
        chat_sep: between an answer and the next user round; None: only the last round is kept.
        suffix: after the last answer; it is trained, and it is what stops generation.
        prefix: before the first round when there is no system prompt.
        system_prefix: the same with a system prompt; None: it has no place before the first round.
        system_prompt: `prompt` of the one round that carries the system prompt, in families that
            put it into a user's turn.
        system_round: which round that is.
        default_system: system prompt of rows that bring none.
        stop_words: further texts that stop generation.
        add_bos: begin with whatever the tokenizer puts before a text.
        agent_template: how tools and calls are written when the caller does not say; None: hermes.
        control_tokens: added tokens the tokenizer must have, or the template is the wrong one.
        answer_break: untrained text between a prompt and an answer; a prompt that asks for the
            answer ends before it.
        no_break_before: calls end with this text and follow the prompt without the break.
        answer_opening: written before every answer that does not begin with its first token.
        strips_answers: characters removed from both ends of an answer.
        is_thinking: answers may begin with a think block, and prompts leave out those of answers
            before the last user message.
        thinking_prefix: where generation starts when the model shall think.
        non_thinking_prefix: the same when it shall not; also put before trained answers that have
            no think block.
        history_thinking_prefix: what a left-out think block is replaced by.
        thinks_by_default: which of the two a prompt opens with when nobody says.
        thinks_after_tools: an answer to tool responses opens like one to the user.
        preserve_thinking: whether think blocks before the last user message stay; None: only in
            training, when all answers count.
        thinking_marks: first and last text of a think block.
    """

    name: str
    prompt: str
    chat_sep: str | None
    suffix: str
    prefix: str = ""
    system_prefix: str | None = None
    system_prompt: str | None = None
    system_round: Literal["first", "last"] = "last"
    default_system: str | None = None
    stop_words: tuple[str, ...] = ()
    add_bos: bool = False
    agent_template: str | None = None
    control_tokens: tuple[str, ...] = ()
    answer_break: str = ""
    no_break_before: str = ""
    answer_opening: str = ""
    strips_answers: str = ""
    is_thinking: bool = False
    thinking_prefix: str = ""
    non_thinking_prefix: str = ""
    history_thinking_prefix: str = ""
    thinks_by_default: bool = True
    thinks_after_tools: bool = True
    preserve_thinking: bool | None = None
    thinking_marks: tuple[str, str] = ("<think>", "</think>")

    @property
    def always_thinks(self) -> bool:
        """Whether no prompt can ask the model not to think."""
        return self.thinks_by_default and not self.non_thinking_prefix

    def named(self, name: str, **changes: Any) -> "ChatTemplate":
        """Return the template under another name, with what is different there."""
        return replace(self, name=name, **changes)

    def for_generation(self) -> "ChatTemplate":
        """Return the template of plain text continuation: the row's own words, then eos."""
        return ChatTemplate(
            name=self.name,
            prompt="{{QUERY}}",
            chat_sep=None,
            suffix="{{EOS}}",
            stop_words=self.stop_words,
            add_bos=True,
            agent_template=self.agent_template,
        )
