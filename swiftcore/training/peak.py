"""What this machine can compute at most, measured with large products: the divisor of MFU."""

import time

import torch

_CPU_SIZE = 1024
_CUDA_SIZE = 8192
_REPEATS = 4


def measure_peak(device: str, dtype: torch.dtype) -> float:
    """Return the operations a second of the fastest of a few large matrix products.

    It takes some hundredths of a second, and does not touch the random numbers of the training.

    Args:
        device: torch device string.
        dtype: that the training multiplies in.
    """
    size = _CUDA_SIZE if device.startswith("cuda") else _CPU_SIZE
    matrix_NN = torch.ones(size, size, device=device, dtype=dtype)
    fastest = min(_seconds(matrix_NN) for _ in range(_REPEATS))
    return 2.0 * size**3 / fastest


def _seconds(matrix_NN: torch.Tensor) -> float:
    _wait(matrix_NN.device)
    start = time.perf_counter()
    torch.matmul(matrix_NN, matrix_NN)
    _wait(matrix_NN.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
