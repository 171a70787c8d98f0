"""The road on real input: GSM8K rows and the real Qwen tokenizer, when they are there."""

import json
from pathlib import Path

import pytest
import yaml

from tests.roads import REPO, swift_here, write_recipe

pytestmark = pytest.mark.road
SHARED = REPO.parent / "shared" / "data"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with the recipe, a handful of steps, and links to the real files."""
    files = {
        "gsm8k_train.jsonl.gz": SHARED / "math/gsm8k_train.jsonl.gz",
        "gsm8k_test.jsonl.gz": SHARED / "math/gsm8k_test.jsonl.gz",
        "tokenizer": SHARED / "tokenizers/qwen",
    }
    missing = [str(path.relative_to(REPO.parent)) for path in files.values() if not path.exists()]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")
    folder = tmp_path / "data/gsm8k"
    folder.mkdir(parents=True)
    for name, path in files.items():
        (folder / name).symlink_to(path)
    recipe = yaml.safe_load((REPO / "recipes/gsm8k.yaml").read_text())
    recipe["model"]["scratch"] |= {"hidden_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    recipe["model"]["scratch"] |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    recipe["data"] |= {
        "dataset": ["data/gsm8k/gsm8k_train.jsonl.gz#60"],
        "split_dataset_ratio": 0.1,
    }
    recipe["train"] |= {"max_steps": 4, "per_device_train_batch_size": 4, "eval_steps": 2}
    recipe["train"] |= {"save_steps": 2, "gradient_accumulation_steps": 1, "learning_rate": 1.0e-2}
    recipe["quantize"] |= {"min_recovery": 0.0, "quant_n_samples": 4}
    recipe["evaluate"] |= {"eval_limit": 2, "max_new_tokens": 8, "num_bootstrap": 100}
    write_recipe(tmp_path / "recipes/gsm8k.yaml", recipe)
    return tmp_path


def test_real_rows_and_the_real_tokenizer_go_the_whole_way(workspace: Path) -> None:
    stage = ("stage", "evaluate", "recipes/gsm8k.yaml", "--out", "out/evaluate")
    done = swift_here(*stage, cwd=workspace)
    assert done.returncode == 0, done.stderr
    store = workspace / ".swift/store"
    rows = json.loads(next(store.glob("ingest/*/report.json")).read_text())
    assert sum(source["quarantined"] for source in rows["sources"]) == 0
    curve = next(store.glob("train/*/loss.csv")).read_text().splitlines()
    held_out = [float(line.split(",")[2]) for line in curve[1:] if line.split(",")[2]]
    assert held_out[-1] < held_out[0]
    report = json.loads((workspace / "out/evaluate/report.json").read_text())
    assert set(report["candidates"]) == {"base", "trained", "quantized"}
    assert report["contamination"]["exact"] == 0
