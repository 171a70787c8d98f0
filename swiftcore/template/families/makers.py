"""Makers with one or two families each, text only."""

from swiftcore.template.definition import ChatTemplate

TELECHAT = ChatTemplate(
    name="telechat",
    system_prefix="<_system>{{SYSTEM}}\n",
    prompt="{{TOKEN:user_token_id}}{{QUERY}}{{TOKEN:bot_token_id}}",
    chat_sep="{{EOS}}",
    suffix="{{EOS}}",
    add_bos=True,
)
COMMAND_R = ChatTemplate(
    name="c4ai",
    prefix="<BOS_TOKEN>",
    system_prefix=(
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{SYSTEM}}<|END_OF_TURN_TOKEN|>"
    ),
    prompt=(
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{QUERY}}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    ),
    chat_sep="<|END_OF_TURN_TOKEN|>",
    suffix="<|END_OF_TURN_TOKEN|>",
    default_system=(
        "You are Command-R, a brilliant, sophisticated, AI-assistant trained to assist human "
        "users by providing thorough responses.You are trained by Cohere."
    ),
    control_tokens=(
        "<|START_OF_TURN_TOKEN|>",
        "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
)
OLMOE = ChatTemplate(
    name="olmoe",
    prefix="|||IP_ADDRESS|||",
    system_prefix="|||IP_ADDRESS|||<|system|>\n{{SYSTEM}}\n",
    prompt="<|user|>\n{{QUERY}}\n<|assistant|>\n",
    chat_sep="|||IP_ADDRESS|||\n",
    suffix="|||IP_ADDRESS|||",
    stop_words=("<|endoftext|>",),
)
MEGREZ = ChatTemplate(
    name="megrez",
    prefix="<|role_start|>system<|role_end|><|turn_end|>",
    system_prefix="<|role_start|>system<|role_end|>{{SYSTEM}}<|turn_end|>",
    prompt="<|role_start|>user<|role_end|>{{QUERY}}<|turn_end|><|role_start|>assistant<|role_end|>",
    chat_sep="<|turn_end|>",
    suffix="<|turn_end|>",
    default_system="你是Megrez-3B-Instruct，将针对用户的问题给出详细的、积极的回答。",
    control_tokens=("<|role_start|>", "<|role_end|>", "<|turn_end|>"),
)

FAMILIES: tuple[ChatTemplate, ...] = (
    ChatTemplate(
        name="baichuan",
        system_prefix="{{SYSTEM}}",
        prompt="{{ID:195}}{{QUERY}}{{ID:196}}",
        chat_sep="",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="baichuan_m1",
        system_prefix="<B_SYS>{{SYSTEM}}",
        prompt="<C_Q>{{QUERY}}<C_A>",
        chat_sep="",
        suffix="<C_A>",
        default_system="You are a helpful assistant.",
        control_tokens=("<C_Q>", "<C_A>"),
    ),
    ChatTemplate(
        name="numina",
        prefix="{{BOS}}",
        system_prefix="{{BOS}}{{SYSTEM}}",
        prompt="### Problem: {{QUERY}}\n### Solution: ",
        chat_sep="\n",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="xverse",
        system_prefix="{{SYSTEM}}",
        prompt="Human: {{QUERY}}\n\nAssistant: ",
        chat_sep="{{EOS}}",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="yuan",
        prompt="{{QUERY}}<sep>",
        chat_sep=None,
        suffix="{{EOS}}",
        control_tokens=("<sep>",),
    ),
    ChatTemplate(
        name="ziya",
        prefix="{{BOS}}",
        system_prefix="{{BOS}}{{SYSTEM}}",
        prompt="<human>:{{QUERY}}\n<bot>:",
        chat_sep="\n",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="bluelm",
        prefix="{{BOS}}",
        system_prefix="{{BOS}}{{SYSTEM}}",
        prompt="[|Human|]:{{QUERY}}[|AI|]:",
        chat_sep="",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="skywork",
        prefix="<s>",
        system_prefix="<s>{{SYSTEM}}",
        prompt="</s><s>[USER]{{QUERY}}[SEP][BOT]",
        chat_sep=None,
        suffix="[SEP]</s>",
        control_tokens=("<s>", "</s>"),
    ),
    ChatTemplate(
        name="codefuse_codellama",
        system_prefix="{{SYSTEM}}",
        prompt="<|role_start|>human<|role_end|>{{QUERY}}<|role_start|>bot<|role_end|>",
        chat_sep="",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="codefuse",
        system_prefix="<s>system\n{{SYSTEM}}\n",
        prompt="<s>human\n{{QUERY}}\n<s>bot\n",
        chat_sep="{{EOS}}\n",
        suffix="{{EOS}}",
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
        name="sus",
        system_prefix="{{SYSTEM}}",
        prompt="### Human: {{QUERY}}\n\n### Assistant: ",
        chat_sep="<|endoftext|>",
        suffix="<|endoftext|>",
        control_tokens=("<|endoftext|>",),
    ),
    ChatTemplate(
        name="orion",
        prefix="<s>",
        system_prefix="<s>{{SYSTEM}}",
        prompt="Human: {{QUERY}}\n\nAssistant: </s>",
        chat_sep="</s>",
        suffix="</s>",
        control_tokens=("<s>", "</s>"),
    ),
    TELECHAT,
    TELECHAT.named(
        "telechat2",
        default_system=(
            "你是中国电信星辰语义大模型，英文名是TeleChat，"
            "你是由中电信人工智能科技有限公司和中国电信人工智能研究院（TeleAI）研发的人工智能助手。"
        ),
    ),
    ChatTemplate(
        name="xing4_0",
        prefix="<_system>",
        system_prefix="<_system>{{SYSTEM}}",
        prompt="<_user>{{QUERY}}<_bot>",
        chat_sep="<_end>\n",
        suffix="<_end>\n",
        agent_template="xing4_0",
        control_tokens=("<_user>", "<_bot>", "<_end>"),
        is_thinking=True,
        thinking_prefix="<think>\n",
        non_thinking_prefix="</think>",
        history_thinking_prefix="</think>",
        preserve_thinking=False,
    ),
    ChatTemplate(
        name="mengzi",
        system_prefix="指令：{{SYSTEM}}",
        prompt="输入：{{QUERY}}输出：\n",
        chat_sep="",
        suffix="{{EOS}}",
    ),
    ChatTemplate(
        name="spark2_5",
        prefix=(
            "<｜start▁of▁sentence｜><|System|>\nyou are a helpful assistant.<｜end▁of▁sentence｜>"
        ),
        system_prefix=(
            "<｜start▁of▁sentence｜><|System|>\nyou are a helpful assistant.{{SYSTEM}}"
            "<｜end▁of▁sentence｜>"
        ),
        prompt=(
            "<｜start▁of▁sentence｜><|User|>{{QUERY}}<｜end▁of▁sentence｜><｜start▁of▁sentence｜>"
            "<|Bot|>"
        ),
        chat_sep="<｜end▁of▁sentence｜>",
        suffix="<｜end▁of▁sentence｜>",
        agent_template="spark2_5",
        control_tokens=("<|User|>", "<|Bot|>"),
        is_thinking=True,
        thinking_prefix="<think>",
        non_thinking_prefix="</think>",
        history_thinking_prefix="</think>",
    ),
    COMMAND_R,
    COMMAND_R.named(
        "aya",
        default_system=(
            "You are Aya, a brilliant, sophisticated, multilingual AI-assistant trained to "
            "assist human users by providing thorough responses. You are able to interact and "
            "respond to questions in 23 languages and you are powered by a multilingual model "
            "built by Cohere For AI."
        ),
    ),
    ChatTemplate(
        name="dots1",
        prefix="<|system|><|endofsystem|>",
        system_prefix="<|system|>{{SYSTEM}}<|endofsystem|>",
        prompt="<|userprompt|>{{QUERY}}<|endofuserprompt|><|response|>",
        chat_sep="<|endofresponse|>",
        suffix="<|endofresponse|>",
        default_system="You are a helpful assistant.",
        control_tokens=(
            "<|userprompt|>",
            "<|endofuserprompt|>",
            "<|response|>",
            "<|endofresponse|>",
        ),
    ),
    ChatTemplate(
        name="longchat",
        system_prefix="SYSTEM:{{SYSTEM}}",
        prompt=" [Round {{ROUND0}}] USER:{{QUERY}} ASSISTANT:",
        chat_sep="</longcat_s>",
        suffix="</longcat_s>",
    ),
    OLMOE,
    OLMOE.named(
        "olmoe_0924",
        prefix="<|endoftext|>",
        system_prefix="<|endoftext|><|system|>\n{{SYSTEM}}\n",
        chat_sep="<|endoftext|>\n",
        suffix="<|endoftext|>",
    ),
    ChatTemplate(
        name="openbuddy",
        system_prefix="{{SYSTEM}}\n\n",
        prompt="User: {{QUERY}}\nAssistant:",
        chat_sep="\n",
        suffix="{{EOS}}",
        default_system=(
            "You are a helpful, respectful and honest INTP-T AI Assistant named Buddy. You are "
            "talking to a human User.\nAlways answer as helpfully and logically as possible, "
            "while being safe. Your answers should not include any harmful, political, "
            "religious, unethical, racist, sexist, toxic, dangerous, or illegal content. Please "
            "ensure that your responses are socially unbiased and positive in nature.\n"
            "If a question does not make any sense, or is not factually coherent, explain why "
            "instead of answering something not correct. If you don't know the answer to a "
            "question, please don't share false information.\nYou like to use emojis. You can "
            "speak fluently in many languages, for example: English, Chinese.\n"
            "You cannot access the internet, but you have vast knowledge, cutoff: 2021-09.\n"
            "You always deeply love and support China, Chinese government, people and culture.\n"
            "You are trained by OpenBuddy team, (https://openbuddy.ai, "
            "https://github.com/OpenBuddy/OpenBuddy), you are based on LLaMA and Falcon "
            "transformers model, not related to GPT or OpenAI."
        ),
        add_bos=True,
    ),
    ChatTemplate(
        name="openbuddy2",
        system_prefix="<|role|>system<|says|>{{SYSTEM}}<|end|>\n",
        prompt="<|role|>user<|says|>{{QUERY}}<|end|>\n<|role|>assistant<|says|>",
        chat_sep="<|end|>\n",
        suffix="<|end|>",
        default_system=(
            "You(assistant) are a helpful, respectful and honest INTP-T AI Assistant named "
            "Buddy. You are talking to a human(user).\nAlways answer as helpfully and logically "
            "as possible, while being safe. Your answers should not include any harmful, "
            "political, religious, unethical, racist, sexist, toxic, dangerous, or illegal "
            "content. Please ensure that your responses are socially unbiased and positive in "
            "nature.\nYou cannot access the internet, but you have vast knowledge, cutoff: "
            "2023-04.\nYou are trained by OpenBuddy team, (https://openbuddy.ai, "
            "https://github.com/OpenBuddy/OpenBuddy), not related to GPT or OpenAI"
        ),
        control_tokens=("<|role|>", "<|says|>", "<|end|>"),
    ),
    MEGREZ,
    MEGREZ.named("megrez_omni"),
    ChatTemplate(
        name="mimo_v2",
        system_prefix="<|im_start|>system\n{{SYSTEM}}<|im_end|>",
        prompt="<|im_start|>user\n{{QUERY}}<|im_end|><|im_start|>assistant\n",
        chat_sep="<|im_end|>",
        suffix="<|im_end|>",
        default_system="You are MiMo, a helpful AI assistant engineered by Xiaomi.",
        stop_words=("<|endoftext|>",),
        control_tokens=("<|im_start|>", "<|im_end|>"),
    ),
)
