"""InternLM, InternVL and the XComposer models, of the Shanghai AI Laboratory."""

from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families.microsoft import PHI3
from swiftcore.template.families.openai import GPT_OSS
from swiftcore.template.families.plain import CHATML

XCOMPOSER2 = ChatTemplate(
    name="ixcomposer2",
    prefix="<s>",
    system_prefix="<s>[UNUSED_TOKEN_146]system\n{{SYSTEM}}[UNUSED_TOKEN_145]\n",
    prompt="[UNUSED_TOKEN_146]user\n{{QUERY}}[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n",
    chat_sep="[UNUSED_TOKEN_145]\n",
    suffix="[UNUSED_TOKEN_145]",
    default_system=(
        "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
        "- InternLM-XComposer (浦语·灵笔) is a conversational language model that is developed "
        "by Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, "
        "and harmless.\n- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently "
        "in the language chosen by the user such as English and 中文."
    ),
    stop_words=("<|im_end|>",),
    control_tokens=("[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    ChatTemplate(
        name="internlm",
        prefix="<s>",
        system_prefix="<s><|System|>:{{SYSTEM}}\n",
        prompt="<|User|>:{{QUERY}}\n<|Bot|>:",
        chat_sep="<eoa>\n",
        suffix="<eoa>",
        default_system=(
            "You are an AI assistant whose name is InternLM (书生·浦语).\n"
            "- InternLM (书生·浦语) is a conversational language model that is developed by "
            "Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, "
            "and harmless.\n- InternLM (书生·浦语) can understand and communicate fluently in "
            "the language chosen by the user such as English and 中文."
        ),
        control_tokens=("<eoa>",),
    ),
    CHATML.named(
        "internlm2",
        default_system=(
            "You are an AI assistant whose name is InternLM (书生·浦语).\n"
            "- InternLM (书生·浦语) is a conversational language model that is developed by "
            "Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, "
            "and harmless.\n- InternLM (书生·浦语) can understand and communicate fluently in "
            "the language chosen by the user such as English and 中文."
        ),
    ),
    CHATML.named("internlm2_reward", suffix="<|im_end|>\n<|reward|>"),
    CHATML.named(
        "internvl",
        default_system="You are an AI assistant whose name is InternLM (书生·浦语).",
    ),
    CHATML.named(
        "internvl2",
        default_system=(
            "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
            "是一个有用无害的人工智能助手。"
        ),
    ),
    CHATML.named(
        "internvl2_5",
        default_system=(
            "你是书生·万象，英文名是InternVL，"
            "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
        ),
    ),
    CHATML.named("internvl3_5"),
    CHATML.named("internvl_hf"),
    CHATML.named(
        "interns1",
        default_system=(
            "You are an expert reasoner with extensive experience in all areas. You approach "
            "problems through systematic thinking and rigorous reasoning. Your response should "
            "reflect deep understanding and precise logical thinking, making your solution path "
            "and reasoning clear to others. Please put your thinking process within <think>..."
            "</think> tags."
        ),
        is_thinking=True,
        thinking_prefix="<think>",
    ),
    PHI3.named("internvl_phi3", default_system="You are an AI assistant whose name is Phi-3."),
    PHI3.named(
        "internvl2_phi3",
        default_system=(
            "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
            "是一个有用无害的人工智能助手。"
        ),
    ),
    GPT_OSS.named("internvl3_5_gpt"),
    XCOMPOSER2,
    XCOMPOSER2.named(
        "xcomposer2_5",
        default_system=(
            "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
            "- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model "
            "that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to "
            "be helpful, honest, and harmless.\n- InternLM-XComposer (浦语·灵笔) can understand "
            "and communicate fluently in the language chosen by the user such as English and "
            "中文.\n- InternLM-XComposer (浦语·灵笔) is capable of comprehending and "
            "articulating responses effectively based on the provided image."
        ),
    ),
    XCOMPOSER2.named(
        "xcomposer2_4khd",
        default_system=(
            "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
            "- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model "
            "that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to "
            "be helpful, honest, and harmless.\n- InternLM-XComposer (浦语·灵笔) can understand "
            "and communicate fluently in the language chosen by the user such as English and "
            "中文.\n- InternLM-XComposer (浦语·灵笔) is capable of comprehending and "
            "articulating responses effectively based on the provided image."
        ),
    ),
)
