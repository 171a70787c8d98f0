"""MiniCPM, of OpenBMB."""

from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families.llama import LLAMA3
from swiftcore.template.families.plain import CHATML
from swiftcore.template.families.qwen import QWEN, QWEN3, QWEN3_5

MINICPM = ChatTemplate(
    name="minicpm",
    prefix="<s>",
    system_prefix="<s>{{SYSTEM}}",
    prompt="<用户>{{QUERY}}<AI>",
    chat_sep="",
    suffix="</s>",
    control_tokens=("</s>",),
)
MINICPM_THINKING = CHATML.named(
    "minicpmv4_6",
    is_thinking=True,
    thinking_prefix="<think>\n",
    non_thinking_prefix="<think>\n\n</think>\n\n",
)

FAMILIES: tuple[ChatTemplate, ...] = (
    MINICPM,
    MINICPM.named("minicpmv"),
    LLAMA3.named("minicpmv2_5"),
    QWEN.named("minicpmv2_6"),
    QWEN.named(
        "minicpmo",
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    CHATML.named("minicpmv4"),
    QWEN3_5.named("minicpmv4_5", agent_template="hermes", thinks_by_default=False),
    QWEN3.named("minicpmo4_5"),
    MINICPM_THINKING,
    MINICPM_THINKING.named("minicpmv4_7"),
    MINICPM_THINKING.named("minicpm5", agent_template="minicpm5"),
    MINICPM_THINKING.named("minicpm5_2b", agent_template="minicpm5", preserve_thinking=True),
)
