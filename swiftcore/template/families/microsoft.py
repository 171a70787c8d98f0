"""Phi and Florence, of Microsoft, with WizardLM."""

from swiftcore.template.definition import ChatTemplate

PHI3 = ChatTemplate(
    name="phi3",
    system_prefix="<|system|>\n{{SYSTEM}}<|end|>\n",
    prompt="<|user|>\n{{QUERY}}<|end|>\n<|assistant|>\n",
    chat_sep="<|end|>\n",
    suffix="<|end|>",
    add_bos=True,
    control_tokens=("<|user|>", "<|assistant|>", "<|end|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    PHI3,
    PHI3.named("phi3_vision"),
    PHI3.named("phi4_multimodal"),
    ChatTemplate(
        name="phi4",
        system_prefix="<|im_start|>system<|im_sep|>{{SYSTEM}}<|im_end|>",
        prompt="<|im_start|>user<|im_sep|>{{QUERY}}<|im_end|><|im_start|>assistant<|im_sep|>",
        chat_sep="<|im_end|>",
        suffix="<|im_end|>",
        add_bos=True,
        control_tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    ),
    ChatTemplate(
        name="florence",
        prefix="<s>",
        prompt="{{QUERY}}</s>",
        chat_sep=None,
        suffix="</s>",
    ),
    ChatTemplate(
        name="wizardlm2",
        system_prefix="{{SYSTEM}}",
        prompt="User:\n{{QUERY}}\n\nAssistant:\n",
        chat_sep="\n\n",
        suffix="</s>",
    ),
    ChatTemplate(
        name="wizardlm2_moe",
        system_prefix="{{SYSTEM}}",
        prompt="USER: {{QUERY}} ASSISTANT:",
        chat_sep="</s>",
        suffix="</s>",
        default_system=(
            "A chat between a curious user and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the user's questions. "
        ),
    ),
)
