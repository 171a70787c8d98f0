"""The chat template of models built here: ChatML with hermes-style tool calls.

Written so that it renders what the template published with Qwen2.5-Instruct renders, token for
token: tools in the first system message, calls as JSON between <tool_call> tags, and the replies of
tools gathered in one user turn. Only its default system prompt is left out: a model made here is
not somebody else's assistant.
"""

_TOOLS_HEAD = """\\n\\n# Tools\\n\\n\
You may call one or more functions to assist with the user query.\\n\\n\
You are provided with function signatures within <tools></tools> XML tags:\\n<tools>"""

_TOOLS_TAIL = """\\n</tools>\\n\\n\
For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:\\n<tool_call>\\n\
{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>"""

CHAT_TEMPLATE = (
    """\
{%- macro turn(role, text) -%}
    {{- '<|im_start|>' + role + '\\n' + text + '<|im_end|>\\n' }}
{%- endmacro -%}
{%- macro calls(message) -%}
    {{- '<|im_start|>assistant' }}
    {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
    {%- for call in message.tool_calls %}
        {%- set function = call.function if call.function is defined else call %}
        {{- '\\n<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
        {{- (function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endmacro -%}
{%- set has_system = messages[0].role == 'system' %}
{%- set system = messages[0].content if has_system else '' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' + system }}
    {{- \""""
    + _TOOLS_HEAD
    + """\" }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- \""""
    + _TOOLS_TAIL
    + """<|im_end|>\\n" }}
{%- elif has_system %}
    {{- turn('system', system) }}
{%- endif %}
{%- for message in (messages[1:] if has_system else messages) %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- calls(message) }}
    {%- elif message.role in ('user', 'system', 'assistant') %}
        {{- turn(message.role, message.content) }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)
