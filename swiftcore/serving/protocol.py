"""What a request may say: a field that changes the answer is honoured or refused, never ignored."""

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swiftcore.serving.api_errors import ApiError, bad_request

# Fields of the OpenAI API that are accepted only with a value that asks for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "parallel_tool_calls": (None, True),
    "tool_choice": (None, "auto", "none"),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool = False


class GenerationRequest(_Strict):
    """Fields that chat and plain completions share."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = None
    n: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False

    # They change nothing about the answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    logit_bias: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None

    @model_validator(mode="after")
    def _refuse_what_is_not_done(self) -> "GenerationRequest":
        for name, neutral in _NEUTRAL.items():
            if getattr(self, name, None) not in neutral:
                raise ValueError(f"{name}: this server does not implement this value")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only allowed together with stream=true")
        if len(self.stop_strings) > 4:
            raise ValueError("stop: at most 4 strings")
        if not all(self.stop_strings):
            raise ValueError("stop: must not hold an empty string")
        return self

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def requested_tokens(self) -> int | None:
        """The longest answer asked for, in tokens."""
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens are to be told of each place; None: no log-probabilities."""
        return None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(_Strict):
    """A piece of message content; text is the only kind served."""

    type: Literal["text"]
    text: str


class FunctionCall(_Strict):
    """A call the model made earlier; arguments are JSON text."""

    name: str
    arguments: str


class ToolCall(_Strict):
    """A tool call in the history."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(_Strict):
    """One turn of the conversation."""

    # tool_call and tool_response are roles of standard rows: a dataset row can be sent as is.
    role: Literal["system", "developer", "user", "assistant", "tool", "tool_call", "tool_response"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    # What a client sends back when it appends our own answer unchanged.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(None, max_length=0)

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class FunctionDefinition(BaseModel):
    """A function's schema; everything in it is shown to the model."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str


class Tool(_Strict):
    """A function the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class ChatRequest(GenerationRequest):
    """Body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] | None = None
    raw: bool = Field(False, description="give the model's own text, tool calls not taken out")
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    response_format: Any = None
    modalities: Any = None

    @model_validator(mode="after")
    def _likeliest_tokens_stand_beside_their_own(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only allowed together with logprobs=true")
        return self

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens are to be told of each place; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def requested_tokens(self) -> int | None:
        """The longest answer asked for, in tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_tool_calls(self) -> bool:
        """Whether calls are to be taken out of the answer."""
        return bool(self.tools) and self.tool_choice != "none" and not self.raw

    @property
    def callable_tools(self) -> list[dict[str, Any]]:
        """The definitions of what an answer may call, for the parser of calls."""
        tools = self.tools if self.wants_tool_calls else None
        return [tool.model_dump(exclude_none=True) for tool in tools or ()]

    def row(self) -> dict[str, Any]:
        """Return the conversation as a standard row, as training rows are written.

        Raises:
            ApiError: a message says nothing, or a tool call's arguments are not a JSON object.
        """
        return _row(self.messages, None if self.tool_choice == "none" else self.tools)


class CompletionRequest(GenerationRequest):
    """Body of /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(None, ge=0)
    echo: Any = None
    suffix: Any = None
    best_of: Any = None

    @property
    def num_logprobs(self) -> int | None:
        """How many likeliest tokens are to be told of each place; None: no log-probabilities."""
        return self.logprobs

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, each as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]


class TokenizeRequest(_Strict):
    """Body of /v1/tokenize: a conversation as it would be answered, or a plain text."""

    model: str
    messages: list[Message] | None = Field(None, min_length=1)
    tools: list[Tool] | None = None
    prompt: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "TokenizeRequest":
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("messages: give either messages or prompt")
        if self.tools and self.messages is None:
            raise ValueError("tools: only together with messages")
        return self

    def row(self) -> dict[str, Any]:
        """Return the conversation as a standard row.

        Raises:
            ApiError: a message says nothing, or a tool call's arguments are not a JSON object.
        """
        return _row(self.messages or [], self.tools)


class LikelihoodRequest(_Strict):
    """Body of /v1/likelihood: a conversation, and an answer to it that is given."""

    model: str
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] | None = None
    answer: str = Field(min_length=1)

    def row(self) -> dict[str, Any]:
        """Return the conversation as a standard row.

        Raises:
            ApiError: a message says nothing, or a tool call's arguments are not a JSON object.
        """
        return _row(self.messages, self.tools)


class DetokenizeRequest(_Strict):
    """Body of /v1/detokenize."""

    model: str
    tokens: list[int]


RequestT = TypeVar("RequestT", bound=_Strict)


def parse(kind: type[RequestT], body: bytes) -> RequestT:
    """Read a request body.

    Raises:
        ApiError: 400 that names the first offending field.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from None


def _explain(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "this server does not know this field"
        return bad_request(f"{path}: {message}", param=path, code="unknown_parameter")
    if not path:
        path, _, _ = message.partition(":")
        return bad_request(message, param=path, code="unsupported_value")
    return bad_request(f"{path}: {message}", param=path)


def _row(messages: list[Message], tools: list[Tool] | None) -> dict[str, Any]:
    standard: list[dict[str, str]] = []
    for position, message in enumerate(messages):
        standard.extend(_standard(message, f"messages[{position}]"))
    row: dict[str, Any] = {"messages": standard}
    if tools:
        definitions = [tool.model_dump(exclude_none=True) for tool in tools]
        row["tools"] = json.dumps(definitions, ensure_ascii=False)
    return row


def _standard(message: Message, where: str) -> list[dict[str, str]]:
    if message.role == "tool":
        return [{"role": "tool_response", "content": message.text}]
    if message.role != "assistant":
        if message.content is None:
            raise bad_request(f"{where}.content: must be given", param=f"{where}.content")
        role = {"developer": "system"}.get(message.role, message.role)
        return [{"role": role, "content": message.text}]
    turns = []
    if message.text or not message.tool_calls:
        turns.append({"role": "assistant", "content": message.text})
    for position, call in enumerate(message.tool_calls or []):
        turns.append(_standard_call(call, f"{where}.tool_calls[{position}]"))
    return turns


def _standard_call(call: ToolCall, where: str) -> dict[str, str]:
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        param = f"{where}.function.arguments"
        raise bad_request(f"{param}: must be the text of a JSON object", param=param)
    content = {"name": call.function.name, "arguments": arguments}
    return {"role": "tool_call", "content": json.dumps(content, ensure_ascii=False)}
