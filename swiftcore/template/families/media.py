"""Makers with one or two multimodal families each."""

from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families.plain import BARE

STEP_AUDIO = ChatTemplate(
    name="step_audio",
    prefix="<s>",
    system_prefix="<s><|BOT|>system\n{{SYSTEM}}<|EOT|>",
    prompt="<|BOT|>human\n{{QUERY}}<|EOT|><|BOT|>assistant\n",
    chat_sep="<|EOT|>",
    suffix="<|EOT|>",
    control_tokens=("<|BOT|>", "<|EOT|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    BARE.named("emu3_gen"),
    ChatTemplate(
        name="emu3_chat",
        prefix="{{BOS}}",
        system_prefix="{{BOS}}{{SYSTEM}}",
        prompt=" User: {{QUERY}}. Assistant:",
        chat_sep="{{EOS}}",
        suffix="{{EOS}}",
        default_system="You are a helpful assistant.",
    ),
    ChatTemplate(
        name="dots_ocr",
        system_prefix="<|system|>{{SYSTEM}}<|endofsystem|>\n",
        prompt="<|user|>{{QUERY}}<|endofuser|><|assistant|>",
        chat_sep="<|endofassistant|>",
        suffix="<|endofassistant|>",
        control_tokens=("<|user|>", "<|endofuser|>", "<|assistant|>", "<|endofassistant|>"),
    ),
    ChatTemplate(
        name="monkeyocrv2",
        prompt="{{QUERY}}",
        chat_sep="\n",
        suffix="",
    ),
    ChatTemplate(
        name="idefics3",
        prefix="<|begin_of_text|>",
        system_prefix="System:{{SYSTEM}}<end_of_utterance>\n",
        prompt="User:{{QUERY}}<end_of_utterance>\nAssistant:",
        chat_sep="<end_of_utterance>\n",
        suffix="<end_of_utterance>",
        control_tokens=("<end_of_utterance>",),
    ),
    ChatTemplate(
        name="molmo",
        prompt=" User: {{QUERY}} Assistant:",
        chat_sep=None,
        suffix="<|endoftext|>",
    ),
    ChatTemplate(
        name="mplug_owl2",
        system_prefix="{{SYSTEM}}",
        prompt="USER: {{QUERY}}ASSISTANT:",
        chat_sep="</s>",
        suffix="{{EOS}}",
        stop_words=("<|endoftext|>", "</s>"),
    ),
    ChatTemplate(
        name="doc_owl2",
        prefix="<s>",
        prompt=" USER: {{QUERY}} ASSISTANT:",
        chat_sep="</s>",
        suffix="</s>",
    ),
    ChatTemplate(
        name="yi_vl",
        system_prefix="{{SYSTEM}}\n\n",
        prompt="{{ID:8308}} Human: {{QUERY}}\n{{ID:8308}} Assistant:",
        chat_sep="\n",
        suffix="\n{{ID:8308}}",
        default_system=(
            "This is a chat between an inquisitive human and an AI assistant. Assume the role of "
            "the AI assistant. Read all the images carefully, and respond to the human's "
            "questions with informative, helpful, detailed and polite answers. "
            "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
            "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。"
        ),
    ),
    STEP_AUDIO,
    STEP_AUDIO.named(
        "step_audio2_mini",
        prefix="",
        system_prefix="<|BOT|>system\n{{SYSTEM}}<|EOT|>",
    ),
)
