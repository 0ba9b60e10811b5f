"""The hardware that heavy work runs on: what there is, what it can do, and how torch is to use it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

OUT_OF_MEMORY = "The GPU ran out of memory: end other jobs on it, or name another --device."


class DeviceError(ValueError):
    """A device that is not there, said in one sentence."""


def pick_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one. Raises DeviceError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"{device.type} was never tried")
        torch.empty(1, device=device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"There is no device '{name}' here: use cpu, cuda, or cuda:0 and so on.") from error
    return device


def describe_device(device: torch.device) -> str:
    """The name of the hardware, for the model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({sys.platform})"


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run at full speed, which emulation does not."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is about the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        private = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # which a release may rename
        return any(getattr(torch.cpu, name, lambda: False)() for name in private)
    return False


def is_lack_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; on a CPU, torch raises a RuntimeError like any other."""
    lacking = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return lacking or "can't allocate memory" in str(error)


def make_deterministic() -> None:
    """Let torch use deterministic algorithms only; some on a GPU need this before any other work there."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def keep_freed_memory() -> bool:
    """Let this process hand freed memory out again instead of returning it; False where that cannot be set.

    By default glibc returns every large tensor to the system, and the next step maps its pages anew: some
    30,000 page faults a step, a tenth of its time on two CPU cores. The process then stays as large as its
    largest step.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    most, older_most = 1 << 30, 1 << 25  # older versions of glibc take no more than 32 MiB
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    # The second alone would do harm: it freezes the first where it is.
    mapped = mallopt(mmap_threshold, most) or mallopt(mmap_threshold, older_most)
    return bool(mapped and mallopt(trim_threshold, (1 << 31) - 1))


def resident(images: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """uint8 images as a tensor on a GPU of whose free memory they take less than half, else as they are."""
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return torch.tensor(images, device=device)


def finish(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given; a CPU never works behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """A stream of its own for the work inside, as a capture needs for the steps before it; none on a CPU."""
    if device.type == "cpu":
        yield
        return
    stream, usual = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(usual)
    with torch.cuda.stream(stream):
        yield
    usual.wait_stream(stream)
