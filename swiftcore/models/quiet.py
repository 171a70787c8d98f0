"""Silence for what libraries say unasked: progress bars, and notes of torchao on being imported."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Switch the progress bars of loading and saving off, and back on where they were on."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def quiet_imports() -> None:
    """Keep out of every process's output what importing transformers says where torchao is.

    transformers imports torchao whenever it is installed; torchao then names its GPU kernels that
    do not load on this machine, and torch tells torchao's authors of a deprecation.
    """
    logging.getLogger("torchao").setLevel(logging.ERROR)
    logging.getLogger("torch.utils._pytree").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "register_constant" not in record.getMessage()
