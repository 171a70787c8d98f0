"""What a chat template is: data, not a class hierarchy.

Texts may hold placeholders: `{{SYSTEM}}`, `{{QUERY}}`, `{{BOS}}` and `{{EOS}}` (the tokenizer's own
tokens) and `{{TODAY:%d %b %Y}}` (the date of the encoding, in English whatever the locale).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The texts around messages in one model family.

    Args:
        name: public name, that of ms-swift 4.x.
        prefix: before the first round when there is no system prompt.
        system_prefix: the same with a system prompt; None: the family has no system prompt.
        prompt: one user round, up to where the answer begins.
        chat_sep: between an answer and the next user round; None: only the last round is kept.
        suffix: after the last answer; it is trained, and it is what stops generation.
        default_system: system prompt of rows that bring none.
        stop_words: further texts that stop generation.
        add_bos: begin with whatever the tokenizer puts before a text.
        agent_template: how tools and calls are written when the caller does not say.
        control_tokens: added tokens the tokenizer must have, or the template is the wrong one.
        thinking_prefix: where generation starts in a model that always thinks.
        non_thinking_prefix: put before trained answers that have no think block.
        drops_history_thinking: prompts leave out think blocks before the last user message.
    """

    name: str
    prompt: str
    chat_sep: str | None
    suffix: str
    prefix: str = ""
    system_prefix: str | None = None
    default_system: str | None = None
    stop_words: tuple[str, ...] = ()
    add_bos: bool = False
    agent_template: str = "hermes"
    control_tokens: tuple[str, ...] = ()
    thinking_prefix: str = ""
    non_thinking_prefix: str = ""
    drops_history_thinking: bool = False

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
