"""Whole training runs: what comes out, that it repeats, and what is refused."""

import csv
import itertools
import json
import platform

import pytest
from training_setup import (
    counting_rows,
    folder_bytes,
    make_job,
    timeless,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import DataError, ModelMissing, TrainingFailed, UsageError
from swiftcore.models import load_adapted_model, load_model
from swiftcore.training import run_training
from swiftcore.training.metrics import MEASURED, read_lines
from swiftcore.training.workspace import Workspace

pytestmark = pytest.mark.road


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("run") / "base")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    rows = counting_rows(24)
    return write_encoded(tmp_path_factory.mktemp("run") / "encoded", rows[:20], rows[20:])


class Listener:
    def __init__(self):
        self.news = []
        self.lines = []

    def update(self, done, total, text):
        self.news.append((done, total, text))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base, encoded):
    """A LoRA run with dropout, gradient checkpointing and validation rows."""
    listener = Listener()
    root = tmp_path_factory.mktemp("run")
    job = make_job(root, base, encoded, gradient_checkpointing=True, save_total_limit=2)
    result = run_training(job, progress=listener, on_metrics=listener.lines.append)
    return job, result, listener


def test_loss_falls_and_the_numbers_agree(finished):
    job, result, listener = finished
    metrics = result.metrics
    assert metrics["steps"] == 20
    assert metrics["last_loss"] < 0.95 * metrics["first_loss"]
    assert metrics["eval_loss"] < metrics["first_loss"]
    lengths = [len(row["input_ids"]) for row in counting_rows(24)[:20]]
    assert metrics["tokens"] == 4 * sum(lengths)
    assert metrics["label_tokens"] == 4 * sum(length - 2 for length in lengths)
    assert 0 < metrics["trainable_parameters"] < metrics["total_parameters"]
    assert result.resumed_from is None
    *kept, folding, head = result.notes
    assert len(kept) == (platform.libc_ver()[0] == "glibc")
    assert all("stays with the process" in note for note in kept)
    assert all(note in Workspace(job.work_dir).log.read_text() for note in result.notes)
    assert folding.startswith("LoRA folded into one product in 0 layers; left to peft: 14 with dro")
    assert head == "logits of label tokens alone, a chunk at a time, gradient in the forward"
    lines = read_lines(result.history)
    assert lines == listener.lines
    assert [line["step"] for line in lines if "loss" in line] == [1, 3, 6, 9, 12, 15, 18, 20]
    assert [line["step"] for line in lines if "eval_loss" in line] == [4, 8, 12, 16, 20]
    assert all({"epoch", "learning_rate", "grad_norm", "time"} <= set(lines[i]) for i in (0, 1))
    assert listener.news[-1][:2] == (20, 20)
    assert any("tokens/s  MFU " in text for _, _, text in listener.news)


def test_speed_and_memory_are_told_and_kept_out_of_the_artifact(finished):
    job, result, listener = finished
    trained = [line for line in listener.lines if "loss" in line]
    for line in trained:
        assert line["tokens_per_second"] > 0
        assert 0 < line["mfu"] < 1.5
        assert line["peak_memory_gib"] > 0.05
    assert result.metrics["machine_flops"] > 1e8
    assert 0 < result.metrics["mfu"] < 1.5
    kept = (job.out_dir / "metrics.jsonl").read_text()
    assert not any(name in kept for name in MEASURED)


def test_every_logged_loss_is_the_mean_of_its_steps(finished):
    _, result, _ = finished
    lines = [line for line in read_lines(result.history) if "loss" in line]
    steps = [0, *(line["step"] for line in lines)]
    spans = [after - before for before, after in itertools.pairwise(steps)]
    total = sum(line["loss"] * span for line, span in zip(lines, spans, strict=True))
    assert result.metrics["train_loss"] == pytest.approx(total / 20)


def test_adapter_folder_is_complete_and_names_no_path(finished):
    job, _, _ = finished
    names = {file.name for file in job.out_dir.iterdir()}
    assert names == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "base_model.json",
        "chat_template.jinja", "loss.csv", "loss.png", "metrics.jsonl", "swift_template.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((job.out_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    parent = str(job.model_dir.parent).encode()
    assert not any(parent in content for content in folder_bytes(job.out_dir).values())
    assert load_adapted_model(job.model_dir, job.out_dir).peft_config["default"].r == 8


def test_loss_table_has_both_curves(finished):
    job, _, _ = finished
    with (job.out_dir / "loss.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in table] == [1, 3, 4, 6, 8, 9, 12, 15, 16, 18, 20]
    assert float(table[-1]["loss"]) > 0
    assert float(table[-1]["eval_loss"]) > 0
    assert (job.out_dir / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoints_are_sealed_and_limited(finished):
    job, _, _ = finished
    kept = sorted(path.name for path in (job.work_dir / "checkpoints").iterdir())
    assert kept == ["checkpoint-16", "checkpoint-20"]
    for name in kept:
        record = json.loads((job.work_dir / "checkpoints" / name / "complete.json").read_text())
        assert {"optimizer.pt", "rng_state.pth"} <= {entry["path"] for entry in record["files"]}


def test_a_finished_run_started_again_writes_the_same_and_trains_no_step(finished, tmp_path):
    job, result, _ = finished
    again = train_in_this_process(job.model_copy(update={"out_dir": tmp_path / "again"}))
    assert again.resumed_from == 20
    assert folder_bytes(tmp_path / "again") == folder_bytes(job.out_dir)
    assert again.metrics["train_loss"] == result.metrics["train_loss"]


def test_full_training_repeats_byte_for_byte_in_another_place(base, encoded, tmp_path):
    jobs = [
        make_job(tmp_path / name, base, encoded, tuner={"train_type": "full"}, max_steps=6)
        for name in ("a", "b")
    ]
    # One in a process of its own, one in this process: what else it has done makes no difference.
    runs = zip((run_training, train_in_this_process), jobs, strict=True)
    lines = [timeless(read_lines(train(job).history)) for train, job in runs]
    assert lines[0] == lines[1]
    assert folder_bytes(jobs[0].out_dir) == folder_bytes(jobs[1].out_dir)
    model = load_model(jobs[0].out_dir)
    assert model.config.use_cache is True
    assert (jobs[0].out_dir / "model.safetensors").read_bytes() != (
        base / "model.safetensors"
    ).read_bytes()


def test_loss_that_is_not_finite_stops_with_step_and_rows(base, encoded, tmp_path):
    job = make_job(
        tmp_path, base, encoded, tuner={"train_type": "full"}, learning_rate=1e30, save_steps=1
    )
    with pytest.raises(TrainingFailed) as caught:
        train_in_this_process(job)
    error = caught.value
    assert "is nan" in error.message or "is inf" in error.message
    assert "step 2" in error.where
    assert "rows" in error.where
    assert "checkpoint-1" in error.found
    assert not job.out_dir.exists()


def test_rows_without_a_label_are_refused_before_training(base, tmp_path):
    encoded = write_encoded(tmp_path / "encoded", counting_rows(4, labelled=False))
    with pytest.raises(DataError, match="carries loss") as caught:
        run_training(make_job(tmp_path, base, encoded))
    assert caught.value.exit_code == 3


def test_an_empty_split_is_refused(base, tmp_path):
    encoded = write_encoded(tmp_path / "encoded", [])
    with pytest.raises(DataError, match="no rows to train on"):
        run_training(make_job(tmp_path, base, encoded))


def test_unknown_schedule_names_the_known_ones(base, encoded, tmp_path):
    with pytest.raises(UsageError) as caught:
        train_in_this_process(make_job(tmp_path, base, encoded, lr_scheduler_type="cosin"))
    assert caught.value.found == "cosin"
    assert "cosine" in caught.value.expected


def test_missing_model_is_refused_before_a_process_starts(encoded, tmp_path):
    job = make_job(tmp_path, tmp_path / "nowhere", encoded)
    with pytest.raises(ModelMissing):
        run_training(job)
    assert not job.work_dir.exists()
