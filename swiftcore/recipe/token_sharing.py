"""What goes together with processes that share the tokens of a sequence."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftcore.recipe.sections import Recipe


def check_token_sharing(recipe: "Recipe") -> None:
    """Refuse what needs whole sequences in each process.

    Raises:
        ValueError: says which.
    """
    train, size = recipe.train, recipe.train.sequence_parallel_size
    if size == 1:
        return
    whole = {
        f"model.task_type {recipe.model.task_type} scores whole texts": not (
            recipe.model.task.is_text
        ),
        "train.neftune_noise_alpha scales its noise by the length of a sequence": (
            train.neftune_noise_alpha > 0
        ),
        "train.router_aux_loss_coef balances experts over the tokens of a forward": (
            train.router_aux_loss_coef > 0
        ),
        "tuner.train_type longlora shifts tokens within their row": (
            recipe.tuner.train_type == "longlora"
        ),
        "train.deepspeed has not been tried with it; train.fsdp has": train.deepspeed is not None,
    }
    found = next((reason for reason, is_so in whole.items() if is_so), None)
    if found:
        raise ValueError(
            f"train.sequence_parallel_size {size} gives each process a part of the tokens, and "
            f"{found}; leave one of them out"
        )
