"""DeepSeek."""

from swiftcore.template.definition import ChatTemplate

DEEPSEEK = ChatTemplate(
    name="deepseek",
    prefix="{{BOS}}",
    system_prefix="{{BOS}}{{SYSTEM}}\n\n",
    prompt="User: {{QUERY}}\n\nAssistant:",
    chat_sep="{{EOS}}",
    suffix="{{EOS}}",
)
DEEPSEEK_V2_5 = ChatTemplate(
    name="deepseek_v2_5",
    prefix="<｜begin▁of▁sentence｜>",
    system_prefix="<｜begin▁of▁sentence｜>{{SYSTEM}}",
    prompt="<｜User｜>{{QUERY}}<｜Assistant｜>",
    chat_sep="<｜end▁of▁sentence｜>",
    suffix="<｜end▁of▁sentence｜>",
    control_tokens=("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
)
DEEPSEEK_V3_1 = DEEPSEEK_V2_5.named(
    "deepseek_v3_1",
    agent_template="deepseek_v3_1",
    is_thinking=True,
    thinking_prefix="<think>",
    non_thinking_prefix="</think>",
    history_thinking_prefix="</think>",
    thinks_by_default=False,
    thinks_after_tools=False,
)
DEEPSEEK_OCR = ChatTemplate(
    name="deepseek_ocr",
    prefix="<｜begin▁of▁sentence｜>",
    prompt="{{QUERY}}",
    chat_sep=None,
    suffix="{{EOS}}",
)

FAMILIES: tuple[ChatTemplate, ...] = (
    DEEPSEEK,
    DEEPSEEK.named(
        "deepseek_vl",
        default_system=(
            "You are a helpful language and vision assistant. You are able to understand the "
            "visual content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
    ),
    DEEPSEEK.named(
        "deepseek_janus",
        default_system=(
            "You are a helpful language and vision assistant. You are able to understand the "
            "visual content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
    ),
    DEEPSEEK.named(
        "deepseek_janus_pro",
        prompt="<|User|>: {{QUERY}}\n\n<|Assistant|>:",
        default_system=(
            "You are a helpful language and vision assistant. You are able to understand the "
            "visual content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
        control_tokens=("<|User|>", "<|Assistant|>"),
    ),
    ChatTemplate(
        name="deepseek_coder",
        system_prefix="{{SYSTEM}}",
        prompt="### Instruction:\n{{QUERY}}\n### Response:\n",
        chat_sep="\n<|EOT|>\n",
        suffix="\n<|EOT|>",
        default_system=(
            "You are an AI programming assistant, utilizing the Deepseek Coder model, developed "
            "by Deepseek Company, and you only answer questions related to computer science. For "
            "politically sensitive questions, security and privacy issues, and other "
            "non-computer science questions, you will refuse to answer\n"
        ),
        stop_words=("<|EOT|>",),
        control_tokens=("<|EOT|>",),
    ),
    DEEPSEEK_V2_5,
    DEEPSEEK_V2_5.named("deepseek_r1", is_thinking=True, thinking_prefix="<think>\n"),
    DEEPSEEK_V3_1,
    DEEPSEEK_V3_1.named("deepseek_v4", agent_template="deepseek_v4"),
    DEEPSEEK_V3_1.named("deepseek_v41", agent_template="deepseek_v41"),
    DEEPSEEK_V3_1.named("deepseek_v4_flash", agent_template="deepseek_v4"),
    ChatTemplate(
        name="deepseek_vl2",
        prefix="<｜begin▁of▁sentence｜>",
        system_prefix="<｜begin▁of▁sentence｜>{{SYSTEM}}",
        prompt="<|User|>: {{QUERY}}\n\n<|Assistant|>:",
        chat_sep="<｜end▁of▁sentence｜>",
        suffix="<｜end▁of▁sentence｜>",
        control_tokens=("<|User|>", "<|Assistant|>", "<｜end▁of▁sentence｜>"),
    ),
    DEEPSEEK_OCR,
    DEEPSEEK_OCR.named("deepseek_ocr2"),
    DEEPSEEK_OCR.named("unlimited_ocr", prefix="{{BOS}}"),
)
