"""What there is to compute on, and how torch is told to use it."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sagan import device


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "mps", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(device.DeviceError) as error:
        device.pick_device(name)
    assert str(error.value) == f"There is no device '{name}' here: use cpu, cuda, or cuda:0 and so on."


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device.pick_device("auto") == torch.device("cuda" if there else "cpu")


def test_a_cpu_is_described_by_the_threads_that_torch_has_on_it(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert device.describe_device(torch.device("cpu")) == f"7 CPU threads ({sys.platform})"


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
    ids=repr,
)
def test_a_lack_of_memory_is_told_from_other_errors_on_every_device(error, lacking):
    assert device.is_lack_of_memory(error) is lacking


def test_a_gpu_that_shall_be_deterministic_is_told_so_before_its_first_product(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "is put back after the test")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    device.make_deterministic()
    assert asked == [True] and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # what somebody chose stays
    device.make_deterministic()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_images_live_on_a_gpu_that_has_room_for_them(monkeypatch):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert device.resident(images, cpu) is images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.nbytes - 2, 1 << 40))
    assert device.resident(images, gpu) is images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.nbytes, 1 << 40))
    monkeypatch.setattr(torch, "tensor", lambda *given, **where: (*given, where))
    assert device.resident(images, gpu) == (images, {"device": gpu})


def test_a_gpu_is_waited_for_and_a_cpu_has_nothing_left_to_do(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device.finish(torch.device("cpu"))
    device.finish(torch.device("cuda:1"))
    assert waited == [torch.device("cuda:1")]


def test_each_gpu_is_asked_for_itself_whether_it_has_bf16(monkeypatch):
    current = []

    class Current:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(self.device)

        def __exit__(self, *_) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "device", Current)
    second = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1] == second)
    assert device.has_native_bf16(second)
    assert not device.has_native_bf16(torch.device("cuda:0"))


@pytest.mark.parametrize("amx", [False, True])
@pytest.mark.parametrize("avx512", [False, True])
def test_a_cpu_has_bf16_by_either_set_of_instructions(monkeypatch, avx512, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert device.has_native_bf16(torch.device("cpu")) is (avx512 or amx)


def test_a_cpu_that_torch_cannot_be_asked_about_has_no_bf16(monkeypatch):
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name in names:
        monkeypatch.delattr(torch.cpu, name)
    assert device.has_native_bf16(torch.device("cpu")) is False
    for name in names:
        with monkeypatch.context() as other:
            other.setattr(torch.cpu, name, lambda: True, raising=False)
            assert device.has_native_bf16(torch.device("cpu"))


FAULTS = """
import resource, torch
from sagan.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(1 << 24)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

# The first tensors after it still have to grow the heap.
print(faults(), keep_freed_memory(), [faults() for _ in range(4)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_handed_out_again_without_page_faults():
    printed = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    ).stdout
    before, kept, after = printed.split()
    assert kept == "True"
    assert int(after) < int(before) / 10


@pytest.mark.parametrize(("most", "kept"), [(1 << 30, True), (1 << 25, True), (0, False)])
def test_both_thresholds_of_malloc_are_raised_as_far_as_it_takes_them(monkeypatch, most, kept):
    """Whether one of them alone shows in page faults depends on what else lies in memory."""
    raised = {}

    def mallopt(threshold: int, size: int) -> int:
        if threshold == -3 and size > most:
            return 0
        raised[threshold] = size
        return 1

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert device.keep_freed_memory() is kept
    assert raised == ({-3: most, -1: 2**31 - 1} if kept else {})


def test_without_glibc_memory_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert device.keep_freed_memory() is False


@pytest.mark.parametrize("error", [OSError, TypeError])  # the latter on Windows
def test_where_the_program_itself_is_no_library_memory_is_left_as_it_is(monkeypatch, error):
    def refuse(name: None) -> None:
        raise error("expected str, bytes or os.PathLike object, not NoneType")

    monkeypatch.setattr(device.ctypes, "CDLL", refuse)
    assert device.keep_freed_memory() is False
