"""The parts of `swift infer`: settings and where they come from, what a person sees, interrupts."""

import io
import json
from pathlib import Path

import pytest

from swiftcore.errors import Cancelled, UsageError
from swiftcore.evaluation.answering import Prompt
from swiftcore.generation import Completion, Delta, SamplingParams
from swiftcore.generation.text import IncrementalText
from swiftcore.inference.answers import Work
from swiftcore.inference.conversation import HELP, Conversation
from swiftcore.inference.sampling import choose_sampling, with_room
from swiftcore.inference.screen import ReasoningSplit, Screen
from swiftcore.recipe.sections import InferSection
from swiftcore.template import Encoded, ParsedText, ToolCall


def chosen(folder: Path, recommended: dict | None = None, **settings):
    if recommended is not None:
        (folder / "generation_config.json").write_text(json.dumps(recommended))
    return choose_sampling(InferSection(**settings), folder)


@pytest.mark.parametrize(
    ("recommended", "settings", "expected"),
    [
        (None, {}, (0.0, 0, 1.0, 1.0)),
        (None, {"temperature": 0.5, "top_k": 9}, (0.5, 9, 1.0, 1.0)),
        ({"do_sample": True}, {}, (1.0, 0, 1.0, 1.0)),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}, {}, (0.7, 20, 0.8, 1)),
        ({"do_sample": True, "temperature": 0.7, "top_k": 20}, {"top_k": 5}, (0.7, 5, 1.0, 1.0)),
        ({"do_sample": True, "temperature": 0.7, "top_k": 20}, {"top_k": 1}, (0.0, 0, 1.0, 1.0)),
        ({"do_sample": True, "top_p": 0.8}, {"temperature": 0}, (0.0, 0, 1.0, 1.0)),
        ({"temperature": 0.7, "top_p": 0.8}, {}, (0.0, 0, 1.0, 1.0)),
        ({"temperature": 0.7, "top_p": 0.8}, {"temperature": 1.0}, (1.0, 0, 0.8, 1.0)),
        ({"repetition_penalty": 1.05}, {}, (0.0, 0, 1.0, 1.05)),
    ],
)
def test_what_is_not_said_is_taken_from_the_model_s_folder(
    tmp_path, recommended, settings, expected
):
    params = chosen(tmp_path, recommended, **settings).params
    names = ("temperature", "top_k", "top_p", "repetition_penalty")
    assert tuple(getattr(params, name) for name in names) == expected


def test_the_log_says_where_each_setting_came_from(tmp_path):
    found = chosen(tmp_path, {"do_sample": True, "top_p": 0.8}, temperature=0.5)
    assert found.describe() == (
        "temperature 0.5 (flag), top_k 0 (default), top_p 0.8 (generation_config.json), "
        "repetition_penalty 1 (default)"
    )


@pytest.mark.parametrize("settings", [{"top_p": 0.9}, {"top_k": 40}])
def test_a_setting_of_sampling_is_refused_where_nothing_is_sampled(tmp_path, settings):
    with pytest.raises(UsageError, match="does nothing"):
        chosen(tmp_path, None, **settings)
    with pytest.raises(UsageError, match="is no number"):
        chosen(tmp_path, {"do_sample": True, "top_p": "all"}, **settings)


def test_answers_may_be_as_long_as_the_model_can_hold():
    params = SamplingParams()
    assert with_room(params, InferSection(), 4096).max_new_tokens == 4096
    assert with_room(params, InferSection(max_new_tokens=7), 4096).max_new_tokens == 7


@pytest.mark.parametrize(
    ("batch_size", "write_batch_size", "expected"),
    [(1, 1000, 16), (4, 1000, 64), (4, 10, 10), (-1, 1000, 500), (-1, -1, 500), (1, -1, 16)],
)
def test_answers_are_written_in_groups(batch_size, write_batch_size, expected):
    work = Work(None, SamplingParams(), batch_size, write_batch_size)  # pyright: ignore
    assert work.group_size(500) == expected


@pytest.mark.parametrize(
    ("prompt", "prefix", "expected"),
    [
        ("asked: <think>\n", "", "<think>\n"),
        ("asked: <think>\n\n</think>\n\n", "", ""),
        ("<think> asked", "", ""),
        ("asked: Sure, <think>\n", "Sure, <think>\n", "Sure, <think>\n"),
    ],
)
def test_an_answer_starts_with_what_its_prompt_begins(prompt, prefix, expected):
    work = Work(None, SamplingParams(), 1, 1, prefix=prefix)  # pyright: ignore
    assert work.begun(Prompt([], prompt)) == expected


@pytest.mark.parametrize(
    ("stop", "kept", "expected"),
    [
        ((), ("cd",), "abcd"),
        (("cd",), (), "ab"),
        (("cd",), ("bc",), "abc"),
        (("bc",), ("cd",), "a"),
        ((), ("xy",), "abcdef"),
        (("bcd",), ("bc",), "abc"),
    ],
)
def test_a_stop_string_is_cut_off_or_kept(stop, kept, expected):
    text = IncrementalText(lambda ids: "".join(map(chr, ids)), stop, kept)
    pieces = ""
    for character in "abcdef":
        pieces += text.push(ord(character))
        if text.stopped:
            break
    assert pieces + text.finish() == expected


def split(pieces: list[str]) -> list[tuple[bool, str]]:
    splitter = ReasoningSplit(("<think>", "</think>"))
    found = [part for piece in pieces for part in splitter.push(piece)] + splitter.finish()
    joined: list[tuple[bool, str]] = []
    for kind, text in found:
        if joined and joined[-1][0] == kind:
            joined[-1] = kind, joined[-1][1] + text
        else:
            joined.append((kind, text))
    return joined


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain < text </", [(False, "plain < text </")]),
        ("<think>hm</think>so", [(True, "<think>hm</think>"), (False, "so")]),
        ("a<think>b", [(False, "a"), (True, "<think>b")]),
    ],
)
def test_reasoning_is_told_from_the_answer_however_it_arrives(text, expected, size):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert split(pieces) == expected


class ToyTemplate:
    """Prompts are the characters of the last message; answers may hold one call."""

    thinking_marks = ("<think>", "</think>")

    def __init__(self):
        self.rows = []

    def encode(self, row, mode):
        self.rows.append(row)
        ids = [ord(c) for c in row["messages"][-1]["content"]]
        return Encoded(ids, None, None, lambda ids: "".join(map(chr, ids)))

    def parse_tool_calls(self, text):
        call = ToolCall("weather", {"city": "東京"})
        return ParsedText(text="", calls=[call] if "call" in text else [])


def test_a_person_sees_reasoning_apart_and_calls_in_a_line():
    out = io.StringIO()
    screen = Screen(out, ToyTemplate(), is_styled=True)  # pyright: ignore
    screen.begin()
    screen.add("<think>hm</thi")
    screen.add("nk>call")
    screen.end("<think>hm</think>call")
    plain = out.getvalue().replace("\x1b[0m\x1b[2m", "")
    assert plain == '\x1b[2m<think>hm</think>\x1b[0mcall\n  calls weather({"city": "東京"})\n'


def test_control_characters_reach_a_pipe_and_no_terminal():
    shown = []
    for is_styled in (True, False):
        out = io.StringIO()
        screen = Screen(out, ToyTemplate(), is_styled=is_styled)  # pyright: ignore
        screen.begin()
        screen.add("a\x1b[2Jb\r\x9b\tc\nd")
        screen.end("")
        shown.append(out.getvalue())
    assert shown == ["a�[2Jb��\tc\nd\n", "a\x1b[2Jb\r\x9b\tc\nd\n"]


class Echo:
    """Says the question backwards, a letter at a time; `!` is where Ctrl-C is pressed."""

    def __init__(self, template):
        self.template = template

    def stream(self, prompt, params, *, number=0):
        text = "".join(map(chr, reversed(prompt)))
        for place, letter in enumerate(text, 1):
            if letter == "!":
                raise KeyboardInterrupt
            if letter == "#":
                raise Cancelled("Stopped on request.")
            done = Completion([], text, "stop", 1, 1) if place == len(text) else None
            yield Delta(letter, done)


def converse(lines: list, template: ToyTemplate) -> str:
    """Talk with Echo; an exception among the lines is raised where it would be read."""
    waiting, out = iter(lines), io.StringIO()

    def read(_):
        line = next(waiting, None)
        if isinstance(line, BaseException):
            raise line
        return line

    engine = Echo(template)
    Conversation(engine, SamplingParams(), read, out, is_styled=True).run()  # pyright: ignore
    return out.getvalue().removeprefix(f"{HELP}\n")


def test_an_interrupt_stops_the_answer_and_not_the_conversation():
    template = ToyTemplate()
    shown = converse(["cba", "d!ef", KeyboardInterrupt(), "hg"], template)
    assert shown == "abc\nfe\n(stopped)\n\nquit or Ctrl-D ends the conversation\ngh\n"
    assert [m["content"] for m in template.rows[-1]["messages"]] == [
        "cba",
        "abc",
        "d!ef",
        "fe",
        "hg",
    ]
    # Nothing was said yet: the question is forgotten.
    assert converse(["a!", "cb"], template) == "\n(stopped)\nbc\n"
    assert [m["content"] for m in template.rows[-1]["messages"]] == ["cb"]


def test_without_a_person_an_interrupt_ends_it_all():
    lines, out = iter(["a!b"]), io.StringIO()
    engine = Echo(ToyTemplate())
    talk = Conversation(engine, SamplingParams(), lambda _: next(lines), out)  # pyright: ignore
    with pytest.raises(KeyboardInterrupt):
        talk.run()
    assert out.getvalue() == "b"


def test_a_think_block_that_the_prompt_opens_belongs_to_the_answer():
    template = ToyTemplate()
    # Prompts are the last question alone here, so this one opens a block.
    shown = converse(["ab<think>\n", "c"], template)
    assert shown.replace("\x1b[0m\x1b[2m", "").startswith("\x1b[2m<think>\n")
    answer = template.rows[-1]["messages"][1]["content"]
    assert answer == "<think>\n" + "ab<think>\n"[::-1]


def test_a_request_to_end_is_no_interrupt_of_an_answer():
    with pytest.raises(Cancelled):
        converse(["a#b", "never"], ToyTemplate())


def test_lines_of_a_question_that_never_ends_are_still_asked():
    assert converse(["multi-line", "ab", "c"], ToyTemplate()).splitlines()[-2:] == ["c", "ba"]
