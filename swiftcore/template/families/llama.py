"""Llama, of Meta, and what is built on it."""

from swiftcore.template.definition import ChatTemplate

LLAMA = ChatTemplate(
    name="llama",
    prefix="<s>[INST] ",
    system_prefix="<s>[INST] <<SYS>>\n{{SYSTEM}}\n<</SYS>>\n\n",
    prompt="{{QUERY}} [/INST]",
    chat_sep="</s><s>[INST] ",
    suffix="</s>",
    default_system=(
        "You are a helpful, respectful and honest assistant. Always answer as helpfully as "
        "possible, while being safe. Your answers should not include any harmful, unethical, "
        "racist, sexist, toxic, dangerous, or illegal content. Please ensure that your responses "
        "are socially unbiased and positive in nature.\n\nIf a question does not make any sense, "
        "or is not factually coherent, explain why instead of answering something not correct. "
        "If you don't know the answer to a question, please don't share false information."
    ),
    control_tokens=("<s>", "</s>"),
)
LLAMA3 = ChatTemplate(
    name="llama3",
    prefix="<|begin_of_text|>",
    system_prefix=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{{SYSTEM}}<|eot_id|>"
    ),
    prompt=(
        "<|start_header_id|>user<|end_header_id|>\n\n{{QUERY}}<|eot_id|><|start_header_id|>"
        "assistant<|end_header_id|>\n\n"
    ),
    chat_sep="<|eot_id|>",
    suffix="<|eot_id|>",
    agent_template="llama3",
    control_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
LLAMA3_2 = LLAMA3.named(
    "llama3_2",
    prefix=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n"
        "\nCutting Knowledge Date: December 2023\nToday Date: {{TODAY:%d %b %Y}}\n"
        "\n<|eot_id|>"
    ),
    system_prefix=(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n"
        "\nCutting Knowledge Date: December 2023\nToday Date: {{TODAY:%d %b %Y}}\n"
        "\n{{SYSTEM}}<|eot_id|>"
    ),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    LLAMA,
    LLAMA3,
    LLAMA3_2,
    LLAMA3_2.named("llama3_2_vision"),
    LLAMA3_2.named(
        "skywork_o1",
        default_system=(
            "You are Skywork-o1, a thinking model developed by Skywork AI, specializing in "
            "solving complex problems involving mathematics, coding, and logical reasoning "
            "through deep thought. When faced with a user's request, you first engage in a "
            "lengthy and in-depth thinking process to explore possible solutions to the problem. "
            "After completing your thoughts, you then provide a detailed explanation of the "
            "solution process in your response."
        ),
    ),
    LLAMA3.named(
        "reflection",
        default_system=(
            "You are a world-class AI system, capable of complex reasoning and reflection. "
            "Reason through the query inside <thinking> tags, and then provide your final "
            "response inside <output> tags. If you detect that you made a mistake in your "
            "reasoning at any point, correct yourself inside <reflection> tags."
        ),
    ),
    LLAMA3.named(
        "llama3_1_omni",
        default_system=(
            "You are a helpful language and speech assistant. You are able to understand the "
            "speech content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
    ),
    LLAMA3.named(
        "ovis1_6_llama3",
        default_system="You are a helpful and honest multimodal assistant.",
        agent_template=None,
    ),
    ChatTemplate(
        name="llama4",
        prefix="<|begin_of_text|>",
        system_prefix="<|begin_of_text|><|header_start|>system<|header_end|>\n\n{{SYSTEM}}<|eot|>",
        prompt=(
            "<|header_start|>user<|header_end|>\n\n{{QUERY}}<|eot|><|header_start|>assistant"
            "<|header_end|>\n\n"
        ),
        chat_sep="<|eot|>",
        suffix="<|eot|>",
        stop_words=("<|end_of_text|>", "<|eom|>"),
        agent_template="llama4",
        control_tokens=("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
    ),
    ChatTemplate(
        name="longwriter_llama",
        prefix="[INST]",
        system_prefix="<<SYS>>\n{{SYSTEM}}\n<</SYS>>\n\n",
        prompt="{{QUERY}}[/INST]",
        chat_sep="[INST]",
        suffix="<|end_of_text|>",
    ),
    ChatTemplate(
        name="muse_glimmer",
        prefix="<|begin_of_text|>",
        system_prefix="<|begin_of_text|>{{SYSTEM}}",
        prompt="<|start|>user<|message|>{{QUERY}}<|eot|><|start|>assistant",
        chat_sep="<|eot|>",
        suffix="<|eot|>",
    ),
    ChatTemplate(
        name="atom",
        system_prefix="{{SYSTEM}}",
        prompt="<s>Human: {{QUERY}}\n</s><s>Assistant: ",
        chat_sep="</s>",
        suffix="</s>",
        control_tokens=("<s>", "</s>"),
    ),
)
