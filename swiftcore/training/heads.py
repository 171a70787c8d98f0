"""How a causal model makes logits of hidden states, asked of the model itself.

A model is a body, which makes hidden states of tokens, and what its own forward does after it: a
product with the vocabulary, and in some architectures a bias, a scale, a soft cap, a second layer.
Nothing after the body mixes tokens, so it can be done for any of them, in any number, later. The
forward is run with its body replaced: once with a body that hands over its hidden states, then
with one that hands out a chunk of them. So every architecture's own code makes its logits.

Whether a model is made like that is not read from its name. Before training a few tokens go through
it both ways. Three answers are possible:

- product: logits are hidden W^T and nothing more, which `loss` does with a gradient by hand;
- replayed: chunks give what the whole gives, through the model's own code;
- whole: they don't, and logits of all tokens are made at once.

Shapes: B rows, T tokens of a row, N tokens, D width, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

_PROBED = (2, 6)
# Largest ||chunk - whole|| / ||whole|| of logits.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUGH_TOLERANCE = 0.03
# Logits of this size show soft caps, which hardly change small ones.
_LARGE_LOGIT = 1e3


@dataclass(frozen=True)
class Head:
    """What the head of a model is.

    Args:
        kind: how label tokens get their logits.
        trained: names of the trained parameters that the model uses after its body.
        found: what speaks against chunks, when the kind is whole.
    """

    kind: Literal["product", "replayed", "whole"]
    trained: tuple[str, ...] = ()
    found: str = ""

    def describe(self) -> str:
        """Return one line for the log and the record."""
        if self.kind == "product":
            return "logits of label tokens alone, a chunk at a time, gradient in the forward"
        if self.kind == "replayed":
            return (
                "logits of label tokens alone, a chunk at a time through the model's own head, "
                "gradient in the forward"
            )
        return f"logits of all tokens at once: {self.found}"


def examine_head(causal: Any) -> Head:
    """Return how this model's logits can be made."""
    body = causal.base_model
    if body is causal:
        return Head("whole", found=f"a {type(causal).__name__} has no body apart from its head")
    training = causal.training
    causal.eval()
    try:
        return _examined(causal)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError) as err:
        return Head("whole", found=f"{type(err).__name__}: {err}")
    finally:
        causal.train(training)


def _examined(causal: Any) -> Head:
    size = int(causal.get_input_embeddings().weight.shape[0])
    ids_BT = torch.randint(size, _PROBED, generator=torch.Generator().manual_seed(0))
    ids_BT = ids_BT.to(causal.device)
    with torch.no_grad():
        whole_BTV = type(causal).forward(causal, input_ids=ids_BT, use_cache=False).logits
        hidden_BTD = hidden_states(causal, input_ids=ids_BT)
        hidden_ND = hidden_BTD.flatten(0, 1)
        found = _difference(replay(causal, hidden_ND), whole_BTV.flatten(0, 1))
    if not found <= _TOLERANCE.get(hidden_ND.dtype, _ROUGH_TOLERANCE):
        return Head("whole", found=f"chunks of tokens give other logits (difference {found:.2g})")
    trained = _trained_after_body(causal, hidden_ND)
    if _is_product(causal, hidden_ND):
        return Head("product", trained)
    return Head("replayed", trained)


def hidden_states(causal: Any, **inputs: Any) -> Tensor:
    """Return what the body makes of its inputs, [B, T, D]; logits are made of no token."""
    return body_states(causal, **inputs)[0]


def whole_states(causal: Any, **inputs: Any) -> tuple[Tensor, Tensor | None]:
    """Return logits of all tokens, [B, T, V], and the balance loss where it is asked for."""
    output = type(causal).forward(causal, **inputs, use_cache=False)
    return output.logits, getattr(output, "aux_loss", None)


def body_states(causal: Any, **inputs: Any) -> tuple[Tensor, Tensor | None]:
    """Return hidden states, [B, T, D], and the balance loss where router logits are asked for."""
    kept: list[Tensor] = []
    body = causal.base_model
    original = body.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        kept.append(output.last_hidden_state)
        output.last_hidden_state = kept[0][:, :0]
        return output

    with _body_does(causal, forward):
        inputs = {**_without_balance(causal), **inputs}
        whole = type(causal).forward(causal, **inputs, use_cache=False)
    return kept[0], getattr(whole, "aux_loss", None)


def replay(causal: Any, hidden_ND: Tensor) -> Tensor:
    """Return the logits that the model's own forward makes of hidden states, [N, V]."""
    output = _output_type()(last_hidden_state=hidden_ND[None])

    def forward(*_args: Any, **_kwargs: Any) -> Any:
        return output

    ids = torch.zeros((1, len(hidden_ND)), dtype=torch.long, device=hidden_ND.device)
    with _body_does(causal, forward):
        inputs = {"input_ids": ids, "use_cache": False, **_without_balance(causal)}
        return type(causal).forward(causal, **inputs).logits[0]


@cache
def _output_type() -> Any:
    """Return the type of what a body returns, with None for all that some bodies return besides."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class HiddenStates(BaseModelOutputWithPast):
        def __getattr__(self, name: str) -> None:
            if name.startswith("_"):
                raise AttributeError(name)

    return HiddenStates


def _without_balance(causal: Any) -> dict[str, bool]:
    """Return what keeps a model of experts from looking for router logits nobody made."""
    asked = getattr(causal.config, "output_router_logits", None)
    return {} if asked is None else {"output_router_logits": False}


@contextmanager
def _body_does(causal: Any, forward: Any) -> Iterator[None]:
    body = causal.base_model
    before = vars(body).get("forward")
    body.forward = forward
    try:
        yield
    finally:
        if before is None:
            del body.forward
        else:
            body.forward = before


def _difference(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def _trained_after_body(causal: Any, hidden_ND: Tensor) -> tuple[str, ...]:
    """Return the names of the trained parameters that logits of given hidden states depend on."""
    trained = {name: p for name, p in causal.named_parameters() if p.requires_grad}
    if not trained:
        return ()
    with torch.enable_grad():
        logits = replay(causal, hidden_ND.detach().requires_grad_())
        gradients = torch.autograd.grad(logits.sum(), list(trained.values()), allow_unused=True)
    pairs = zip(trained, gradients, strict=True)
    return tuple(name for name, gradient in pairs if gradient is not None)


def _is_product(causal: Any, hidden_ND: Tensor) -> bool:
    """Return whether logits, small and large, are hidden W^T."""
    head = causal.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None or "forward" in vars(head):
        return False
    if head._forward_hooks or head._forward_pre_hooks:
        return False
    tolerance = 1e-5 if hidden_ND.dtype in _TOLERANCE else 1e-3
    with torch.no_grad():
        for scale in (1.0, _LARGE_LOGIT / float(head(hidden_ND).abs().amax().clamp_min(1e-6))):
            scaled = hidden_ND * scale
            if not _difference(replay(causal, scaled), head(scaled)) <= tolerance:
                return False
    return True
