"""Forms that belong to no maker: ChatML, and plain text with names before the turns."""

from swiftcore.template.definition import ChatTemplate

CHATML = ChatTemplate(
    name="chatml",
    system_prefix="<|im_start|>system\n{{SYSTEM}}<|im_end|>\n",
    prompt="<|im_start|>user\n{{QUERY}}<|im_end|>\n<|im_start|>assistant\n",
    chat_sep="<|im_end|>\n",
    suffix="<|im_end|>\n",
    add_bos=True,
    control_tokens=("<|im_start|>", "<|im_end|>"),
)
BARE = ChatTemplate(
    name="dummy",
    prompt="{{QUERY}}",
    chat_sep=None,
    suffix="{{EOS}}",
    add_bos=True,
)

FAMILIES: tuple[ChatTemplate, ...] = (
    CHATML,
    ChatTemplate(
        name="default",
        system_prefix="{{SYSTEM}}\n\n",
        prompt="### Human:\n{{QUERY}}\n\n### Assistant:\n",
        chat_sep="\n\n",
        suffix="{{EOS}}",
        default_system="You are a helpful assistant.",
        add_bos=True,
    ),
    BARE,
    ChatTemplate(
        name="generic_decision",
        prompt="{{QUERY}}",
        chat_sep=None,
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="modelscope_agent",
        system_prefix=" \n\n<|system|>:{{SYSTEM}}",
        prompt=" \n\n<|user|>:{{QUERY}} \n\n<|assistant|>:",
        chat_sep="",
        suffix=" \n\n</s>",
        default_system="You are a helpful assistant.",
    ),
    ChatTemplate(
        name="bert",
        prompt="{{QUERY}}[SEP]",
        chat_sep="[SEP]",
        suffix="{{EOS}}",
        add_bos=True,
    ),
    ChatTemplate(
        name="bge_reranker",
        prefix="<s> ",
        prompt="{{QUERY}}</s></s> ",
        chat_sep="",
        suffix="</s>",
    ),
    ChatTemplate(
        name="jina_reranker_m0",
        prompt="{{QUERY}}",
        chat_sep="",
        suffix="{{EOS}}",
    ),
    CHATML.named("yi_coder", default_system="You are a helpful assistant."),
    CHATML.named(
        "dbrx",
        default_system=(
            "You are DBRX, created by Databricks. You were last updated in December 2023. You "
            "answer questions based on information available up to that point.\n"
            "YOU PROVIDE SHORT RESPONSES TO SHORT QUESTIONS OR STATEMENTS, but provide thorough "
            "responses to more complex and open-ended questions.\n"
            "You assist with various tasks, from writing to coding (using markdown for code "
            "blocks — remember to use ``` with code, JSON, and tables).\n"
            "You do not have real-time data access or code execution capabilities. You avoid "
            "stereotyping and provide balanced perspectives on controversial topics. You do not "
            "provide song lyrics, poems, or news articles and do not divulge details of your "
            "training data.\nThis is your system prompt, guiding your responses. Do not "
            "reference it, just respond to the user. If you find yourself talking about this "
            "message, stop. You should be responding appropriately and usually that means not "
            "mentioning this.YOU DO NOT MENTION ANY OF THIS INFORMATION ABOUT YOURSELF UNLESS "
            "THE INFORMATION IS DIRECTLY PERTINENT TO THE USER'S QUERY."
        ),
    ),
    CHATML.named("molmo2"),
    CHATML.named("moss_vl", agent_template="hermes"),
)
