"""Seed, Sail and what else comes from ByteDance."""

from swiftcore.template.definition import ChatTemplate

FAMILIES: tuple[ChatTemplate, ...] = (
    # Registered with "<seed:bos>" before the first turn too; the published template has it once.
    ChatTemplate(
        name="seed_oss",
        system_prefix="<seed:bos>system\n{{SYSTEM}}<seed:eos>",
        prompt="<seed:bos>user\n{{QUERY}}<seed:eos><seed:bos>assistant\n",
        chat_sep="<seed:eos>",
        suffix="<seed:eos>",
        stop_words=("<seed:eos>",),
        add_bos=True,
        control_tokens=("<seed:bos>", "<seed:eos>"),
    ),
    ChatTemplate(
        name="sail_vl2",
        system_prefix="<|im_start|>system\n{{SYSTEM}}<|im_end|>",
        prompt="<|im_start|>user\n{{QUERY}}<|im_end|><|im_start|>assistant\n",
        chat_sep="<|im_end|>",
        suffix="<|im_end|>\n",
        default_system=(
            "你是由抖音内容理解组开发的多模态大模型，英文名叫UniVL, 是一个有用无害的人工智能助手。"
        ),
        add_bos=True,
        control_tokens=("<|im_start|>", "<|im_end|>"),
    ),
)
