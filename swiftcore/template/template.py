"""The one template engine: rows to tokens, in training, evaluation and serving."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from swiftcore.errors import DataError
from swiftcore.template.agents import AgentTemplate, ParsedText
from swiftcore.template.control_tokens import PieceTokenizer
from swiftcore.template.conversation import Conversation, Mode, read_conversation, read_tools
from swiftcore.template.encoding import Encoded, Truncation, as_prompt, assemble, truncate
from swiftcore.template.loss_scale import LossScale, parse_loss_scale
from swiftcore.template.spans import Piece, Span, group
from swiftcore.template.thinking import NO_THINKING_CONTROLS, ThinkingControls

SETTINGS_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """What a caller may choose about a template; the fields are those of `get_template`."""

    agent_template: str | None
    loss_scale: str | Mapping[str, Any]
    max_length: int | None
    truncation_strategy: Truncation
    system: str | None
    use_chat_template: bool
    response_prefix: str | None
    today: date
    allow_control_tokens: bool = False
    thinking: ThinkingControls = NO_THINKING_CONTROLS


class Template(ABC):
    """Turns standard rows into tokens with one tokenizer.

    Subclasses say which spans a row has; everything after that is the same for all.
    """

    def __init__(self, name: str, tokenizer: Any, options: TemplateOptions) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.options = options
        self.loss_scale: LossScale = parse_loss_scale(options.loss_scale)
        self.pieces = PieceTokenizer(tokenizer, parse_data=options.allow_control_tokens)
        self.stop_ids: list[int] = []
        # Answers that rows wanted trained and that are not, counted by reason.
        self.untrained: Counter[str] = Counter()

    @property
    @abstractmethod
    def default_system(self) -> str | None:
        """System prompt of rows that bring none."""

    @property
    @abstractmethod
    def stop_words(self) -> list[str]:
        """Texts that end an answer."""

    @property
    def thinking_marks(self) -> tuple[str, str]:
        """First and last text of a think block."""
        return ("<think>", "</think>")

    @property
    @abstractmethod
    def agent(self) -> AgentTemplate:
        """How tools and calls are written."""

    @abstractmethod
    def spans(self, conversation: Conversation, mode: Mode) -> list[Span]:
        """Return the row's text with authors and weights."""

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids of the stop words that are one token."""
        known = self.pieces.token_ids
        return [known[word] for word in self.stop_words if word in known]

    @property
    def settings(self) -> dict[str, Any]:
        """What `load_template` needs to build this template again."""
        options = self.options
        return {
            "schema": SETTINGS_SCHEMA,
            "template": self.name,
            "agent_template": self.agent.name,
            "system": self.default_system,
            "use_chat_template": options.use_chat_template,
            "loss_scale": self.loss_scale.settings,
            "max_length": options.max_length,
            "truncation_strategy": options.truncation_strategy,
            # Safe is what goes without saying, so older settings mean what they always did.
            **({"allow_control_tokens": True} if options.allow_control_tokens else {}),
            **options.thinking.chosen(),
        }

    def encode(self, row: Mapping[str, Any], mode: Mode = "train") -> Encoded | list[Encoded]:
        """Encode one standard row; training with truncation_strategy "split" gives a list.

        Raises:
            DataError: the row is malformed; the error names message and field.
            RowTooLong: more than max_length tokens, and the strategy is "delete".
        """
        pieces = self.plan(row, mode)
        parts = self.finish(pieces, self.pieces.encode(pieces), mode)
        split = self.options.truncation_strategy == "split" and mode == "train"
        return parts if split else parts[0]

    def plan(self, row: Mapping[str, Any], mode: Mode) -> list[Piece]:
        """Return the pieces of a row, before tokenisation, so that many rows can be batched.

        Raises:
            DataError: the row is malformed.
        """
        conversation = read_conversation(row)
        if mode == "infer" and conversation.rounds[-1].answer is not None:
            raise DataError(
                "a prompt must not end with the assistant's answer",
                where=f"messages[{len(row['messages']) - 1}].role",
                found="assistant",
                expected="user or tool_response as the last message",
                do="leave out the last answer",
            )
        return group(self.spans(conversation, mode))

    def finish(self, pieces: list[Piece], piece_ids: list[list[int]], mode: Mode) -> list[Encoded]:
        """Make the encoded row, or its parts, from tokenised pieces.

        Raises:
            RowTooLong: more than max_length tokens, and the strategy is "delete".
        """
        encoded = assemble(pieces, piece_ids, self.stop_ids, self.decode)
        strategy = self.options.truncation_strategy
        if mode == "infer":
            encoded = as_prompt(encoded)
            # A prompt that loses its end no longer asks for an answer.
            strategy = "delete" if strategy == "delete" else "left"
        return truncate(encoded, self.options.max_length, strategy)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, control tokens included."""
        return self.pieces.decode(ids)

    def parse_tool_calls(self, text: str, tools: object = None) -> ParsedText:
        """Read the tool calls out of an answer.

        Args:
            text: the model's words.
            tools: the definitions; formats that write values without quotes need them to tell a
                number from a text that looks like one.

        Raises:
            DataError: the tools are malformed.
        """
        return self.agent.parse(text, read_tools(tools))


def render_chat(
    template: Template,
    messages: Iterable[Mapping[str, Any]],
    tools: object = None,
) -> Encoded:
    """Return the prompt that asks the model for the next answer.

    Raises:
        DataError: the messages are malformed, or end with an answer.
    """
    encoded = template.encode({"messages": list(messages), "tools": tools}, mode="infer")
    assert isinstance(encoded, Encoded)
    return encoded
