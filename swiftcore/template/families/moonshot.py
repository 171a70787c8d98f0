"""Kimi and Moonlight, of Moonshot AI."""

from swiftcore.template.definition import ChatTemplate

MOONLIGHT = ChatTemplate(
    name="moonlight",
    system_prefix="<|im_system|>system<|im_middle|>{{SYSTEM}}<|im_end|>",
    prompt="<|im_user|>user<|im_middle|>{{QUERY}}<|im_end|><|im_assistant|>assistant<|im_middle|>",
    chat_sep="<|im_end|>",
    suffix="<|im_end|>",
    default_system="You are a helpful assistant",
    control_tokens=("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    MOONLIGHT,
    MOONLIGHT.named(
        "kimi_k2",
        default_system="You are Kimi, an AI assistant created by Moonshot AI.",
    ),
    MOONLIGHT.named("kimi_vl"),
    # Registered without "system<|im_middle|>", which ms-swift adds in code.
    MOONLIGHT.named(
        "kimi_k25",
        default_system=None,
        agent_template="kimi_k25",
        is_thinking=True,
        thinking_prefix="<think>",
        non_thinking_prefix="<think></think>",
        history_thinking_prefix="<think></think>",
    ),
    # The system turn's role is written like the user's; it is not registered as a text.
    ChatTemplate(
        name="kimi_k3",
        system_prefix=(
            '<|open|>message role="system"<|sep|>{{SYSTEM}}<|close|>message<|sep|><|end_of_msg|>'
        ),
        prompt=(
            '<|open|>message role="user"<|sep|>{{QUERY}}<|close|>message<|sep|><|end_of_msg|>'
            '<|open|>message role="assistant"<|sep|>'
        ),
        chat_sep="<|close|>message<|sep|><|end_of_msg|>",
        suffix="<|close|>message<|sep|><|end_of_msg|>",
        agent_template="kimi_k3",
        control_tokens=("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
        is_thinking=True,
        thinking_prefix="<|open|>think<|sep|>",
        non_thinking_prefix="<|open|>think<|sep|><|close|>think<|sep|><|open|>response<|sep|>",
        history_thinking_prefix="<|open|>think<|sep|><|close|>think<|sep|><|open|>response<|sep|>",
        thinking_marks=("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"),
    ),
)
