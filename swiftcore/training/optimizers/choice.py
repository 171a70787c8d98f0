"""From the sections of a job to its optimizer."""

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from swiftcore.errors import EnvironmentMissing, UsageError
from swiftcore.models.towers import Tower
from swiftcore.recipe.optimization import optimization_conflict
from swiftcore.recipe.sections import TrainSection, TunerSection
from swiftcore.training.job import TrainJob
from swiftcore.training.optimizers.galore import Galore
from swiftcore.training.optimizers.groups import Group, Rates, parameter_groups
from swiftcore.training.optimizers.muon import muon_with_adamw
from swiftcore.training.optimizers.own import own_optimizer
from swiftcore.training.optimizers.projection import ProjectionSettings, Renewal
from swiftcore.training.optimizers.schedule_free import ScheduleFree
from swiftcore.tuners.targets import embedding_names, linear_names, named_modules

if TYPE_CHECKING:
    from transformers import TrainingArguments

_Make = Callable[[list[Group]], Optimizer]
_SCHEDULE_FREE: dict[str, Any] = {
    "schedule_free_sgd": "sgd",
    "schedule_free_adamw": "adamw",
    "schedule_free_radam": "radam",
}


def check_optimization(job: TrainJob) -> None:
    """Refuse what can't be done, before a model is loaded.

    Raises:
        UsageError: settings contradict each other, or don't fit the device.
        EnvironmentMissing: the optimizer needs a package that is not installed.
    """
    problem = optimization_conflict(job.train, job.tuner)
    if problem:
        raise UsageError("these settings don't go together", where="recipe", found=problem)
    kind = job.train.kind()
    if kind.paged and job.device == "cpu":
        raise UsageError(
            "a paged optimizer moves its state between GPU and host memory",
            where="train.optim",
            found=f"{kind.name} on a CPU",
            do=f"set train.optim: {kind.name.removeprefix('paged_')}",
        )
    if kind.bitsandbytes or job.tuner.galore_quantization:
        _require_bitsandbytes()


def make_optimizer(
    model: Any, job: TrainJob, args: "TrainingArguments", decayed: Collection[str]
) -> Optimizer | None:
    """Return the job's optimizer, None when Trainer's own choice by `args` is the right one.

    Args:
        model: a prepared model.
        job: the job.
        args: of the Trainer.
        decayed: names of the parameters with weight decay.

    Raises:
        UsageError: a setting names nothing in this model.
    """
    train, tuner = job.train, job.tuner
    rates = _rates(job)
    grouped = tuner.lorap_lr_ratio is not None or rates.towers
    muon, own = train.optimizer == "muon", train.is_own_optimizer()
    if not (grouped or muon or own or tuner.use_galore or train.kind().schedule_free):
        return None
    groups = parameter_groups(model, rates, weight_decay=train.weight_decay, decayed=set(decayed))
    if own:
        return own_optimizer(str(train.optimizer), groups)
    if muon:
        betas = (train.adam_beta1, train.adam_beta2)
        return muon_with_adamw(model, groups, betas, train.adam_epsilon)
    if tuner.use_galore:
        return _galore(model, groups, tuner, _maker(model, train, tuner, args))
    return _maker(model, train, tuner, args)(groups)


def describe_optimization(model: nn.Module, job: TrainJob) -> list[str]:
    """Return what a recipe can't show: how much of this model GaLore projects.

    Raises:
        UsageError: it projects nothing.
    """
    if not job.tuner.use_galore:
        return []
    larger, rest = _projected(model, job.tuner)
    line = f"GaLore of rank {job.tuner.galore_rank} in {len(larger)} matrices"
    if rest:
        line += f"; {len(rest)} whose shorter side is not above the rank are stepped whole"
    return [line]


def _rates(job: TrainJob) -> Rates:
    given: dict[Tower, float | None] = {"vit": job.train.vit_lr, "aligner": job.train.aligner_lr}
    towers: dict[Tower, float] = {part: rate for part, rate in given.items() if rate is not None}
    return Rates(job.learning_rate(), job.tuner.lorap_lr_ratio or 1.0, towers)


def _maker(
    model: nn.Module, train: TrainSection, tuner: TunerSection, args: "TrainingArguments"
) -> _Make:
    """Return what makes the plain optimizer of groups."""
    if train.kind().schedule_free:
        return _schedule_free(train)
    if tuner.galore_quantization or train.kind().bitsandbytes:
        _keep_tables_in_32_bits(model)
    if tuner.galore_quantization:
        from bitsandbytes.optim.adamw import AdamW

        betas = (train.adam_beta1, train.adam_beta2)
        return partial(AdamW, betas=betas, eps=train.adam_epsilon, optim_bits=8)
    from transformers import Trainer

    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    return partial(kind, **settings)


def _schedule_free(train: TrainSection) -> _Make:
    kind = _SCHEDULE_FREE[train.kind().name]
    if kind == "sgd":
        momentum = (train.optim_args or {}).get("momentum", 0.9)
        return partial(ScheduleFree, kind=kind, beta=float(momentum))
    return partial(
        ScheduleFree,
        kind=kind,
        beta=train.adam_beta1,
        beta2=train.adam_beta2,
        epsilon=train.adam_epsilon,
    )


def _keep_tables_in_32_bits(model: nn.Module) -> None:
    """Have bitsandbytes keep moments of embeddings in 32 bits, as Trainer does."""
    from bitsandbytes.optim.optimizer import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


def _galore(model: nn.Module, groups: list[Group], tuner: TunerSection, inner: _Make) -> Galore:
    quantized = tuner.galore_quantization
    settings = ProjectionSettings(
        rank=tuner.galore_rank,
        gap=tuner.galore_update_proj_gap,
        kind=tuner.galore_proj_type,
        bits=tuner.galore_proj_bits if tuner.galore_proj_quant else None,
        group_size=tuner.galore_proj_group_size,
        renewal=Renewal(
            tuner.galore_cos_threshold, tuner.galore_gamma_proj, tuner.galore_queue_size
        )
        if quantized
        else None,
    )
    projected, _ = _projected(model, tuner)
    return Galore(groups, {id(matrix) for matrix in projected}, settings, tuner.galore_scale, inner)


def _projected(
    model: nn.Module, tuner: TunerSection
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the targets' matrices: those with sides longer than the rank, and the rest."""
    where = "tuner.galore_target_modules"
    written = tuner.galore_target_modules
    names = linear_names(model) if written is None else named_modules(model, written, where)
    if tuner.galore_with_embedding:
        names = [*names, *embedding_names(model)]
    matrices = {
        name: weight
        for name, module in model.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in names)
        and isinstance(weight := getattr(module, "weight", None), nn.Parameter)
        and weight.ndim == 2
        and weight.requires_grad
    }
    larger = [weight for weight in matrices.values() if min(weight.shape) > tuner.galore_rank]
    rest = [weight for weight in matrices.values() if min(weight.shape) <= tuner.galore_rank]
    if not larger:
        longest = max((min(weight.shape) for weight in matrices.values()), default=0)
        raise UsageError(
            "GaLore projects nothing",
            where="tuner.galore_rank" if matrices else where,
            found=f"rank {tuner.galore_rank}, and {len(matrices)} trained matrices among the "
            f"targets, whose shorter sides are at most {longest}",
            do="lower tuner.galore_rank" if matrices else "name modules that are trained",
        )
    return larger, rest


def _require_bitsandbytes() -> None:
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise EnvironmentMissing(
            "this optimizer is made by bitsandbytes, which is not installed",
            where="train.optim",
            do="pip install 'swiftcore[quantize]', or take adamw_torch",
        )
