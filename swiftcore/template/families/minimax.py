"""MiniMax."""

from swiftcore.template.definition import ChatTemplate

MINIMAX = ChatTemplate(
    name="minimax",
    system_prefix=(
        "<beginning_of_sentence>system ai_setting=assistant\n{{SYSTEM}}<end_of_sentence>\n"
    ),
    prompt=(
        "<beginning_of_sentence>user name=user\n{{QUERY}}<end_of_sentence>\n"
        "<beginning_of_sentence>ai name=assistant\n"
    ),
    chat_sep="<end_of_sentence>\n",
    suffix="<end_of_sentence>",
    control_tokens=("<beginning_of_sentence>", "<end_of_sentence>"),
)
MINIMAX_M2 = ChatTemplate(
    name="minimax_m2",
    prefix="]~!b[]~b]system\n[e~[\n",
    system_prefix="]~!b[]~b]system\n{{SYSTEM}}[e~[\n",
    prompt="]~b]user\n{{QUERY}}[e~[\n]~b]ai\n",
    chat_sep="[e~[\n",
    suffix="[e~[\n",
    default_system=(
        "You are MiniMax-M2, a helpful AI assistant built by MiniMax. Knowledge cutoff: 2025-06."
    ),
    agent_template="minimax_m2",
    control_tokens=("]~b]", "[e~["),
    is_thinking=True,
    thinking_prefix="<think>\n",
)

FAMILIES: tuple[ChatTemplate, ...] = (
    MINIMAX,
    MINIMAX.named("minimax_vl"),
    MINIMAX.named(
        "minimax_m1",
        prefix="<begin_of_document>",
        system_prefix=(
            "<begin_of_document><beginning_of_sentence>system ai_setting=assistant\n"
            "{{SYSTEM}}<end_of_sentence>\n"
        ),
    ),
    MINIMAX_M2,
    MINIMAX_M2.named(
        "minimax_m2_1",
        default_system=(
            "You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax."
        ),
    ),
    MINIMAX_M2.named(
        "minimax_m2_5",
        default_system=(
            "You are a helpful assistant. Your name is MiniMax-M2.5 and is built by MiniMax."
        ),
    ),
    MINIMAX_M2.named(
        "minimax_m2_7",
        default_system=(
            "You are a helpful assistant. Your name is MiniMax-M2.7 and is built by MiniMax."
        ),
    ),
    MINIMAX_M2.named(
        "minimax_m3_vl",
        default_system="You are a helpful assistant.",
        agent_template="minimax_m3",
        thinking_prefix="<mm:think>",
        non_thinking_prefix="</mm:think>",
        history_thinking_prefix="</mm:think>",
        thinking_marks=("<mm:think>", "</mm:think>"),
    ),
)
