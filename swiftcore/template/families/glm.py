"""GLM, of Zhipu, with CogVLM and CogAgent."""

from swiftcore.template.definition import ChatTemplate

CHATGLM4 = ChatTemplate(
    name="chatglm4",
    system_prefix="<|system|>\n{{SYSTEM}}",
    prompt="<|user|>\n{{QUERY}}<|assistant|>",
    chat_sep="",
    suffix="<|user|>",
    stop_words=("<|endoftext|>", "<|user|>", "<|observation|>"),
    add_bos=True,
    agent_template="chatglm4",
    control_tokens=("<|user|>", "<|assistant|>", "<|observation|>"),
    answer_break="\n",
    no_break_before="<|observation|>",
)
GLM4 = ChatTemplate(
    name="glm4",
    prefix="[gMASK]<sop>",
    system_prefix="[gMASK]<sop><|system|>\n{{SYSTEM}}",
    prompt="<|user|>\n{{QUERY}}<|assistant|>",
    chat_sep="",
    suffix="<|user|>",
    stop_words=("<|endoftext|>", "<|user|>", "<|observation|>"),
    add_bos=True,
    agent_template="glm4",
    control_tokens=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"),
    answer_break="\n",
    no_break_before="<|observation|>",
    thinking_prefix="<think>",
    thinks_by_default=False,
)
GLM4V = GLM4.named(
    "glm4v",
    prompt="<|user|>\n{{QUERY}}<|assistant|>\n",
    answer_break="",
    no_break_before="",
    thinking_prefix="",
    thinks_by_default=True,
)
GLM4_5 = GLM4.named(
    "glm4_5",
    agent_template="glm4_5",
    no_break_before="",
    is_thinking=True,
    thinking_prefix="",
    non_thinking_prefix="<think></think>\n",
    history_thinking_prefix="<think></think>\n",
    thinks_by_default=True,
)
GLM4_7 = ChatTemplate(
    name="glm4_7",
    prefix="[gMASK]<sop>",
    system_prefix="[gMASK]<sop><|system|>{{SYSTEM}}",
    prompt="<|user|>{{QUERY}}<|assistant|>",
    chat_sep="",
    suffix="<|user|>",
    stop_words=("<|endoftext|>", "<|user|>", "<|observation|>"),
    add_bos=True,
    agent_template="glm4_7",
    control_tokens=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"),
    is_thinking=True,
    thinking_prefix="<think>",
    non_thinking_prefix="</think>",
    history_thinking_prefix="</think>",
)
GLM5_2 = GLM4_7.named(
    "glm5_2",
    agent_template="glm5_1",
    non_thinking_prefix="<think></think>",
    history_thinking_prefix="<think></think>",
)
COGVLM = ChatTemplate(
    name="cogvlm",
    prefix="{{BOS}}",
    prompt="Question: {{QUERY}} Answer:",
    chat_sep="\n",
    suffix="{{EOS}}",
)

FAMILIES: tuple[ChatTemplate, ...] = (
    ChatTemplate(
        name="chatglm2",
        system_prefix="{{SYSTEM}}",
        prompt="[Round {{ROUND1}}]\n\n问：{{QUERY}}\n\n答：",
        chat_sep="\n\n",
        suffix="{{EOS}}",
        add_bos=True,
    ),
    CHATGLM4,
    CHATGLM4.named(
        "codegeex4",
        default_system=(
            "你是一位智能编程助手，你叫CodeGeeX。"
            "你会为用户回答关于编程、代码、计算机方面的任何问题，"
            "并提供格式规范、可以执行、准确安全的代码，并在必要时提供详细的解释。"
        ),
    ),
    CHATGLM4.named(
        "chatglm4v",
        prompt="<|user|>\n{{QUERY}}<|assistant|>\n",
        suffix="<|endoftext|>",
        answer_break="",
        no_break_before="",
    ),
    GLM4,
    GLM4.named(
        "glm4_z1_rumination",
        default_system=(
            "你是一个专业的深度研究助手，通过提供的工具与模拟浏览器交互，"
            "来帮助用户完成深度信息调研和报告撰写任务。今年是 2025 年。\n\n<核心要求>\n- "
            "首先分解用户请求，得到包含多个子要求的列表\n- 制定初始研究计划\n- "
            "进行多轮迭代搜索和页面浏览（at least 10 function calls）：\n    * "
            "根据已获得的信息调整研究计划和关键词\n    * 打开页面阅读，"
            "从发现的内容中识别新的关键概念/名词\n    * 从搜索结果中提取新的关键词继续搜索\n    "
            "* 访问并仔细阅读相关页面，识别新的关键概念/名词\n\n<重要配置>\n- 采用语言\n    * "
            '搜索关键词：英文\n    * 思考：英文\n\n<可调用的工具列表>\n[{"name": "search", '
            '"description": "Execute a search query and return search results. Use this function '
            'when you need to find information about a specific topic.", "parameters": {"type": '
            '"object", "properties": {"query": {"type": "string", "description": "Search query '
            'string, use English words unless it is a proper name in Chinese"}}, "required": '
            '["query"], "additionalProperties": false}}, {"name": "click", "description": "Click '
            "a link in the search results and navigate to the corresponding page. Use this "
            'function when you need to view detailed content of a specific search result.", '
            '"parameters": {"type": "object", "properties": {"link_id": {"type": "integer", '
            '"description": "The link ID to click (from the sequence number in search '
            'results)"}}, "required": ["link_id"], "additionalProperties": false}}, {"name": '
            '"open", "description": "Open a specific website. Get content from any website with '
            'its URL.", "parameters": {"type": "object", "properties": {"url": {"type": '
            '"string", "description": "The target website URL or domain"}}, "required": ["url"], '
            '"additionalProperties": false}}, {"name": "finish", "description": "Finish the '
            'task. Use this function when you have found the information you need.", '
            '"parameters": {"type": "object", "properties": {}, "additionalProperties": false}}]'
        ),
        is_thinking=True,
        thinking_prefix="",
        thinks_by_default=True,
    ),
    GLM4V,
    GLM4V.named("glm_ocr"),
    GLM4_5,
    GLM4_5.named("glm4_5v"),
    GLM4_7,
    GLM4_7.named("glm5_1", agent_template="glm5_1"),
    GLM5_2,
    GLM5_2.named("glm5_3", preserve_thinking=True),
    GLM5_2.named("glm5_next"),
    ChatTemplate(
        name="glm_edge_v",
        system_prefix="<|system|>\\n{{SYSTEM}}\\n",
        prompt="<|user|>\\n{{QUERY}}\\n<|assistant|>\\n",
        chat_sep="\\n",
        suffix="<|endoftext|>",
        stop_words=("<|endoftext|>", "<|user|>", "<|observation|>"),
        add_bos=True,
        agent_template="chatglm4",
        control_tokens=("<|user|>", "<|assistant|>", "<|observation|>"),
    ),
    COGVLM,
    COGVLM.named("cogvlm2"),
    COGVLM.named("cogvlm2_video"),
    ChatTemplate(
        name="cogagent_chat",
        prefix="<s>",
        prompt=" [INST] {{QUERY}} [/INST] ",
        chat_sep="",
        suffix="</s>",
    ),
    ChatTemplate(
        name="cogagent_vqa",
        prefix="<s>",
        prompt="<EOI>Question: {{QUERY}} Answer:",
        chat_sep=None,
        suffix="</s>",
    ),
)
