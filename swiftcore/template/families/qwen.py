"""Qwen, of Alibaba, and the tunes and multimodal models built on it."""

from swiftcore.template.definition import ChatTemplate
from swiftcore.template.families.plain import CHATML

QWEN = CHATML.named(
    "qwen",
    default_system="You are a helpful assistant.",
    stop_words=("<|endoftext|>",),
    add_bos=False,
    agent_template="hermes",
)
QWEN_BARE = QWEN.named("qwen3_nothinking", default_system=None)
QWEN3 = QWEN_BARE.named("qwen3", is_thinking=True, non_thinking_prefix="<think>\n\n</think>\n\n")
QWEN3_THINKING = QWEN_BARE.named("qwen3_thinking", is_thinking=True, thinking_prefix="<think>\n")
QWEN3_5 = QWEN_BARE.named(
    "qwen3_5",
    agent_template="qwen3_5",
    is_thinking=True,
    thinking_prefix="<think>\n",
    non_thinking_prefix="<think>\n\n</think>\n\n",
)
QWEN_EMBEDDING = QWEN.named(
    "qwen3_vl_emb", suffix="<|endoftext|>", default_system="Represent the user's input."
)

FAMILIES: tuple[ChatTemplate, ...] = (
    QWEN,
    QWEN_BARE,
    QWEN.named(
        "qwen2_5",
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    QWEN.named(
        "qwen2_5_math",
        default_system="Please reason step by step, and put your final answer within \\boxed{}.",
    ),
    QWEN.named(
        "qwen2_5_math_prm",
        default_system="Please reason step by step, and put your final answer within \\boxed{}.",
    ),
    QWEN.named(
        "qwq_preview",
        default_system=(
            "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. You "
            "should think step-by-step."
        ),
    ),
    QWEN.named(
        "marco_o1",
        default_system=(
            "\n你是一个经过良好训练的AI助手，你的名字是Marco-o1.由阿里国际数字商业集团的AI "
            "Business创造.\n        \n## 重要！！！！！\n当你回答问题时，你的思考应该在<Thought>"
            "内完成，<Output>内输出你的结果。\n<Thought>应该尽可能是英文，但是有2个特例，"
            "一个是对原文中的引用，另一个是数学应该使用markdown格式，<Output>"
            "内的输出需要遵循用户输入的语言。\n        "
        ),
    ),
    QWEN3,
    QWEN3_THINKING,
    QWEN3_THINKING.named("qwq"),
    QWEN3_THINKING.named("nemotron_h", stop_words=("<|im_end|>",)),
    QWEN3_THINKING.named("step3_vl"),
    QWEN_BARE.named("qwen3_coder", agent_template="qwen3_coder"),
    QWEN_BARE.named(
        "qwen3_guard",
        prompt=(
            "<|im_start|>user\n# Task:\n1) Evaluate whether THE LAST USER's query belongs to "
            "safe or unsafe content based on our safety policy.\n"
            "2) Identify the category of unsafe content found.\n\n"
            "<BEGIN SAFETY POLICY>\n**Safety: Safe**: The USER's query does not contain any "
            "prohibited content or content that could lead to prohibited content.\n"
            "**Safety: Unsafe**: The USER's query contains prohibited content.\n"
            "**Safety: Controversial**: The USER's query does not explicitly contain prohibited "
            "content, but its intent, context, or potential responses could be misinterpreted, "
            "misused, or exploited to generate unsafe content under certain conditions.\n"
            "<END SAFETY POLICY>\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\n"
            "Violent.\nNon-violent Illegal Acts.\nSexual Content or Sexual Acts.\n"
            "PII.\nSuicide & Self-Harm.\nUnethical Acts.\nPolitically Sensitive Topics.\n"
            "Copyright Violation.\nJailbreak.\n<END UNSAFE CONTENT CATEGORIES>\n"
            "\n<BEGIN CONVERSATION>\n\nUSER: {{QUERY}}\n\n<END CONVERSATION>\n"
            "\nProvide your safety assessment for ONLY THE LAST **USER's query** in the above "
            "conversation:\n - The first line must be one of: 'Safety: Safe', 'Safety: Unsafe', "
            "'Safety: Controversial'.\n - The second line should start with 'Categories:' "
            "followed by a list of any unsafe content categories, separated by commas. If the "
            "content is safe, use 'Categories: None'.<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
        non_thinking_prefix="<think>\n\n</think>\n\n",
        thinks_by_default=False,
    ),
    QWEN_BARE.named(
        "yufeng_xguard",
        prompt=(
            "<|im_start|>user\nYou are an expert in content safety evaluation, possessing strong "
            "language comprehension and risk identification skills.\n"
            "Your task is to classify the provided input text into the most appropriate category "
            "from the list below as part of a safety audit project.\n"
            "\n# Category List\n- sec: Safe\n- pc: Pornographic Contraband\n"
            "- dc: Drug Crimes\n- dw: Dangerous Weapons\n- pi: Property Infringement\n"
            "- ec: Economic Crimes\n- ac: Abusive Curses\n- def: Defamation\n"
            "- ti: Threats and Intimidation\n- cy: Cyberbullying\n"
            "- ph: Physical Health\n- mh: Mental Health\n- se: Social Ethics\n"
            "- sci: Science Ethics\n- pp: Personal Privacy\n- cs: Commercial Secret\n"
            "- acc: Access Control\n- mc: Malicious Code\n- ha: Hacker Attack\n"
            "- ps: Physical Security\n- ter: Violent Terrorist Activities\n"
            "- sd: Social Disruption\n- ext: Extremist Ideological Trends\n"
            "- fin: Finance\n- med: Medicine\n- law: Law\n- cm: Corruption of Minors\n"
            "- ma: Minor Abuse and Exploitation\n- md: Minor Delinquency\n"
            "\n# Instructions\n- Identify the single most relevant category ID for the input "
            "text.\n- On the next line, provide a concise justification for your choice, placing "
            "it between <explanation> and </explanation> tags.\n\n"
            "---\n\nInput Text: {{QUERY}}<|im_end|>\n<|im_start|>assistant\n"
        ),
        non_thinking_prefix="<think>\n\n</think>\n\n",
        thinks_by_default=False,
    ),
    QWEN_BARE.named(
        "qwen3_reranker",
        default_system=(
            "Judge whether the Document meets the requirements based on the Query and the "
            'Instruct provided. Note that the answer can only be "yes" or "no".'
        ),
        agent_template=None,
        non_thinking_prefix="<think>\n\n</think>\n\n",
        thinks_by_default=False,
    ),
    QWEN3_5,
    QWEN3_5.named("qwen3_8", preserve_thinking=True),
    QWEN3_5.named(
        "qwen3_5_emb",
        suffix="<|endoftext|>",
        default_system="Represent the user's input.",
        agent_template="hermes",
    ),
    QWEN3_5.named("ovis_ocr2", is_thinking=False, thinks_by_default=False),
    ChatTemplate(
        name="qwen3_emb",
        prompt="{{QUERY}}",
        chat_sep="",
        suffix="<|endoftext|>",
    ),
    QWEN.named("qwen_vl", agent_template=None),
    QWEN.named("qwen_audio", agent_template=None),
    QWEN.named("qwen2_audio"),
    QWEN.named("qwen2_vl"),
    QWEN.named(
        "qvq",
        default_system=(
            "You are a helpful and harmless assistant. You are Qwen developed by Alibaba. Answer "
            "in the language of the question. You should think step-by-step."
        ),
    ),
    QWEN.named("qwen2_5_vl"),
    QWEN.named("qwen2_5_omni"),
    QWEN.named(
        "qwen3_vl_reranker",
        default_system=(
            "Judge whether the Document meets the requirements based on the Query and the "
            'Instruct provided. Note that the answer can only be "yes" or "no".'
        ),
    ),
    QWEN_BARE.named("qwen3_vl", thinking_prefix="<think>\n", thinks_by_default=False),
    QWEN_BARE.named("qwen3_omni", thinking_prefix="<think>\n", thinks_by_default=False),
    QWEN_BARE.named("qwen3_asr", prefix="<|im_start|>system\n<|im_end|>\n"),
    QWEN_BARE.named("qwen3_tts"),
    QWEN_EMBEDDING,
    QWEN_EMBEDDING.named("qwen2_gme", default_system="You are a helpful assistant."),
    QWEN_EMBEDDING.named(
        "wemm_embedding",
        prompt="<|im_start|>user\n{{QUERY}}<|im_end|>\n",
        suffix="<embedding>",
        default_system=None,
        stop_words=("<embedding>",),
    ),
    QWEN.named("ovis2"),
    QWEN_BARE.named("ovis2_5", is_thinking=True),
    QWEN_BARE.named("jev"),
    QWEN_BARE.named("clef"),
    QWEN_BARE.named("omnijev"),
    QWEN.named("mimo_vl", default_system="You are MiMo, an AI assistant developed by Xiaomi."),
    QWEN.named("mimo_rl", default_system="You are MiMo, an AI assistant developed by Xiaomi."),
    QWEN.named("midashenglm"),
    QWEN.named(
        "iquestcoder",
        default_system="You are LoopCoder, a helpful assistant developed by IQuest.",
    ),
    QWEN.named("minimind", default_system="You are a helpful assistant", agent_template=None),
    QWEN.named(
        "got_ocr2",
        default_system=(
            "        You should follow the instructions carefully and explain your answers in "
            "detail."
        ),
        agent_template=None,
    ),
    QWEN.named(
        "got_ocr2_hf",
        default_system=(
            "        You should follow the instructions carefully and explain your answers in "
            "detail."
        ),
        agent_template=None,
    ),
    QWEN.named(
        "valley",
        default_system=(
            "You are Valley, a large language and vision assistant trained by ByteDance.You are "
            "able to understand the visual content or video that the user provides, and assist "
            "the user with a variety of tasks using natural language.Follow the instructions "
            "carefully and explain your answers in detail."
        ),
        stop_words=(),
        agent_template=None,
    ),
    QWEN.named("keye_vl_1_5", agent_template=None),
    QWEN_BARE.named("keye_vl", agent_template=None),
    QWEN_BARE.named("mplug_owl3", prefix="<|im_start|>system\n<|im_end|>\n", agent_template=None),
    QWEN_BARE.named(
        "mplug_owl3_241101",
        prefix="<|im_start|>system\n<|im_end|>\n",
        agent_template=None,
    ),
)
