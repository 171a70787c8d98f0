"""Gemma and PaliGemma, of Google, and Ovis on Gemma."""

from swiftcore.template.definition import ChatTemplate

GEMMA = ChatTemplate(
    name="gemma",
    prefix="<bos>",
    system_prefix="<bos><start_of_turn>system\n{{SYSTEM}}<end_of_turn>\n",
    prompt="<start_of_turn>user\n{{QUERY}}<end_of_turn>\n<start_of_turn>model\n",
    chat_sep="<end_of_turn>\n",
    suffix="<end_of_turn>",
    control_tokens=("<start_of_turn>", "<end_of_turn>"),
)
GEMMA4 = ChatTemplate(
    name="gemma4",
    prefix="<bos>",
    system_prefix="<bos><|turn>system\n{{SYSTEM}}<turn|>\n",
    prompt="<|turn>user\n{{QUERY}}<turn|>\n<|turn>model\n",
    chat_sep="<turn|>\n",
    suffix="<turn|>\n",
    stop_words=("<eos>", "<turn|>", "<|tool_response>"),
    agent_template="gemma4",
    control_tokens=("<|turn>", "<turn|>"),
    is_thinking=True,
    non_thinking_prefix="<|channel>thought\n<channel|>",
    thinking_marks=("<|channel>", "<channel|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    GEMMA,
    GEMMA.named("gemma3_vision"),
    GEMMA.named("gemma3n"),
    GEMMA.named("ovis1_6"),
    GEMMA.named(
        "gemma3_text",
        system_prefix=None,
        system_prompt=(
            "<start_of_turn>user\n{{SYSTEM}}\n\n{{QUERY}}<end_of_turn>\n<start_of_turn>model\n"
        ),
        system_round="first",
        strips_answers="\n",
    ),
    GEMMA4,
    GEMMA4.named("diffusion_gemma"),
    GEMMA4.named("gemma4_nothinking", is_thinking=False, non_thinking_prefix=""),
    ChatTemplate(
        name="paligemma",
        prompt="{{QUERY}}\n",
        chat_sep=None,
        suffix="<eos>",
    ),
)
