"""ERNIE and PaddleOCR, of Baidu."""

from swiftcore.template.definition import ChatTemplate

ERNIE = ChatTemplate(
    name="ernie",
    prefix="<|begin_of_sentence|>",
    system_prefix="<|begin_of_sentence|>{{SYSTEM}}\n",
    prompt="User: {{QUERY}}\nAssistant: ",
    chat_sep="<|end_of_sentence|>",
    suffix="</s>",
    control_tokens=("<|begin_of_sentence|>", "<|end_of_sentence|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    ERNIE,
    ERNIE.named("paddle_ocr"),
    ERNIE.named("ernie_vl", is_thinking=True, thinking_prefix="<think>"),
    ERNIE.named(
        "ernie_vl_thinking",
        default_system=(
            "You are a multimodal AI assistant called ERNIE developed by Baidu based on the "
            "PaddlePaddle framework."
        ),
        is_thinking=True,
        thinking_prefix="\n<think>\n",
    ),
    ERNIE.named("paddle_ocr_1_5", prompt="User: {{QUERY}}\nAssistant:\n"),
    ChatTemplate(
        name="ernie_thinking",
        prefix=(
            "<|im_start|>system\n<global_setting>\nthink_mode=True\n</global_setting><|im_end|>\n\n"
        ),
        system_prefix=(
            "<|im_start|>system\n<system_setting>\n{{SYSTEM}}\n</system_setting>\n"
            "\n<global_setting>\nthink_mode=True\n</global_setting><|im_end|>\n"
            "\n"
        ),
        prompt="<|im_start|>user\n{{QUERY}}<|im_end|>\n\n<|im_start|>assistant\n",
        chat_sep="<|im_end|>\n\n",
        suffix="<|im_end|>",
        control_tokens=("<|im_start|>", "<|im_end|>"),
        is_thinking=True,
        thinking_prefix="<think>\n",
    ),
)
