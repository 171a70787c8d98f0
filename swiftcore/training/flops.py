"""How many floating-point operations training needs, by its matrices and its attention.

Counted is what the method needs and nothing else: work that is done again to save memory is no
work, so MFU falls with gradient checkpointing (Source: PaLM, arXiv:2204.02311, appendix B).
"""

from dataclasses import dataclass
from typing import Any

# A product with an attention matrix is made twice forward (scores, values) and four times backward,
# of two operations each.
_ATTENTION_OPERATIONS = 12


@dataclass(frozen=True)
class ModelWork:
    """What a model multiplies with.

    Args:
        body: entries of the matrices that every token goes through; of experts, the chosen ones.
        head: entries of the matrices that make logits of a label token.
        trained: entries of those matrices that get a gradient.
        attention: query heads times their size, added up over the layers.
    """

    body: int
    head: int
    trained: int
    attention: int

    def training_flops(self, tokens: int, labels: int, pairs: float) -> float:
        """Return the operations of a forward and a backward pass.

        Args:
            tokens: that are no padding.
            labels: tokens that get logits.
            pairs: (query, key) pairs that attention looks at; half of length^2 for a causal row.
        """
        products = 2.0 * (self.body * tokens + self.head * labels)
        return 2 * products + 2.0 * self.trained * tokens + self.attention_flops(pairs)

    def attention_flops(self, pairs: float) -> float:
        """Return the operations of attention, forward and backward."""
        return float(_ATTENTION_OPERATIONS) * self.attention * pairs


def model_work(model: Any) -> ModelWork:
    """Return what a prepared model multiplies with, from its own matrices."""
    config = model.config.get_text_config()
    embedded = _own_weight(model.get_input_embeddings())
    head_module = model.get_output_embeddings()
    head = _own_weight(head_module)
    share = expert_share(config.to_dict())
    body = head_size = trained = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        size = _entries(parameter)
        if parameter is head:
            head_size += size
        elif parameter is embedded:
            continue
        else:
            size = round(size * share) if ".experts." in name else size
            body += size
        trained += size if parameter.requires_grad else 0
    width = attention_width(config.to_dict())
    return ModelWork(body, head_size, trained, width)


def attention_width(config: dict[str, Any]) -> int:
    """Return query heads times their size, added up over the layers; 0 when config has no heads."""
    heads = config.get("num_attention_heads") or config.get("n_head") or 0
    layers = config.get("num_hidden_layers") or config.get("n_layer") or 0
    hidden = config.get("hidden_size") or config.get("n_embd") or 0
    head_dim = config.get("head_dim") or (hidden // heads if heads else 0)
    return layers * heads * head_dim


def expert_share(config: dict[str, Any]) -> float:
    """Return the share of the experts' weights that one token goes through; 1 without experts."""
    experts = config.get("num_local_experts") or config.get("num_experts")
    chosen = config.get("num_experts_per_tok")
    return chosen / experts if experts and chosen else 1.0


def _own_weight(module: Any) -> Any:
    """Return the weight of a module, under any layers a tuner put around it."""
    inner = getattr(module, "base_layer", module)
    return getattr(inner, "weight", None)


def _entries(parameter: Any) -> int:
    """Return the number of entries; bitsandbytes keeps two of 4 bits in a byte."""
    packed = type(parameter).__name__ == "Params4bit" and parameter.element_size() == 1
    return parameter.numel() * (2 if packed else 1)
