"""Answers to conversations as the evaluate stage makes them, for a server to repeat."""

from pathlib import Path

from swiftcore.generation import SamplingParams, TransformersEngine
from swiftcore.models import load_model, load_tokenizer
from swiftcore.serving import Golden
from swiftcore.serving.chat import load_serving_template


def evaluated_answers(model_dir: Path, rows: list[dict]) -> list[Golden]:
    """Return our own engine's greedy answers of at most 16 tokens."""
    tokenizer = load_tokenizer(model_dir)
    template = load_serving_template(model_dir, tokenizer)
    engine = TransformersEngine(load_model(model_dir), tokenizer, stop_words=template.stop_words)
    prompts = [template.encode(row, mode="infer").input_ids for row in rows]
    answers = engine.generate(prompts, SamplingParams(max_new_tokens=16), batch_size=2)
    return [
        Golden(answer.text, row["messages"], row.get("tools"), max_tokens=16, trained_ids=ids)
        for row, answer, ids in zip(rows, answers, prompts, strict=True)
    ]
