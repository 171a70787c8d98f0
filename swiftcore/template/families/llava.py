"""LLaVA and its kin, grouped by the language model inside."""

from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families.llama import LLAMA3
from swiftcore.template.families.plain import CHATML
from swiftcore.template.families.qwen import QWEN, QWEN_BARE

LLAVA_MISTRAL = ChatTemplate(
    name="llava1_6_mistral_hf",
    prefix="<s>[INST] ",
    system_prefix="<s>[INST] <<SYS>>\n{{SYSTEM}}\n<</SYS>>\n\n",
    prompt="{{QUERY}} [/INST]",
    chat_sep="</s>[INST] ",
    suffix="</s>",
    control_tokens=("<s>", "</s>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    ChatTemplate(
        name="llava1_5_hf",
        prefix="<s>",
        system_prefix="<s>{{SYSTEM}}\n",
        prompt="USER: {{QUERY}}\nASSISTANT:",
        chat_sep="</s>",
        suffix="</s>",
        control_tokens=("<s>", "</s>"),
    ),
    ChatTemplate(
        name="llava1_6_vicuna_hf",
        prefix="<s>",
        system_prefix="<s>{{SYSTEM}} ",
        prompt="USER: {{QUERY}} ASSISTANT:",
        chat_sep="</s>",
        suffix="</s>",
        default_system=(
            "A chat between a curious human and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the human's questions."
        ),
        control_tokens=("<s>", "</s>"),
    ),
    ChatTemplate(
        name="llava_next_video_hf",
        prefix=" ",
        system_prefix="{{SYSTEM}} ",
        prompt="USER: {{QUERY}} ASSISTANT:",
        chat_sep=" ",
        suffix="{{EOS}}",
        add_bos=True,
    ),
    LLAVA_MISTRAL,
    LLAVA_MISTRAL.named("llava1_6_mistral"),
    CHATML.named("llava1_6_yi_hf"),
    CHATML.named("llava1_6_yi"),
    LLAMA3.named("llama3_llava_next_hf", agent_template=None),
    LLAMA3.named(
        "llava_llama3_1_hf",
        default_system=(
            "You are a helpful language and vision assistant. You are able to understand the "
            "visual content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
        agent_template=None,
    ),
    LLAMA3.named("llava_llama3_hf", agent_template=None),
    LLAMA3.named(
        "llama3_llava_next",
        default_system=(
            "You are a helpful language and vision assistant. You are able to understand the "
            "visual content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
        agent_template=None,
    ),
    QWEN.named("llava_next_qwen_hf", agent_template=None),
    QWEN.named("llava_next_qwen", agent_template=None),
    QWEN.named("llava_onevision1_5", agent_template=None),
    QWEN.named("llava_onevision2", agent_template=None),
    QWEN_BARE.named("llava_onevision_hf", agent_template=None),
)
