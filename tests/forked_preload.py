"""What the server of `forked` loads once, for all processes that are forked from it."""

import gc
import sys
from importlib import import_module

# As training processes do: these would be imported for nothing.
for _name in ("datasets", "torchao", "bitsandbytes"):
    sys.modules[_name] = None  # type: ignore[assignment]
for _name in ("models.loading", "training.outputs", "training.trainer", "tuners.prepare"):
    import_module(f"swiftcore.{_name}")
for _name in ("backends.backend_agg", "figure"):
    import_module(f"matplotlib.{_name}")
# What is here is never garbage: each process would look at all of it, and so copy it.
gc.freeze()
