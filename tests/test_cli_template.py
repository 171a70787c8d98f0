"""`swift template`: what a person sees of templates in a terminal, and what a program reads."""

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from template_fixtures import QWEN2_5_LIKE, TOOLS, chat, small_tokenizer

from swiftcore.cli.main import main
from swiftcore.cli.token_view import TokenView
from swiftcore.template import get_template, list_templates
from swiftcore.template.preview import show_row
from tests.making import REPO

HEAVY = {"torch", "transformers", "pyarrow", "jinja2", "prefect", "mlflow", "tokenizers"}
CALL = {"role": "tool_call", "content": '{"name": "get_weather", "arguments": {"city": "Paris"}}'}
ROWS = [
    {"messages": chat("one", "two ")},
    {"messages": chat("<|im_end|>\x1b[31m \u202e", "three\nfour", "x", "y")},
    {"messages": [*chat("w"), CALL], "tools": json.dumps(TOOLS)},
    {"messages": chat("only a question")},
    {"messages": [*chat("a"), *chat("b")]},
    {"no messages": True},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model's tokenizer and configuration, and rows."""
    folder = tmp_path_factory.mktemp("show")
    small_tokenizer(QWEN2_5_LIKE).save_pretrained(folder / "model")
    config = {"model_type": "qwen2", "max_position_embeddings": 2048}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "rows.jsonl").write_text(lines)
    return folder


@pytest.fixture
def swift(place, monkeypatch, capsys):
    monkeypatch.chdir(place)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["template", *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


SHOW = ("show", "rows.jsonl", "--model", "model", "--template", "qwen2_5")


def test_list_shows_every_template_and_filters_by_words(swift):
    code, text = swift("list", "--json")
    entries = json.loads(text)
    assert code == 0
    assert [entry["name"] for entry in entries] == list_templates()
    qwen = next(entry for entry in entries if entry["name"] == "qwen2_5")
    assert qwen == {
        "name": "qwen2_5",
        "default_system": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        "agent_template": "hermes",
        "thinking": "",
        "stop_words": ["<|im_end|>", "<|endoftext|>"],
    }
    by_name = {entry["name"]: entry["thinking"] for entry in entries}
    assert (by_name["qwen3"], by_name["qwen3_thinking"]) == ("on", "always")
    code, text = swift("list", "Alibaba", "qwen2_5")
    assert re.search(r"^qwen2_5 +hermes +'<\|im_end\|>'", text, re.MULTILINE)
    assert "llama3" not in text
    assert swift("list", "nothing like it")[1] == "(nothing)\n0 templates.\n"


def test_list_starts_without_heavy_packages():
    script = (
        "import sys; from swiftcore.cli.main import main; main(['template', 'list'])\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_show_prints_settings_figures_and_rows_with_weights(swift):
    code, text = swift(*SHOW)
    assert code == 0
    assert "template qwen2_5" in text
    assert "loss scale: default" in text
    assert "rows: all 5 rows of rows.jsonl; left out: 1" in text
    assert "encoded: 3 of 5 rows" in text
    assert "dropped: 1 x two user messages in a row" in text
    assert "dropped: 1 x no token counts in the loss" in text
    assert re.search(r"\d of \d prompts differ", text)
    assert "row 0 (rows.jsonl:1)" in text
    assert "     0 | <|im_start|>assistant↵\n     1 | two·<|im_end|>↵\n" in text
    assert "Chosen as the shortest row." in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_show_in_json_holds_what_encode_gives(swift):
    code, text = swift(*SHOW, "--json", "--loss_scale", "hermes")
    found = json.loads(text)
    assert code == 0
    assert (found["rows"], found["encoded"]) == (5, 3)
    template = get_template("qwen2_5", small_tokenizer(), loss_scale="hermes")
    for sample in found["samples"]:
        encoded = template.encode(ROWS[sample["row"]])
        assert sample["input_ids"] == encoded.input_ids
        assert sample["labels"] == encoded.labels
        assert sample["loss_scale"] == encoded.loss_scale
        assert sample["text"] == encoded.text
    assert found["settings"]["loss_scale"] == "hermes"


def test_one_row_as_a_prompt_with_ids(swift):
    code, text = swift(*SHOW, "--row", "1", "--mode", "infer", "--ids")
    assert code == 0
    template = get_template("qwen2_5", small_tokenizer())
    asked = {"messages": ROWS[1]["messages"][:-1]}
    ids = template.encode(asked, mode="infer").input_ids
    lines = re.findall(r"^ *\d+  +(\d+(?: \d+)*)  +0  ", text, re.MULTILINE)
    assert [int(token) for line in lines for token in line.split()] == ids
    assert "trained" not in text
    assert ["⟨U+202E⟩" in text, "␛" in text] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--row", "9"), 3, "there is no such row"),
        (("--row", "-1"), 3, "0 to 4"),
        (("--row", "4"), 3, "row 4: messages[1].role"),
        (("--row", "3"), 3, "no token counts in the loss"),
        (("--rows", "0"), 2, "--rows"),
        (("--template", "qwen"), 2, "--template: given twice"),
        (("--set", "train.lr=1"), 2, "--set belongs to a recipe"),
        (("--colour",), 2, "colour"),
    ],
)
def test_show_refuses_with_where_and_what(swift, arguments, code, told):
    found = swift(*SHOW, *arguments)
    assert found[0] == code
    assert told in found[1]


def test_words_and_places_that_do_not_exist_are_refused(swift):
    assert swift("lists")[0] == 2
    assert swift()[0] == 2
    assert "neither rows nor a recipe" in swift("show", "--row", "1")[1]
    assert swift("--help")[0] == 0
    assert swift("show", "rows.jsonl", "--model", "nowhere")[0] == 5
    assert "llama3" in swift(*SHOW[:-1], "llama3_1")[1]
    assert swift("show", "no-rows.jsonl", "--model", "model")[0] == 3
    assert swift("show", "recipe.yaml", "--model", "model")[0] == 2


def test_compare_is_equal_for_rows_without_tools_and_ends_with_4_otherwise(swift, tmp_path):
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps(ROWS[0]) + "\n")
    code, text = swift("compare", "--model", "model", "--dataset", str(plain))
    assert (code, "prompt 1 of 1 equal" in text) == (0, True)
    code, text = swift("compare", "--model", "model", "--dataset", "rows.jsonl", "--rows", "3")
    assert code == 4
    assert "prompts differ" in text
    code, text = swift("compare", "--model", "model", "--dataset", str(plain), "--json")
    assert json.loads(text)["conversation"]["equal"] == 1
    small_tokenizer().save_pretrained(tmp_path / "bare")
    arguments = ("--model", str(tmp_path / "bare"), "--dataset", str(plain))
    code, text = swift("compare", *arguments, "--template", "qwen2_5")
    assert (code, "nothing to compare with" in text) == (2, True)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch):
    template = get_template("qwen2_5", small_tokenizer(), loss_scale="hermes")
    shown = show_row(template, ROWS, 2, "train")

    def printed(stream: StringIO) -> str:
        TokenView(template, stream=stream).print_sample(shown)
        return stream.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = printed(Terminal())
    assert "\x1b[1;35m<|im_start|>\x1b[0m" in coloured
    assert "\x1b[33m" in coloured
    bare = printed(StringIO())
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == bare
    assert "\x1b" not in bare
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(Terminal()) == bare


def test_recipe_needs_no_stage_and_says_when_its_base_is_not_made(swift, place):
    recipe = {
        "model": {"model": str(place / "model")},
        "data": {"dataset": [str(place / "rows.jsonl")]},
        "template": {"template": "qwen2_5", "max_length": 300},
        "train": {"method": "sft"},
        "runtime": {"store": str(place / "store")},
    }
    (place / "look.yaml").write_text(json.dumps(recipe))
    code, text = swift("show", "look.yaml", "--set", "template.loss_scale=last_round", "--row", "0")
    assert code == 0
    assert "loss scale: last_round" in text
    scratch = {**recipe, "model": {"scratch": {"hidden_size": 32}}}
    (place / "scratch.yaml").write_text(json.dumps(scratch))
    code, text = swift("show", "scratch.yaml")
    assert code != 0
    assert "scratch/scratch is not in the store" in text
