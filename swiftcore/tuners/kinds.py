"""Every tuner by its name: where it comes from, what it trains, whether it folds into its base.

This table is data alone, so that a plan can be made without importing torch. `peft_kinds` says how
peft is asked for one; the tuners of our own each have a module.
"""

from dataclasses import dataclass
from typing import Literal

_TOWERS = ("freeze_llm", "freeze_vit", "freeze_aligner")
_TARGETS = ("target_modules", "target_regex", "modules_to_save", "peft_args", *_TOWERS)
_LORA = ("lora_rank", "lora_alpha", "lora_dropout")
# Full training with less memory: the optimizer reads these, not the tuner.
_LOW_MEMORY = (
    "use_galore",
    "galore_target_modules",
    "galore_rank",
    "galore_update_proj_gap",
    "galore_scale",
    "galore_proj_type",
    "galore_with_embedding",
    "galore_quantization",
    "galore_proj_quant",
    "galore_proj_bits",
    "galore_proj_group_size",
    "galore_cos_threshold",
    "galore_gamma_proj",
    "galore_queue_size",
    "lisa_activated_layers",
    "lisa_step_interval",
)


@dataclass(frozen=True)
class TunerKind:
    """One value of `tuner.train_type`.

    Args:
        name: as it is written in a recipe.
        home: who makes it: peft, a module of ours, or nobody, for the model itself.
        trains: what is trained, for people.
        source: the paper.
        settings: fields of the tuner section that it reads, beside train_type.
        merges: whether the merge stage can fold it into the base.
    """

    name: str
    home: Literal["peft", "swift", "model"]
    trains: str
    source: str
    settings: tuple[str, ...]
    merges: bool = True


def _peft(name: str, trains: str, source: str, *settings: str) -> TunerKind:
    return TunerKind(name, "peft", trains, source, _TARGETS + settings)


_ALL = (
    TunerKind(
        "full",
        "model",
        "the model itself, but for what the freeze rules name",
        "",
        (
            "freeze_parameters",
            "freeze_parameters_regex",
            "freeze_parameters_ratio",
            "trainable_parameters",
            "trainable_parameters_regex",
            *_TOWERS,
            *_LOW_MEMORY,
        ),
        merges=False,
    ),
    _peft(
        "lora",
        "two matrices of rank r beside each layer; with use_dora also its column norms",
        "arXiv:2106.09685, arXiv:2402.09353",
        *_LORA,
        "lora_bias",
        "lorap_lr_ratio",
        "use_rslora",
        "use_dora",
        "init_weights",
        "target_parameters",
        "lora_dtype",
        "lora_ga_batch_size",
        "lora_ga_iters",
        "lora_ga_max_length",
        "lora_ga_direction",
        "lora_ga_scale",
        "lora_ga_stable_gamma",
    ),
    _peft(
        "longlora",
        "lora, embeddings and norms, with attention within a quarter of each row",
        "arXiv:2309.12307",
        *_LORA,
        "lora_bias",
        "lorap_lr_ratio",
        "lora_dtype",
        "use_rslora",
    ),
    _peft(
        "adalora",
        "P diag(e) Q beside each layer; ranks are cut where they matter least",
        "arXiv:2303.10512",
        "lora_alpha",
        "lora_dropout",
        "adalora_target_r",
        "adalora_init_r",
        "adalora_tinit",
        "adalora_tfinal",
        "adalora_deltaT",
        "adalora_beta1",
        "adalora_beta2",
        "adalora_orth_reg_weight",
    ),
    _peft(
        "vera",
        "two vectors a layer that scale random matrices all layers share",
        "arXiv:2310.11454",
        "vera_rank",
        "vera_projection_prng_key",
        "vera_dropout",
        "vera_d_initial",
    ),
    _peft(
        "boft",
        "an orthogonal matrix a layer, of butterfly factors",
        "arXiv:2311.06243",
        "boft_block_size",
        "boft_block_num",
        "boft_dropout",
    ),
    _peft(
        "fourierft",
        "some Fourier coefficients of each layer's update",
        "arXiv:2405.03003",
        "fourier_n_frequency",
        "fourier_scaling",
    ),
    _peft("ia3", "a vector a layer that scales its output or input", "arXiv:2205.05638"),
    _peft(
        "bone",
        "a block-affine update a layer, which peft now calls MiSS",
        "arXiv:2409.15371",
        "lora_rank",
        "init_weights",
    ),
    _peft(
        "miss",
        "one matrix of shared shards a layer",
        "arXiv:2409.15371",
        "lora_rank",
        "init_weights",
    ),
    _peft(
        "loha",
        "two low-rank products a layer, multiplied by element",
        "arXiv:2108.06098",
        *_LORA[:2],
    ),
    _peft("lokr", "a Kronecker product a layer", "arXiv:2309.14859", *_LORA[:2]),
    _peft("oft", "a block-diagonal orthogonal matrix a layer", "arXiv:2306.07280"),
    _peft("hra", "a chain of r Householder reflections a layer", "arXiv:2405.17484", "lora_rank"),
    _peft(
        "vblora", "weights that compose updates from a shared bank of vectors", "arXiv:2405.15179"
    ),
    _peft(
        "randlora",
        "diagonal scales of random bases, for an update of full rank",
        "arXiv:2502.00987",
        "lora_rank",
    ),
    _peft("gralora", "LoRA for each block of each layer", "arXiv:2505.20355", *_LORA),
    _peft("delora", "LoRA with strength and angle apart", "arXiv:2503.18225", "lora_rank"),
    _peft(
        "hira",
        "a low-rank update multiplied by the layer's weights",
        "openreview TwJrTz9cRS",
        "lora_rank",
    ),
    _peft("waveft", "some wavelet coefficients of each layer's update", "arXiv:2505.12532"),
    _peft("c3a", "block-circulant matrices a layer", "arXiv:2407.19342"),
    _peft("road", "rotations of pairs of outputs", "arXiv:2409.00119"),
    _peft("shira", "a sparse random choice of weights", "arXiv:2406.13175", "lora_rank"),
    _peft("ln_tuning", "the normalisation layers", "arXiv:2312.11420"),
    _peft("adamss", "low-rank updates in clusters of each layer's singular vectors", "peft"),
    _peft(
        "frod",
        "a sparse rotation a layer, in a basis that all layers share",
        "doi:10.1609/aaai.v40i31.39813",
    ),
    _peft("pvera", "VeRA's vectors, drawn from a learnt distribution", "arXiv:2512.07703"),
    _peft(
        "glora",
        "low-rank scales and shifts of each layer's weights and biases",
        "arXiv:2306.07967",
        "lora_rank",
    ),
    _peft(
        "unilora",
        "one vector, which a fixed projection spreads over all layers",
        "arXiv:2506.00799",
        "lora_rank",
    ),
    _peft("osf", "each layer's lesser singular vectors, the others held", "arXiv:2504.07097"),
    _peft("tinylora", "some dozen numbers between a layer's singular vectors", "arXiv:2602.04118"),
    _peft(
        "psoft",
        "an orthogonal matrix in each layer's principal subspace",
        "openreview FSHrinMArK",
        "lora_rank",
    ),
    _peft(
        "peanut", "a small network that maps weights to updates", "arXiv:2410.01870", "lora_rank"
    ),
    _peft("supertuning", "the hundredth of weights of largest size", "arXiv:2607.09287"),
    _peft(
        "deft", "a low-rank projection out of each layer and what replaces it", "peft", "lora_rank"
    ),
    TunerKind(
        "trainable_tokens",
        "peft",
        "the embeddings of the tokens in peft_args.token_indices",
        "peft",
        ("peft_args",),
    ),
    TunerKind(
        "llamapro",
        "swift",
        "new blocks between the old ones, which answer nothing new at the start",
        "arXiv:2401.02415",
        ("llamapro_num_new_blocks", "llamapro_num_groups", "modules_to_save"),
    ),
    TunerKind(
        "adapter",
        "swift",
        "a bottleneck after each feed-forward part",
        "arXiv:1902.00751",
        ("adapter_length", "modules_to_save"),
        merges=False,
    ),
    TunerKind(
        "reft",
        "swift",
        "an edit of each block's output in a subspace of a few dimensions",
        "arXiv:2404.03592",
        (
            "reft_layers",
            "reft_rank",
            "reft_intervention_type",
            "reft_args",
            "modules_to_save",
        ),
        merges=False,
    ),
)

KINDS = {kind.name: kind for kind in _ALL}
