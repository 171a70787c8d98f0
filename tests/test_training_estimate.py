"""Memory and operations said before a training, against what torch then really keeps."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils._pytree import tree_leaves
from training_setup import counting_rows, make_job, tiny_base, write_encoded
from transformers import Trainer

from swiftcore.artifacts import Produced, Store, make
from swiftcore.errors import EnvironmentMissing
from swiftcore.models import load_model
from swiftcore.models.shape import model_shape
from swiftcore.recipe import Runtime, build_recipe
from swiftcore.stages import Link, Road, Source, Step
from swiftcore.stages.graph import STAGES
from swiftcore.stages.needs import train_needs
from swiftcore.stages.plan import plan
from swiftcore.training.arguments import training_arguments
from swiftcore.training.estimate import RowSizes, estimate_flops, estimate_memory
from swiftcore.training.flops import model_work
from swiftcore.training.loss import install_label_loss
from swiftcore.training.optimizers.choice import make_optimizer
from swiftcore.training.room import free_memory, require_memory
from swiftcore.training.trained_size import trained_size
from swiftcore.training.worker import _require_room
from swiftcore.tuners import count_parameters, prepare_model

ROWS, LENGTH = 2, 192
WIDE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("estimate") / "base", **WIDE)


def job_for(base: Path, tuner: dict, **train):
    return make_job(base.parent, base, base, tuner=tuner, **train)


def kept_for_backward(model, inputs) -> int:
    """Bytes of all tensors that autograd keeps, each storage once, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}
    alive = []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs)
    return sum(sizes.values())


@pytest.mark.parametrize(
    "tuner",
    [{"train_type": "full"}, {"lora_dropout": 0.0}, {"lora_dropout": 0.05}],
    ids=["full", "lora", "lora with dropout"],
)
def test_activations_are_what_torch_keeps(base, tuner):
    job = job_for(base, tuner, per_device_train_batch_size=ROWS)
    model = prepare_model(load_model(base, attn_impl="sdpa"), job.tuner).train()
    install_label_loss(model)
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 300
    kept = kept_for_backward(model, {"input_ids": ids, "labels": ids})
    said = estimate_memory(job, LENGTH)
    assert said.tokens_a_forward == ROWS * LENGTH
    assert kept / 1.5 < said.activations < 1.5 * kept


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block(base):
    plain = estimate_memory(job_for(base, {}), LENGTH)
    saving = estimate_memory(job_for(base, {}, gradient_checkpointing=True), LENGTH)
    assert saving.fixed == plain.fixed
    assert plain.activations / 4 < saving.activations < plain.activations / 2


@pytest.mark.parametrize(
    "tuner",
    [
        {"train_type": "full"},
        {"train_type": "full", "freeze_parameters": ["model.layers.0", "model.embed_tokens"]},
        {"lora_rank": 3},
        {"use_dora": True, "target_modules": ["q_proj", "down_proj"]},
        {"target_regex": r".*mlp\.up_proj"},
        {"train_type": "adalora"},
        {"train_type": "llamapro", "llamapro_num_new_blocks": 2},
        {"train_type": "adapter", "adapter_length": 5},
    ],
    ids=lambda tuner: " ".join(map(str, tuner.values())),
)
def test_trained_parameters_and_their_state_are_exact(base, tuner):
    job = job_for(base, tuner)
    size = trained_size(model_shape(base), job.tuner)
    model = prepare_model(load_model(base), job.tuner, total_steps=100)
    assert size.exact
    assert size.entries == count_parameters(model).trainable
    said = estimate_memory(job, 0)
    assert said.gradients == 4 * size.entries
    assert said.optimizer == 8 * size.entries
    assert said.activations == said.logits == 0
    if tuner.get("train_type") == "full":
        assert said.weights == 4 * count_parameters(model).total


@pytest.mark.parametrize(
    ("tuner", "train"),
    [
        ({}, {}),
        ({"train_type": "full"}, {"optim": "sgd"}),
        ({"train_type": "full"}, {"optim": "sgd", "optim_args": {"momentum": 0.9}}),
        ({"train_type": "full"}, {"optim": "rmsprop"}),
        ({"train_type": "full"}, {"optim": "schedule_free_adamw"}),
        ({"train_type": "full", "use_galore": True, "galore_rank": 16}, {}),
    ],
    ids=lambda values: " ".join(map(str, values.values())),
)
def test_optimizer_state_is_what_the_optimizer_holds(base, tuner, train):
    job = job_for(base, tuner, **train)
    model = prepare_model(load_model(base), job.tuner)
    args = training_arguments(job, 1, has_validation=False)
    optimizer = make_optimizer(model, job, args, ())
    if optimizer is None:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
        optimizer = kind([p for p in model.parameters() if p.requires_grad], **settings)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    kept = tree_leaves(optimizer.state_dict())
    held = sum(value.nbytes for value in kept if torch.is_tensor(value) and value.ndim)
    assert held == pytest.approx(estimate_memory(job, 0).optimizer, rel=0.01)


def test_lisa_holds_gradients_of_its_blocks_alone(base):
    job = job_for(base, {"train_type": "full", "lisa_activated_layers": 1})
    whole = trained_size(model_shape(base), job.tuner).entries
    model = load_model(base)
    blocks = count_parameters(model.model.layers).total
    said = estimate_memory(job, 0)
    assert said.trained_parameters == whole == count_parameters(model).total
    assert said.gradients == 4 * (whole - blocks * 3 // 4)
    assert said.optimizer == 2 * said.gradients


def test_operations_of_a_run_are_those_of_its_model(base):
    job = job_for(base, {"train_type": "full"}, num_train_epochs=3)
    rows = RowSizes.of([40, 60])
    assert (rows.num_rows, rows.longest, rows.tokens, rows.squares) == (2, 60, 100, 5200)
    work = model_work(prepare_model(load_model(base), job.tuner))
    assert estimate_flops(job, rows) == pytest.approx(
        3 * work.training_flops(100, 100, 2600), rel=1e-3
    )


def test_a_run_that_can_not_fit_is_refused_with_what_would(base):
    job = job_for(base, {"train_type": "full"}, per_device_train_batch_size=64)
    needed = estimate_memory(job, 256)
    assert require_memory(job, 256, free=needed.total) == needed
    room = estimate_memory(job_for(base, {}, gradient_checkpointing=True), 256).total
    with pytest.raises(EnvironmentMissing) as caught:
        require_memory(job, 256, free=room)
    error = caught.value
    assert "does not fit" in error.message
    assert "optimizer" in error.expected
    assert "tuner.train_type to lora" in error.do
    assert "check_memory" in error.do
    with pytest.raises(EnvironmentMissing, match="smaller model"):
        require_memory(job, 256, free=1000)


def test_free_memory_is_no_more_than_the_machine_has():
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total


def road_step(base: Path, encoded: Path, **sections) -> Step:
    values = {"model": {"model": str(base)}, "data": {"dataset": ["x"]}, **sections}
    recipe = build_recipe({"name": "demo", **values}).recipe
    inputs = {"model": Source(base, "base"), "encoded": Source(encoded, "rows")}
    return Step(STAGES["train"], recipe, inputs)


def test_a_plan_says_memory_and_time_of_a_training(base, tmp_path):
    rows = counting_rows(6)
    encoded = write_encoded(tmp_path / "encoded", rows)
    step = road_step(base, encoded, train={"per_device_train_batch_size": 2})
    store = Store(tmp_path / "store")
    (planned,) = plan(Road(step.recipe, (step,)), store)
    needs = planned.needs
    longest = max(len(row["input_ids"]) for row in rows)
    assert needs.longest_row_tokens == longest
    assert needs.seconds is None
    job = job_for(base, {}, per_device_train_batch_size=2, gradient_checkpointing=True)
    assert needs.memory_bytes["total"] == estimate_memory(job, longest).total
    assert needs.trained_parameters == trained_size(model_shape(base), job.tuner).entries
    assert "optimizer" in needs.describe()
    assert planned.as_dict()["needs"]["memory_bytes"]["weights"] == needs.memory_bytes["weights"]

    earlier = step.call({}).identity(store)
    figures = {"mfu": 0.5, "machine_flops": 2e9}
    make(store, replace(earlier, name="other", version=9), lambda area: Produced(figures))
    (planned,) = plan(Road(step.recipe, (step,)), store)
    sizes = RowSizes.of([len(row["input_ids"]) for row in rows])
    assert planned.needs.seconds == pytest.approx(estimate_flops(job, sizes) * 3 / 4 / 1e9)


def test_a_plan_before_encoding_takes_the_longest_row_that_is_allowed(base, tmp_path):
    step = road_step(base, tmp_path, template={"max_length": 99})
    awaited = replace(step, inputs={**step.inputs, "encoded": Link(step)})
    assert train_needs(awaited, {}, Runtime(), []).longest_row_tokens == 99
    open_ended = replace(awaited, recipe=road_step(base, tmp_path).recipe)
    needs = train_needs(open_ended, {}, Runtime(), [])
    assert needs.memory_bytes["activations"] == 0
    assert "row lengths are known once rows are encoded" in needs.describe()


def test_the_training_process_checks_unless_told_not_to(base):
    job = job_for(base, {})
    with pytest.raises(EnvironmentMissing, match="does not fit"):
        _require_room(job, 10**12)
    _require_room(job.model_copy(update={"check_memory": False}), 10**12)
