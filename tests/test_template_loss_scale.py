"""Loss scales: which text weighs what, files of one's own, and what the weights do in training."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from template_fixtures import chat, small_tokenizer
from training_setup import counting_rows, make_job, tiny_base, write_encoded

from swiftcore.errors import UsageError
from swiftcore.models import load_model
from swiftcore.recipe import Recipe
from swiftcore.stages.template import TEMPLATE
from swiftcore.template import get_template
from swiftcore.template.loss_scale import list_loss_scales, parse_loss_scale
from swiftcore.template.settings import template_from_settings
from swiftcore.training.arguments import total_steps, training_arguments
from swiftcore.training.batches import Collator, plan_batches
from swiftcore.training.loss import label_loss
from swiftcore.training.metrics import read_lines
from swiftcore.training.objectives import objective_for
from swiftcore.training.rows import read_rows
from swiftcore.training.stopping import StopRequest
from swiftcore.training.trainer import SwiftTrainer
from swiftcore.training.workspace import Workspace
from swiftcore.tuners import prepare_model

TOKENIZER = small_tokenizer()
REACT = "Thought: t\nAction: f\nAction Input: {}\nObservation: seen\nFinal Answer: 4"


def weighed(name, text: str, query: str = "") -> list[tuple[str, float]]:
    """The runs of a text with their weights, neighbours of one weight joined."""
    joined: list[tuple[str, float]] = []
    position = 0
    for length, weight in parse_loss_scale(name).runs(text, query):
        part = text[position : position + length]
        position += length
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + part, weight)
        else:
            joined.append((part, weight))
    assert position == len(text)
    return joined


WEIGHED = {
    "react": (
        REACT,
        [
            ("Thought: t\n", 1),
            ("Action: f\nAction Input: {}\nObservation:", 2),
            (" seen\n", 0),
            ("Final Answer: 4", 1),
        ],
    ),
    "alpha_umi": ("Next: caller. Final Answer: 4", [("Next: caller. ", 2), ("Final Answer: 4", 1)]),
    "qwen": (
        "ok\n✿FUNCTION✿: f\n✿ARGS✿: {}\n✿RESULT✿: seen\n✿RETURN✿: 4",
        [
            ("ok\n", 1),
            ("✿FUNCTION✿: f\n✿ARGS✿: {}\n✿RESULT✿:", 2),
            (" seen\n", 0),
            ("✿RETURN✿: 4", 1),
        ],
    ),
    "agentflan": (
        "Thought: t\nACTION: f\nObservation: seen",
        [("Thought: t\nACTION:", 1), (" f\n", 3), ("Observation:", 2), (" seen", 0)],
    ),
    "hermes": (
        "a<tool_call>\nx\n</tool_call>b<tool_call>y</tool_call>",
        [
            ("a", 1),
            ("<tool_call>\nx\n</tool_call>", 2),
            ("b", 1),
            ("<tool_call>y</tool_call>", 2),
        ],
    ),
    "ignore_empty_think": ("<think>\n\n</think>\n\n4", [("<think>\n\n</think>\n\n", 0), ("4", 1)]),
    "ignore_think_prefix": ("<think>\nhm</think>4", [("<think>\n", 0), ("hm</think>4", 1)]),
    "hermes+ignore_think_prefix": (
        "<think>\nhm</think><tool_call>x</tool_call>",
        [("<think>\n", 0), ("hm</think>", 1), ("<tool_call>x</tool_call>", 2)],
    ),
    "hermes+hermes": ("<tool_call>x</tool_call>", [("<tool_call>x</tool_call>", 4)]),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_each_rule_weighs_its_parts(name):
    text, expected = WEIGHED[name]
    assert weighed(name, text) == expected


@pytest.mark.parametrize(
    "opening",
    ["</think>", "<|channel>thought\n<channel|>", "<think>\n\n</think>\n\n"],
)
def test_an_empty_think_block_counts_nothing_at_the_start_alone(opening):
    assert weighed("ignore_empty_think", f"{opening}4") == [(opening, 0), ("4", 1)]
    assert weighed("ignore_empty_think", f"4{opening}") == [(f"4{opening}", 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(list_loss_scales()[3:]), min_size=1, max_size=3),
    st.lists(st.sampled_from([*REACT.split(), "<think>", "</think>", "<tool_call>", "\n", "x"])),
)
def test_runs_add_up_to_the_text(names, words):
    text = " ".join(words)
    runs = parse_loss_scale("+".join(names)).runs(text)
    assert sum(length for length, _ in runs) == len(text)


MAP = {"response": {"Go:": [2, 3], "Stop:": [1, 0]}, "query": {"Which way?": 5}}


@pytest.fixture
def map_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(MAP))
    return path


def test_a_file_maps_keywords_and_questions(map_file):
    assert weighed(str(map_file), "a Go: b Stop: c") == [
        ("a ", 1),
        ("Go:", 2),
        (" b ", 3),
        ("Stop:", 1),
        (" c", 0),
    ]
    assert weighed(str(map_file), "a Go: b", "Which way? Left?") == [("a Go: b", 5)]


def test_a_file_maps_expressions(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({r"\d+": 0, r"(b)\1": [2], "x*": 9}))
    assert weighed(str(path), "a12bbc") == [("a", 1), ("12", 0), ("bb", 2), ("c", 1)]


def test_the_question_decides_in_every_kind_of_template(map_file):
    row = {"messages": chat("Which way?", "Go: left", "And now?", "Go: right")}
    for name in ("chatml", "jinja"):
        tokenizer = small_tokenizer(
            "{% for m in messages %}"
            "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
        )
        encoded = get_template(name, tokenizer, loss_scale=str(map_file)).encode(row)
        weights = [w for w, label in zip(encoded.loss_scale, encoded.labels, strict=True) if w]
        assert set(weights[: len(tokenizer("Go: left").input_ids)]) == {5.0}
        assert {2.0, 3.0} <= set(weights) <= {1.0, 2.0, 3.0, 5.0}


def test_settings_hold_the_files_contents(map_file):
    template = get_template("chatml", TOKENIZER, loss_scale=f"last_round+{map_file}")
    settings = json.loads(json.dumps(template.settings))
    assert settings["loss_scale"]["name"] == "last_round+mine.yaml"
    row = {"messages": chat("a", "b", "c", "Go: d Stop: e")}
    before = template.encode(row).loss_scale
    map_file.unlink()
    again = template_from_settings(settings, TOKENIZER)
    assert again.encode(row).loss_scale == before
    assert again.settings["loss_scale"] == settings["loss_scale"]


def test_what_a_file_holds_is_identity_and_not_where_it_lies(tmp_path):
    def config(folder: str, value: dict) -> dict:
        path = tmp_path / folder / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
        recipe = Recipe.model_validate(
            {
                "name": "mine",
                "model": {"model": "m"},
                "data": {"dataset": ["rows.jsonl"]},
                "template": {"loss_scale": str(path)},
            }
        )
        return TEMPLATE.config(recipe)

    assert config("a", MAP) == config("b", MAP)
    assert config("a", MAP) != config("b", {"Go:": [2, 2]})


BROKEN = {
    "list": ("[1]", "holds no map"),
    "empty": ("{}", "holds no map"),
    "no yaml": ("{", "is broken"),
    "three weights": ('{"Go:": [1, 2, 3]}', "Go:"),
    "negative": ('{"Go:": [1, -2]}', "Go:"),
    "not a number": ('{"Go:": [1, "x"]}', "Go:"),
    "boolean": ('{"Go:": true}', "Go:"),
    "mixed": ('{"Go:": [1, 2], "Stop": [1]}', "Stop"),
    "expression": ('{"(": [1]}', r"\("),
    "key": ("{1: [1, 2]}", "no text"),
    "section": ('{"response": {"a": 1}, "answer": {}}', "answer"),
    "query": ('{"query": {"a": [1, 2]}}', "query: a"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_file_and_key(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        parse_loss_scale(str(path))
    assert "mine.yaml" in str(caught.value)


def test_unknown_names_missing_files_and_two_bases_are_refused(tmp_path):
    for name in ("hermez", str(tmp_path / "none.yaml"), "default+all", "hermes+"):
        with pytest.raises(UsageError):
            parse_loss_scale(name)
    with pytest.raises(UsageError, match="hermes"):
        parse_loss_scale("hermez")


@pytest.mark.parametrize("scale", ["default", "last_round", "hermes"])
def test_flags_and_weights_of_messages_beat_every_scale(scale):
    """ms-swift ignores a message's weight where the scale has only 0 and 1."""
    messages = chat("a", "first", "b", "second")
    messages[1] |= {"loss": True, "loss_scale": 0.5}
    messages[3] |= {"loss": False}
    encoded = get_template("chatml", TOKENIZER, loss_scale=scale).encode({"messages": messages})
    trained = [i for i, label in enumerate(encoded.labels) if label != -100]
    assert TOKENIZER.decode([encoded.input_ids[i] for i in trained]) == "first<|im_end|>\n"
    assert {encoded.loss_scale[i] for i in trained} == {0.5}


@pytest.mark.parametrize("normalization", ["tokens", "weights"])
def test_a_steps_loss_is_divided_by_tokens_or_by_weights(tmp_path, normalization):
    """Against the sum of weight * cross-entropy, divided by hand; padded, in two micro batches."""
    rows = counting_rows(8)
    for row in rows:
        row["loss_scale"] = [0.0, 0.0] + [2.0, 0.5] * ((len(row["labels"]) - 2) // 2)
        row["loss_scale"] += [1.0] * (len(row["labels"]) - len(row["loss_scale"]))
    base, encoded = (
        tiny_base(tmp_path / "base"),
        write_encoded(tmp_path / "encoded", rows[:4], rows),
    )
    train = {"max_steps": 1, "save_steps": 1, "logging_steps": 1, "learning_rate": 1e-12}
    train["loss_normalization"] = normalization
    job = make_job(tmp_path / "job", base, encoded, tuner={"lora_dropout": 0.0}, **train)
    losses = one_step(job)
    model = load_model(base)

    def by_hand(chosen: list[dict]) -> float:
        batch = Collator(0)(chosen)
        with torch.no_grad():
            total = label_loss(model, batch["input_ids"], batch["labels"], batch["loss_weights"])
        counted = batch["labels"][:, 1:] != -100
        weights = batch["loss_weights"][:, 1:][counted]
        return float(total / (weights.sum() if normalization == "weights" else counted.sum()))

    assert losses == pytest.approx([by_hand(rows[:4]), by_hand(rows)], rel=1e-4)


def one_step(job) -> list[float]:
    """Train and evaluate once in this process; the losses of both."""
    rows, held_out = (read_rows(job.encoded_dir, split) for split in ("train", "val"))
    batches = plan_batches(job, rows, held_out)
    args = training_arguments(job, total_steps(job, len(batches.order)), True)
    model = prepare_model(load_model(job.model_dir), job.tuner)
    objective = objective_for(job, pad_id=0)
    SwiftTrainer(
        model, args, job=job, batches=batches, objective=objective, stop=StopRequest()
    ).train()
    lines = read_lines(Workspace(job.work_dir).metrics)
    return [line.get("loss", line.get("eval_loss")) for line in lines]
