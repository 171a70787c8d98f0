"""Ling and Ring, of inclusionAI."""

from swiftcore.template.definition import ChatTemplate

LING = ChatTemplate(
    name="ling",
    system_prefix="<role>SYSTEM</role>{{SYSTEM}}",
    prompt="<role>HUMAN</role>{{QUERY}}<role>ASSISTANT</role>",
    chat_sep="",
    suffix="<|endoftext|>",
    control_tokens=("<role>", "</role>", "<|endoftext|>"),
)
LING2 = ChatTemplate(
    name="ling2",
    prefix="<role>SYSTEM</role>detailed thinking off<|role_end|>",
    system_prefix="<role>SYSTEM</role>{{SYSTEM}}\ndetailed thinking off<|role_end|>",
    prompt="<role>HUMAN</role>{{QUERY}}<|role_end|><role>ASSISTANT</role>",
    chat_sep="<|role_end|>",
    suffix="<|role_end|>",
    control_tokens=("<role>", "</role>", "<|role_end|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    LING,
    LING.named("ring2", is_thinking=True, thinking_prefix="<think>\n"),
    LING2,
    LING2.named(
        "ling3",
        prefix="<role>SYSTEM</role><|role_end|>",
        system_prefix="<role>SYSTEM</role>{{SYSTEM}}<|role_end|>",
        prompt="<role>HUMAN</role>{{QUERY}}<|role_end|><role>ASSISTANT</role>\n",
        agent_template="ling3",
        is_thinking=True,
        thinking_prefix="<think>",
        non_thinking_prefix="<think></think>",
    ),
    LING2.named(
        "ring2_5",
        prefix="",
        system_prefix="<role>SYSTEM</role>\n{{SYSTEM}}\n\n",
        prompt="<role>HUMAN</role>\n{{QUERY}}<|role_end|>\n\n<role>ASSISTANT</role>\n",
        chat_sep="<|role_end|>\n\n",
        suffix="<|role_end|>\n\n",
        is_thinking=True,
    ),
)
