"""Optimizers against their definitions, and their states through a checkpoint."""

import copy
import math

import pytest
import torch
from torch import nn
from training_setup import make_job
from transformers import Trainer

from swiftcore.errors import UsageError
from swiftcore.recipe.optimizers import OPTIMIZERS
from swiftcore.training.arguments import training_arguments
from swiftcore.training.optimizers import make_optimizer
from swiftcore.training.optimizers.few_bits import FewBits
from swiftcore.training.optimizers.galore import Galore
from swiftcore.training.optimizers.groups import Rates, parameter_groups
from swiftcore.training.optimizers.projection import Projection, ProjectionSettings, Renewal
from swiftcore.training.optimizers.schedule_free import ScheduleFree

RATE = 1e-2


class Net(nn.Module):
    """Table, two blocks, a norm and a head, of sizes that 8-bit optimizers take."""

    def __init__(self, width: int = 64):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(80, width)
        self.blocks = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 80, bias=False)

    def forward(self, ids):
        x = self.table(ids)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(self.norm(x))


def learn(net: nn.Module, optimizer, steps: int, first: int = 0) -> list[float]:
    """Predict the next number; return the losses."""
    losses = []
    for step in range(first, first + steps):
        ids = torch.randint(79, (32,), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(net(ids), ids + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def optimizer_of(net: nn.Module, root, *, tuner=None, **train):
    """Make the optimizer that a training with these settings has."""
    settings = {"train_type": "full", **(tuner or {})}
    job = make_job(root, root, root, tuner=settings, **{"learning_rate": RATE, **train})
    trainer = Trainer(net, training_arguments(job, 100, has_validation=False))
    decayed = trainer.get_decay_parameter_names(net)
    return make_optimizer(net, job, trainer.args, decayed) or trainer.create_optimizer()


def settings_of(name: str) -> dict:
    kind = OPTIMIZERS[name]
    settings = {"optim": name}
    if kind.schedule_free:
        settings["lr_scheduler_type"] = "constant"
    if "momentum" in kind.args:
        settings["optim_args"] = {"momentum": 0.9}
    return settings | ({"learning_rate": 0.3} if "sgd" in name else {})


QUANTIZED = {
    "use_galore": True,
    "galore_rank": 8,
    "galore_update_proj_gap": 2,
    "galore_quantization": True,
    "galore_proj_quant": True,
    "galore_queue_size": 2,
}
PLUG_INS = {
    "muon": ({}, {"optimizer": "muon"}),
    "galore": ({"use_galore": True, "galore_rank": 8, "galore_update_proj_gap": 3}, {}),
    "galore of sgd": (
        {"use_galore": True, "galore_rank": 8},
        {"optim": "sgd", "learning_rate": 0.3},
    ),
    "galore of adafactor": ({"use_galore": True, "galore_rank": 8}, {"optim": "adafactor"}),
    "q-galore": (QUANTIZED, {}),
}
BY_NAME = {name: ({}, settings_of(name)) for name, kind in OPTIMIZERS.items() if not kind.paged}
ALL = BY_NAME | PLUG_INS


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_learns_and_goes_on_from_its_saved_state_with_the_same_bits(name, tmp_path):
    tuner, train = ALL[name]
    net = Net()
    optimizer = optimizer_of(net, tmp_path, tuner=tuner, **train)
    losses = learn(net, optimizer, 8)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    again = copy.deepcopy(net)
    losses += learn(net, optimizer, 4, first=8)
    assert min(losses[-3:]) < losses[0] - 0.05, losses

    resumed = optimizer_of(again, tmp_path, tuner=tuner, **train)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert learn(again, resumed, 4, first=8) == losses[8:]
    for ours, theirs in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_schedule_reaches_the_groups_of_an_optimizer_whose_state_was_loaded(tmp_path):
    for tuner, train in (PLUG_INS["muon"], PLUG_INS["galore"]):
        net = Net()
        optimizer = optimizer_of(net, tmp_path, tuner=tuner, **train)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step == 0))
        optimizer.step()
        schedule.step()
        before = copy.deepcopy(net)
        learn(net, optimizer, 1)
        for ours, theirs in zip(net.parameters(), before.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_muon_makes_block_matrices_orthogonal_and_leaves_the_rest_to_adamw(tmp_path):
    net = Net()
    optimizer = optimizer_of(net, tmp_path, optimizer="muon", weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    learn(net, optimizer, 1)
    for name, parameter in net.named_parameters():
        update = (parameter.detach() - before[name]) / RATE
        if name.startswith("blocks.") and parameter.ndim == 2:
            # 0.2 sqrt(max(A, B)) U S' V with S' near 1 (arXiv:2502.16982, section 2.2).
            values = torch.linalg.svdvals(update / (0.2 * math.sqrt(64)))
            # A batch of 32 tokens has no gradient in half of the 64 directions.
            assert values[:16].min() > 0.6
            assert values.max() < 1.3
        else:
            # Adam's first step is the sign of the gradient.
            moved = parameter.grad.abs() > 1e-5
            assert torch.allclose(update[moved], -parameter.grad[moved].sign(), atol=2e-3), name


def test_muon_without_a_matrix_to_train_is_refused(tmp_path):
    net = Net()
    net.blocks.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing to do"):
        optimizer_of(net, tmp_path, optimizer="muon")


class Adapted(nn.Module):
    """Names as peft gives them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Module()
        self.layer.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.layer.lora_B = nn.ModuleDict({"default": nn.Linear(2, 6, bias=False)})
        self.norm = nn.LayerNorm(6)


def test_lora_plus_trains_b_at_its_ratio_times_the_rate(tmp_path):
    net = Adapted()
    tuner = {"train_type": "lora", "lorap_lr_ratio": 16.0}
    optimizer = optimizer_of(net, tmp_path, tuner=tuner, weight_decay=0.0, learning_rate=1e-3)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        rate = 16e-3 if "lora_B" in name else 1e-3
        assert torch.allclose(before[name] - parameter, torch.tensor(rate), rtol=1e-3), name
    # The logged rate is that of the first group.
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_groups_hold_every_trained_parameter_once_with_its_decay():
    net = Net()
    net.head.requires_grad_(False)
    groups = parameter_groups(net, Rates(RATE), weight_decay=0.1, decayed={"blocks.0.weight"})
    by_decay = {group["weight_decay"]: group["params"] for group in groups}
    assert by_decay[0.1] == [net.blocks[0].weight]
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters() if p is not net.head.weight)


def galore_adam(grads, weight, *, rank, gap, rate, scale, decay, beta1=0.9, beta2=0.99):
    """Algorithm 2 of arXiv:2403.03507 for a wide matrix, with decoupled weight decay."""
    moment = second = torch.zeros(rank, weight.shape[1], dtype=torch.float64)
    weight = weight.double()
    for step, grad in enumerate(grads):
        if step % gap == 0:
            basis = torch.linalg.svd(grad.double(), full_matrices=False)[0][:, :rank]
        low = basis.T @ grad.double()
        moment = beta1 * moment + (1 - beta1) * low
        second = beta2 * second + (1 - beta2) * low**2
        root = (second / (1 - beta2 ** (step + 1))).sqrt() + 1e-8
        update = basis @ (moment / (1 - beta1 ** (step + 1)) / root)
        weight = weight * (1 - rate * decay) - rate * scale * update
    return weight


def galore_of_adamw(weight, settings, *, scale=1.0, decay=0.0):
    group = {"params": [weight], "lr": RATE, "weight_decay": decay}

    def inner(groups):
        return torch.optim.AdamW(groups, betas=(0.9, 0.99))

    return Galore([group], {id(weight)}, settings, scale, inner)


def step_on(weight, optimizer, grads):
    for grad in grads:
        weight.grad = grad.clone()
        optimizer.step()


def test_galore_is_the_algorithm_of_its_paper():
    torch.manual_seed(1)
    weight, grads = nn.Parameter(torch.randn(6, 10)), torch.randn(5, 6, 10)
    expected = galore_adam(grads, weight.detach(), rank=3, gap=2, rate=RATE, scale=0.25, decay=0.1)
    optimizer = galore_of_adamw(weight, ProjectionSettings(3, 2), scale=0.25, decay=0.1)
    step_on(weight, optimizer, grads)
    assert torch.allclose(weight.double(), expected, atol=1e-6)
    assert optimizer.projections()[0].num_renewals == 3


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_galore_of_full_rank_is_adamw_where_the_directions_are_the_axes(shape):
    # Adam works by element, so it commutes with no other rotation.
    torch.manual_seed(2)
    weight = nn.Parameter(torch.randn(shape))
    plain = nn.Parameter(weight.detach().clone())
    sizes = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    grads = [torch.zeros(shape) for _ in range(4)]
    for step, grad in enumerate(grads):
        grad[range(5), range(5)] = sizes * (-1.0) ** step * (1 + step)
    step_on(weight, galore_of_adamw(weight, ProjectionSettings(5, 50), decay=0.1), grads)
    adamw = torch.optim.AdamW([plain], lr=RATE, betas=(0.9, 0.99), weight_decay=0.1)
    step_on(plain, adamw, grads)
    assert torch.allclose(weight, plain, atol=1e-7)


@pytest.mark.parametrize("kind", ["std", "reverse_std", "right", "left", "full"])
@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_a_projection_keeps_the_main_directions_and_nothing_else(kind, shape):
    torch.manual_seed(3)
    grad = torch.randn(shape)
    projection = Projection(grad.shape, ProjectionSettings(3, 1, kind))
    low = projection.lower(grad)
    left, sizes, right = torch.linalg.svd(grad, full_matrices=False)
    main = left[:, :3] * sizes[:3] @ right[:3]
    assert low.shape == projection.low_shape()
    assert torch.allclose(projection.lift(low), main, atol=1e-5)
    if kind == "std":
        assert low.numel() == 3 * 12, "the longer side stays"


def state_bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    inner = value.values() if isinstance(value, dict) else value
    return sum(map(state_bytes, inner)) if isinstance(value, dict | list | tuple) else 0


def test_galore_needs_a_fraction_of_adamws_memory_and_q_galore_less(tmp_path):
    sizes = {}
    for name, tuner in (
        ("adamw", {}),
        ("galore", {"use_galore": True, "galore_rank": 8, "galore_with_embedding": True}),
        ("q-galore", {**QUANTIZED, "galore_with_embedding": True}),
    ):
        net = Net(width=512)
        net.head.requires_grad_(False)
        optimizer = optimizer_of(net, tmp_path, tuner=tuner)
        learn(net, optimizer, 1)
        sizes[name] = state_bytes(optimizer.state_dict())
    # Moments of R x N for those of N x N, and the directions.
    assert sizes["galore"] < 0.1 * sizes["adamw"]
    assert sizes["q-galore"] < 0.6 * sizes["galore"]


@pytest.mark.parametrize("bits", [4, 8])
def test_few_bits_are_off_by_at_most_half_a_step(bits):
    matrix = torch.randn(9, 13, generator=torch.Generator().manual_seed(4))
    stored = FewBits.of(matrix, bits, group_size=16)
    half = (stored.step / 2).repeat_interleave(16)[: matrix.numel()].view(matrix.shape)
    off = (stored.matrix() - matrix).abs()
    assert (off <= half + 1e-6).all()
    assert off.max() > 0
    spread = [part.max() - part.min() for part in matrix.flatten().split(16)]
    assert torch.allclose(stored.step[:, 0], torch.stack(spread) / (2**bits - 1))
    assert stored.codes.numel() == 128 * bits // 8
    assert torch.equal(
        FewBits.of(torch.full((3, 3), 2.5), bits, 4).matrix(), torch.full((3, 3), 2.5)
    )


def test_projections_that_stay_alike_are_renewed_less_often_and_others_are_not():
    settings = ProjectionSettings(2, 4, renewal=Renewal(0.9, 2, 2))
    steady, restless = (Projection(torch.Size((6, 6)), settings) for _ in range(2))
    axes = torch.eye(6)
    for step in range(24):
        steady.lower(torch.diag(torch.arange(6.0)))
        restless.lower(axes.roll(step, 0) * torch.arange(6.0)[:, None])
    # Renewed at 0, 4 and 8; two similarities of 1 double the gap there, and again at 16.
    assert (steady.num_renewals, steady.gap) == (4, 16)
    assert (restless.num_renewals, restless.gap) == (6, 4)


def test_galore_says_when_no_matrix_is_larger_than_its_rank(tmp_path):
    with pytest.raises(UsageError, match="projects nothing") as caught:
        optimizer_of(Net(), tmp_path, tuner={"use_galore": True})
    assert "128" in caught.value.found
    assert "64" in caught.value.found


def schedule_free_by_the_book(kind, grad_of, start, steps, *, beta, beta2, decay):
    """x, y and z of arXiv:2405.15682, each kept for itself."""
    x = z = start.double()
    second, sum_of_squares, largest = torch.zeros_like(x), 0.0, 0.0
    for step in range(1, steps + 1):
        y = (1 - beta) * z + beta * x
        grad, rate = grad_of(y), RATE
        direction = grad
        if kind != "sgd":
            second = beta2 * second + (1 - beta2) * grad**2
            direction = grad / ((second / (1 - beta2**step)).sqrt() + 1e-8)
        if kind == "radam":
            most = 2 / (1 - beta2) - 1
            now = most - 2 * step * beta2**step / (1 - beta2**step)
            above = (now - 4) * (now - 2) * most / ((most - 4) * (most - 2) * now)
            rate = RATE * math.sqrt(above) if now > 4 else 0.0
        largest = max(largest, rate)
        sum_of_squares += largest**2
        z = z - rate * (direction + decay * y)
        share = largest**2 / sum_of_squares if sum_of_squares else 0.0
        x = (1 - share) * x + share * z
    return x, (1 - beta) * z + beta * x


@pytest.mark.parametrize("kind", ["sgd", "adamw", "radam"])
def test_schedule_free_is_the_algorithm_of_its_paper(kind):
    torch.manual_seed(5)
    start, target = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    groups = [{"params": [weight], "lr": RATE, "weight_decay": 0.1}]
    optimizer = ScheduleFree(groups, kind=kind, beta=0.9, beta2=0.95, epsilon=1e-8)
    for _ in range(9):
        weight.grad = weight.detach() - target
        optimizer.step()
    at_rest, in_training = schedule_free_by_the_book(
        kind, lambda y: y - target, start, 9, beta=0.9, beta2=0.95, decay=0.1
    )
    assert torch.allclose(weight, in_training, atol=1e-12)
    optimizer.eval()
    assert torch.allclose(weight, at_rest, atol=1e-12)
    assert not torch.allclose(at_rest, in_training, atol=1e-5)
    optimizer.train()
    assert torch.allclose(weight, in_training, atol=1e-12)
