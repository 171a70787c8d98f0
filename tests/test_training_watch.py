"""What is told of a running training: operations, speed, event files, time left."""

import io
import struct
import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tensorboardX.proto.event_pb2 import Event
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from swiftcore.progress import TerminalProgress
from swiftcore.recipe import Runtime, TunerSection
from swiftcore.training.flops import ModelWork, expert_share, model_work
from swiftcore.training.meter import Meter
from swiftcore.training.tensorboard import EventFile
from swiftcore.tuners import prepare_model

ROWS, LENGTH = 2, 48


def small_llama(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def counted_by_torch(model) -> int:
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 96
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("tied", [True, False])
def test_operations_of_full_training_are_those_torch_counts(tied):
    model = small_llama(tied)
    tokens = ROWS * LENGTH
    # Eager attention multiplies the future too, and logits are made of all tokens.
    expected = model_work(model).training_flops(tokens, tokens, ROWS * LENGTH**2)
    assert counted_by_torch(model) == pytest.approx(expected, rel=0.01)


def test_operations_of_lora_leave_out_gradients_of_frozen_weights():
    model = prepare_model(small_llama(False), TunerSection(lora_rank=4, lora_dropout=0))
    work = model_work(model)
    tokens = ROWS * LENGTH
    assert work.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    # Nothing before the first layer is trained, so torch leaves out the gradient of its input.
    expected = work.training_flops(tokens, tokens, ROWS * LENGTH**2)
    assert counted_by_torch(model) == pytest.approx(expected, rel=0.06)


def test_a_7b_model_needs_six_operations_a_parameter_and_token():
    work = ModelWork(body=6_500_000_000, head=500_000_000, trained=7_000_000_000, attention=0)
    assert work.training_flops(1000, 1000, 0) == 6 * 7e9 * 1000


def test_a_token_goes_through_its_experts_alone():
    assert expert_share({"num_local_experts": 8, "num_experts_per_tok": 2}) == 0.25
    assert expert_share({"hidden_size": 8}) == 1.0


def test_speed_counts_steps_and_not_what_is_between_them():
    work = ModelWork(body=1000, head=10, trained=1010, attention=5)
    meter = Meter(work, peak_flops=1e9, device="cpu")
    meter.start()
    meter.add_batch([30, 50], labels=20)
    time.sleep(0.05)
    with meter.paused():
        time.sleep(0.3)
    meter.end_step()
    figures = meter.take_window()
    seconds = 80 / figures["tokens_per_second"]
    assert 0.05 <= seconds < 0.2
    flops = 4 * (1000 * 80 + 10 * 20) + 2 * 1010 * 80 + 12 * 5 * (30**2 + 50**2) / 2
    assert figures["mfu"] == pytest.approx(flops / seconds / 1e9, abs=1e-4)
    assert "mfu" not in meter.take_window()
    assert meter.of_run()["tokens_per_second"] == figures["tokens_per_second"]


def read_events(file: Path) -> list[Event]:
    """Return the records of an event file: length, checksum, event, checksum."""
    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_event_file_holds_the_metric_lines(tmp_path):
    EventFile(tmp_path).add_line({"step": 1, "loss": 9.0})
    events = EventFile(tmp_path)
    events.add_line({"step": 300, "loss": 1.5, "mfu": 0.25, "time": "2026-11-21T10:00:00+00:00"})
    events.add_line({"step": 300, "eval_loss": 2.5, "time": "2026-11-21T10:00:01+00:00"})
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    head, first, second = read_events(file)
    assert head.file_version == "brain.Event:2"
    assert first.step == 300
    assert first.wall_time == 1795255200.0
    assert {v.tag: v.simple_value for v in first.summary.value} == {
        "train/loss": 1.5,
        "train/mfu": 0.25,
    }
    assert [(v.tag, v.simple_value) for v in second.summary.value] == [("eval/loss", 2.5)]


def test_a_folder_for_event_files_nobody_asked_for_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="does nothing without report_to"):
        Runtime(logging_dir=tmp_path)


def test_time_left_of_a_resumed_run_counts_from_where_it_went_on(monkeypatch):
    now = iter([100.0, 101.0, 120.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    stream = io.StringIO()
    stream.isatty = lambda: True
    progress = TerminalProgress("train", stream)
    progress.update(0, None, "starting")
    progress.update(900, 1000, "resumed from step 900")
    progress.update(920, 1000, "step 920")
    assert stream.getvalue().rstrip().endswith("ETA 1:16  step 920")
