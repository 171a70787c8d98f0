"""ReFT: each intervention by its formula, counted, trained, stored, and what it refuses."""

import pytest
import torch
from torch import nn
from training_setup import (
    counting_rows,
    learn,
    make_job,
    tiny_base,
    train_in_this_process,
    write_encoded,
)

from swiftcore.errors import UsageError
from swiftcore.models import load_model
from swiftcore.models.shape import model_shape
from swiftcore.recipe import TunerSection
from swiftcore.training.trained_size import trained_size
from swiftcore.tuners import count_parameters, load_adapter, prepare_model, save_adapter
from swiftcore.tuners.reft import Intervention

IDS = torch.tensor([list(range(20, 40)), list(range(30, 50))])
WIDTH, RANK = 32, 4


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("reft") / "base", tie_word_embeddings=False)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def by_formula(kind: str, edit: Intervention, h: torch.Tensor) -> torch.Tensor:
    """The paper's equations, with R or P as a plain matrix."""
    r = edit.projection.weight
    source = h @ edit.source.weight.T + edit.source.bias if hasattr(edit, "source") else edit.target
    return {
        "LoreftIntervention": lambda: h + (source - h @ r.T) @ r,
        "NoreftIntervention": lambda: h + (source - h @ r.T) @ r,
        "ConsreftIntervention": lambda: h + (edit.target - h @ r.T) @ r,
        "LobireftIntervention": lambda: h + edit.target @ r,
        "DireftIntervention": lambda: h + source @ r,
        "NodireftIntervention": lambda: h + source @ r,
    }[kind]()


# Of R or P (both R x H), and of W and b or of b alone.
COUNTS = {
    "LoreftIntervention": 2 * RANK * WIDTH + RANK,
    "NoreftIntervention": 2 * RANK * WIDTH + RANK,
    "ConsreftIntervention": RANK * WIDTH + RANK,
    "LobireftIntervention": RANK * WIDTH + RANK,
    "DireftIntervention": 2 * RANK * WIDTH + RANK,
    "NodireftIntervention": 2 * RANK * WIDTH + RANK,
}


@pytest.mark.parametrize("kind", COUNTS)
def test_an_intervention_is_what_the_paper_says(base, kind):
    torch.manual_seed(0)
    section = TunerSection(train_type="reft", reft_intervention_type=kind)
    model = prepare_model(load_model(base), section)
    assert count_parameters(model).trainable == 2 * COUNTS[kind]
    edit = model.model.layers[0].reft
    h = torch.randn(3, 5, WIDTH)
    torch.testing.assert_close(edit(h), by_formula(kind, edit, h), rtol=0, atol=1e-5)
    gram = edit.projection.weight @ edit.projection.weight.T
    is_orthonormal = bool(torch.allclose(gram, torch.eye(RANK), atol=1e-5))
    assert is_orthonormal == (kind not in ("NoreftIntervention", "NodireftIntervention"))
    if kind in ("LoreftIntervention", "ConsreftIntervention"):
        # The subspace then holds the target, and what is orthogonal to it is left alone.
        target = edit.source(h) if hasattr(edit, "source") else edit.target.expand(3, 5, RANK)
        torch.testing.assert_close(edit.projection(edit(h)), target, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", COUNTS)
def test_it_trains_stays_orthonormal_and_comes_back_the_same(base, tmp_path, kind):
    torch.manual_seed(0)
    section = TunerSection(
        train_type="reft", reft_intervention_type=kind, reft_layers=[1], modules_to_save=["norm"]
    )
    model = prepare_model(load_model(base), section)
    before = model.model.layers[1].reft.projection.weight.detach().clone()
    losses = learn(model, IDS, steps=6)
    assert losses[-1] < losses[0]
    weight = model.model.layers[1].reft.projection.weight.detach()
    assert (weight - before).abs().max() > 1e-3
    if kind not in ("NoreftIntervention", "NodireftIntervention"):
        torch.testing.assert_close(weight @ weight.T, torch.eye(RANK), rtol=0, atol=1e-5)
    save_adapter(model, tmp_path / "adapter")
    reloaded = load_adapter(base, tmp_path / "adapter")
    assert not hasattr(reloaded.model.layers[0], "reft")
    assert torch.equal(logits(reloaded), logits(model))


def test_act_fn_dropout_and_bias_do_what_they_say():
    torch.manual_seed(0)
    edit = Intervention("DireftIntervention", WIDTH, RANK, act_fn="relu", dropout=0.5)
    h = torch.randn(2, 7, WIDTH)
    expected = h + torch.relu(edit.source(h)) @ edit.projection.weight
    dropped = edit(h)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * expected[kept])
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(edit.eval()(h), expected)
    free = Intervention("NoreftIntervention", WIDTH, RANK, add_bias=True)
    nn.init.normal_(free.projection.bias)
    change = free.source(h) - (h @ free.projection.weight.T + free.projection.bias)
    torch.testing.assert_close(free(h), h + change @ free.projection.weight)


def test_it_works_with_gradient_checkpointing_and_in_generation(base):
    section = TunerSection(train_type="reft")
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = prepare_model(load_model(base), section).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        gradients.append(model.model.layers[0].reft.source.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[0].abs().max() > 0
    model.eval()
    with torch.no_grad():
        answer = model.generate(IDS[:1], max_new_tokens=4, do_sample=False)
        for place in range(IDS.shape[1], answer.shape[1]):
            again = model(answer[:, :place], use_cache=False).logits[0, -1].argmax()
            assert again == answer[0, place]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reft_layers": [2]}, "no such blocks"),
        ({"reft_layers": []}, "no such blocks"),
        ({"reft_rank": 33}, "more dimensions"),
        ({"reft_args": {"dropuot": 0.1}}, "no such setting"),
        ({"reft_args": {"add_bias": True}}, "no such setting"),
        ({"reft_args": {"dropout": 1}}, "can't have this value"),
        ({"reft_args": {"act_fn": "sinus"}}, "can't have this value"),
        ({"lora_rank": 4}, "do nothing"),
    ],
)
def test_what_it_cannot_do_is_said(base, settings, words):
    with pytest.raises(UsageError, match=words):
        prepare_model(load_model(base), TunerSection(train_type="reft", **settings))


def test_a_training_run_writes_a_folder_that_loads(base, tmp_path):
    encoded = write_encoded(tmp_path / "encoded", counting_rows(12), counting_rows(3, seed=1))
    job = make_job(
        tmp_path, base, encoded, tuner={"train_type": "reft"}, gradient_checkpointing=True
    )
    assert trained_size(model_shape(base), job.tuner).entries == 2 * COUNTS["LoreftIntervention"]
    metrics = train_in_this_process(job).metrics
    assert metrics["last_loss"] < metrics["first_loss"]
    assert metrics["trainable_parameters"] == 2 * COUNTS["LoreftIntervention"]
    assert load_adapter(base, job.out_dir) is not None
