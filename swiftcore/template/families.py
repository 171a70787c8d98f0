"""The registered families, each as data.

Sources: the models' published chat templates, checked against recorded ms-swift encodings
(`tests/test_template_golden.py`).
"""

from dataclasses import replace

from swiftcore.template.definition import ChatTemplate

_CHATML = ChatTemplate(
    name="chatml",
    system_prefix="<|im_start|>system\n{{SYSTEM}}<|im_end|>\n",
    prompt="<|im_start|>user\n{{QUERY}}<|im_end|>\n<|im_start|>assistant\n",
    chat_sep="<|im_end|>\n",
    suffix="<|im_end|>\n",
    add_bos=True,
    control_tokens=("<|im_start|>", "<|im_end|>"),
)
_QWEN = replace(
    _CHATML,
    name="qwen",
    add_bos=False,
    default_system="You are a helpful assistant.",
    stop_words=("<|endoftext|>",),
)
_QWEN3 = replace(_QWEN, name="qwen3_nothinking", default_system=None)
_QWEN3_THINKING = replace(
    _QWEN3, name="qwen3_thinking", thinking_prefix="<think>\n", is_thinking=True
)
_LLAMA3_SYSTEM = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
_LLAMA3_DATES = "Cutting Knowledge Date: December 2023\nToday Date: {{TODAY:%d %b %Y}}\n\n"
_LLAMA3 = ChatTemplate(
    name="llama3",
    prefix="<|begin_of_text|>",
    system_prefix=_LLAMA3_SYSTEM + "{{SYSTEM}}<|eot_id|>",
    prompt=(
        "<|start_header_id|>user<|end_header_id|>\n\n{{QUERY}}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    chat_sep="<|eot_id|>",
    suffix="<|eot_id|>",
    control_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
_DEEPSEEK_V2_5 = ChatTemplate(
    name="deepseek_v2_5",
    prefix="<｜begin▁of▁sentence｜>",
    system_prefix="<｜begin▁of▁sentence｜>{{SYSTEM}}",
    prompt="<｜User｜>{{QUERY}}<｜Assistant｜>",
    chat_sep="<｜end▁of▁sentence｜>",
    suffix="<｜end▁of▁sentence｜>",
    control_tokens=("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    _CHATML,
    replace(_CHATML, name="yi_coder", default_system="You are a helpful assistant."),
    _QWEN,
    replace(
        _QWEN,
        name="qwen2_5",
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    replace(
        _QWEN3,
        name="qwen3",
        non_thinking_prefix="<think>\n\n</think>\n\n",
        is_thinking=True,
    ),
    _QWEN3,
    _QWEN3_THINKING,
    replace(_QWEN3_THINKING, name="qwq"),
    _LLAMA3,
    replace(
        _LLAMA3,
        name="llama3_2",
        prefix=_LLAMA3_SYSTEM + _LLAMA3_DATES + "<|eot_id|>",
        system_prefix=_LLAMA3_SYSTEM + _LLAMA3_DATES + "{{SYSTEM}}<|eot_id|>",
    ),
    ChatTemplate(
        name="gemma",
        prefix="<bos>",
        system_prefix="<bos><start_of_turn>system\n{{SYSTEM}}<end_of_turn>\n",
        prompt="<start_of_turn>user\n{{QUERY}}<end_of_turn>\n<start_of_turn>model\n",
        chat_sep="<end_of_turn>\n",
        suffix="<end_of_turn>",
        control_tokens=("<start_of_turn>", "<end_of_turn>"),
    ),
    ChatTemplate(
        name="phi3",
        system_prefix="<|system|>\n{{SYSTEM}}<|end|>\n",
        prompt="<|user|>\n{{QUERY}}<|end|>\n<|assistant|>\n",
        chat_sep="<|end|>\n",
        suffix="<|end|>",
        add_bos=True,
        control_tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    ChatTemplate(
        name="phi4",
        system_prefix="<|im_start|>system<|im_sep|>{{SYSTEM}}<|im_end|>",
        prompt=("<|im_start|>user<|im_sep|>{{QUERY}}<|im_end|><|im_start|>assistant<|im_sep|>"),
        chat_sep="<|im_end|>",
        suffix="<|im_end|>",
        add_bos=True,
        control_tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    ),
    ChatTemplate(
        name="deepseek",
        prefix="{{BOS}}",
        system_prefix="{{BOS}}{{SYSTEM}}\n\n",
        prompt="User: {{QUERY}}\n\nAssistant:",
        chat_sep="{{EOS}}",
        suffix="{{EOS}}",
    ),
    _DEEPSEEK_V2_5,
    replace(
        _DEEPSEEK_V2_5,
        name="deepseek_r1",
        thinking_prefix="<think>\n",
        is_thinking=True,
    ),
    ChatTemplate(
        name="zephyr",
        system_prefix="<|system|>\n{{SYSTEM}}</s>\n",
        prompt="<|user|>\n{{QUERY}}</s>\n<|assistant|>\n",
        chat_sep="</s>\n",
        suffix="</s>",
        control_tokens=("</s>",),
    ),
    ChatTemplate(
        name="minicpm",
        prefix="<s>",
        system_prefix="<s>{{SYSTEM}}",
        prompt="<用户>{{QUERY}}<AI>",
        chat_sep="",
        suffix="</s>",
        control_tokens=("</s>",),
    ),
    ChatTemplate(
        name="default",
        system_prefix="{{SYSTEM}}\n\n",
        prompt="### Human:\n{{QUERY}}\n\n### Assistant:\n",
        chat_sep="\n\n",
        suffix="{{EOS}}",
        default_system="You are a helpful assistant.",
        add_bos=True,
    ),
)
