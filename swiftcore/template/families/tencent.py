"""Hunyuan, of Tencent, and Youtu."""

from swiftcore.template.definition import ChatTemplate

HUNYUAN = ChatTemplate(
    name="hunyuan",
    prefix="<｜hy_begin▁of▁sentence｜>",
    system_prefix="<｜hy_begin▁of▁sentence｜>{{SYSTEM}}<｜hy_place▁holder▁no▁3｜>",
    prompt="<｜hy_User｜>{{QUERY}}<｜hy_Assistant｜>",
    chat_sep="<｜hy_place▁holder▁no▁2｜>",
    suffix="<｜hy_place▁holder▁no▁2｜>",
    agent_template="hunyuan_hermes",
    control_tokens=("<｜hy_User｜>", "<｜hy_Assistant｜>"),
    is_thinking=True,
    non_thinking_prefix="<think>\n\n</think>\n",
)
HY_V3_PREVIEW = ChatTemplate(
    name="hy_v3_preview",
    prefix="<｜hy_begin▁of▁sentence｜>",
    system_prefix="<｜hy_begin▁of▁sentence｜>{{SYSTEM}}",
    prompt="<｜hy_User｜>{{QUERY}}<｜hy_Assistant｜>",
    chat_sep="<｜hy_eos｜>",
    suffix="<｜hy_eos｜>",
    agent_template="hy_v3_preview",
    control_tokens=("<｜hy_User｜>", "<｜hy_Assistant｜>", "<｜hy_eos｜>"),
    is_thinking=True,
    thinking_prefix="<think>",
    non_thinking_prefix="<think></think>",
    history_thinking_prefix="<think></think>",
)

FAMILIES: tuple[ChatTemplate, ...] = (
    ChatTemplate(
        name="hunyuan_moe",
        prefix="<|startoftext|>",
        system_prefix="<|startoftext|>{{SYSTEM}}<|extra_4|>",
        prompt="{{QUERY}}<|extra_0|>",
        chat_sep="<|eos|><|startoftext|>",
        suffix="<|eos|>",
        control_tokens=("<|startoftext|>", "<|extra_0|>", "<|eos|>"),
    ),
    HUNYUAN,
    HUNYUAN.named(
        "hunyuan_ocr",
        prompt="{{QUERY}}<｜hy_User｜>",
        chat_sep="<｜hy_Assistant｜><｜hy_begin▁of▁sentence｜>",
        suffix="<｜hy_Assistant｜>",
        agent_template=None,
        is_thinking=False,
        non_thinking_prefix="",
    ),
    HY_V3_PREVIEW,
    ChatTemplate(
        name="hy_v3",
        prefix="<｜hy_begin_of_sentence:opensource｜>",
        system_prefix="<｜hy_begin_of_sentence:opensource｜>{{SYSTEM}}",
        prompt="<｜hy_User:opensource｜>{{QUERY}}<｜hy_Assistant:opensource｜>",
        chat_sep="<｜hy_eos:opensource｜>",
        suffix="<｜hy_eos:opensource｜>",
        agent_template="hy_v3",
        control_tokens=(
            "<｜hy_User:opensource｜>",
            "<｜hy_Assistant:opensource｜>",
            "<｜hy_eos:opensource｜>",
        ),
        is_thinking=True,
        thinking_prefix="<think:opensource>",
        non_thinking_prefix="<think:opensource></think:opensource>",
        history_thinking_prefix="<think:opensource></think:opensource>",
        thinking_marks=("<think:opensource>", "</think:opensource>"),
    ),
    ChatTemplate(
        name="youtu_llm",
        prefix="{{BOS}}",
        system_prefix="{{BOS}}{{SYSTEM}}",
        prompt="<|User|>{{QUERY}}<|Assistant|>",
        chat_sep="<|end_of_text|>",
        suffix="<|end_of_text|>",
        agent_template="youtu",
        control_tokens=("<|User|>", "<|Assistant|>", "<|end_of_text|>"),
        is_thinking=True,
        non_thinking_prefix="<think>\n\n</think>\n\n",
    ),
)
