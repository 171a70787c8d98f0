"""What this machine can compute: at most, measured with large products, and in which types."""

import time

import torch

_CPU_SIZE = 1024
_CUDA_SIZE = 8192
_REPEATS = 4
# A processor that emulates a type takes a second and more for one product.
_MAX_SECONDS = 0.5
# What torch calls products of bfloat16 in a processor's list of abilities: x86, and Arm.
_BFLOAT16_ABILITIES = ("avx512_bf16", "amx_bf16", "avx10_1", "avx10_2", "bf16", "sve_bf16")


def measure_peak(device: str, dtype: torch.dtype) -> float:
    """Return the operations a second of the fastest of a few large matrix products.

    It takes some hundredths of a second, and does not touch the random numbers of the training.

    Args:
        device: torch device string.
        dtype: that the training multiplies in.
    """
    size = _CUDA_SIZE if device.startswith("cuda") else _CPU_SIZE
    matrix_NN = torch.ones(size, size, device=device, dtype=dtype)
    times = [_seconds(matrix_NN)]
    while len(times) < _REPEATS and sum(times) < _MAX_SECONDS:
        times.append(_seconds(matrix_NN))
    return 2.0 * size**3 / min(times)


def emulation_note(device: str, dtype: str | None) -> list[str]:
    """Return a line when products in this type are emulated, which costs time and no exactness."""
    if dtype != "bfloat16":
        return []
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = any(able.get(name, False) for name in _BFLOAT16_ABILITIES)
    if native:
        return []
    return [
        f"{device} has no products in bfloat16 and emulates them, up to fifty times as slowly as "
        "those in float32: model.torch_dtype float32 is faster here"
    ]


def _seconds(matrix_NN: torch.Tensor) -> float:
    _wait(matrix_NN.device)
    start = time.perf_counter()
    torch.matmul(matrix_NN, matrix_NN)
    _wait(matrix_NN.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
