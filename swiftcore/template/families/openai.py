"""gpt-oss, of OpenAI: the harmony format."""

from swiftcore.template.definition import ChatTemplate

_OPENING = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: {{TODAY:%Y-%m-%d}}\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. "
    "Channel must be included for every message.<|end|>"
)
# Beyond the registered texts: the opening, the developer turn and the channel of answers are those
# of the published template.
GPT_OSS = ChatTemplate(
    name="gpt_oss",
    prefix=_OPENING,
    system_prefix=(
        _OPENING + "<|start|>developer<|message|># Instructions\n\n{{SYSTEM}}\n\n<|end|>"
    ),
    prompt="<|start|>user<|message|>{{QUERY}}<|end|><|start|>assistant",
    chat_sep="<|end|>",
    suffix="<|return|>",
    control_tokens=("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
    answer_opening="<|channel|>final<|message|>",
)

FAMILIES: tuple[ChatTemplate, ...] = (GPT_OSS,)
