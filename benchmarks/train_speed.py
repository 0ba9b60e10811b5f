"""Training images a second: the tutorial's loop against ours, taking turns, each in a process of its own.

    python -m benchmarks.train_speed
    python -m benchmarks.train_speed --profile
    python -m benchmarks.train_speed --batch-sizes 32 64 128 256 512 1024 --device cuda --profile

Both train the same networks (64 pixels, width 64, attention at 16x16 and 32x32 in G, 8x8 and 4x4 in D) with
the hinge loss, one update of each network a step. Ours is `Learner.train_step` as `train.py` runs it, which
includes choosing and flipping images, bf16 where the hardware has it, and the averaged generator; on a GPU a
step is replayed as a CUDA graph, and "launched" is the same without (--no-capture). The tutorial's loop has
its own batch of 64, ready-made, and the precision that PyTorch has by default. Figures hold only on a machine
that does nothing else.

Operations are counted by PyTorch (convolutions, matrix products, attention; 2 for a multiply and add), and
set against the rate at which the same device multiplies two large matrices in the same run, in bf16 where it
has that, else in float32.
"""

import argparse
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import elapsed, random_images
from benchmarks.tutorial_loop import TutorialLoop
from sagan.commands import count, run_program
from sagan.data import ImageSet, to_batch
from sagan.device import DeviceError, has_native_bf16, pick_device
from sagan.learner import BEFORE_CAPTURE, Learner
from sagan.networks import SaganConfig
from sagan.recipe import Recipe

WARM_UP = BEFORE_CAPTURE + 2  # steps
TUTORIAL_BATCH = 64

Result = TypeVar("Result")


def tutorial_step(images: np.ndarray, batch_size: int, device: str) -> Callable[[], None]:
    """A function that runs one step of the tutorial's loop."""
    loop = TutorialLoop(device)
    real = to_batch(images[:batch_size]).to(device).contiguous()
    return lambda: loop.train_step(real)


def our_step(
    images: np.ndarray, batch_size: int, device: str, capture: bool | None = None
) -> Callable[[], None]:
    """A function that runs one step of ours."""
    config = SaganConfig(d_attention=(8, 4))  # the tutorial's
    recipe = Recipe(batch_size=batch_size)
    return Learner(config, recipe, ImageSet(images), device, capture=capture).train_step


CONTESTANTS = {
    "tutorial": tutorial_step,
    "launched": partial(our_step, capture=False),
    "ours": our_step,
}


class Contestant:
    """One of the loops in a process of its own, where it keeps its memory as it would alone."""

    def __init__(self, name: str, batch_size: int, device: str) -> None:
        self.name, self.batch_size, self.device = name, batch_size, device
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self.ready: Future = self.pool.submit(_wake, device)  # while others do

    def begin(self) -> None:
        """Set the loop up, alone: how fast each convolution is decides which one a GPU takes."""
        self.run(_begin, self.name, self.batch_size, self.device)

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        return self.pool.submit(function, *arguments).result()

    def images_per_second(self, steps: int) -> float:
        return steps * self.batch_size / self.run(seconds, steps)


def _wake(device: str) -> None:
    torch.zeros(1, device=device)


_step: Callable[[], None]  # in the process of a contestant, one step of its loop
_device: str


def _begin(name: str, batch_size: int, device: str) -> None:
    global _step, _device
    _step, _device = CONTESTANTS[name](random_images(), batch_size, device), device
    seconds(WARM_UP)


def seconds(steps: int) -> float:
    """How long this many steps take."""
    return elapsed(_step, steps, _device)


def peak_memory() -> float:
    """Peak MiB of this process so far: allocated on the GPU, or resident where there is none."""
    if _device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(_device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def operations() -> int:
    """Floating-point operations of one step."""
    with FlopCounterMode(display=False) as counter:
        _step()
    return counter.get_total_flops()


def precision(device: str) -> torch.dtype:
    """What the heavy products of training are computed in: bf16 where the hardware has it."""
    return torch.bfloat16 if has_native_bf16(torch.device(device)) else torch.float32


def matrix_rate(device: str) -> float:
    """Operations a second of a large matrix product in the precision of training, the best of six."""
    side = 8192 if device.startswith("cuda") else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=precision(device))
    return 2 * side**3 / min(elapsed(lambda: a @ b, 1, device) for _ in range(6))


def print_profile() -> None:
    """Where the time of three steps goes."""
    with profile() as seen:
        for _ in range(3):
            _step()
    on_gpu = any(event.self_device_time_total for event in seen.key_averages())
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=60))


def compare(
    tutorial: Contestant,
    ours: list[Contestant],
    rounds: int,
    steps: int,
    rate: float,
    profiled: bool,
) -> None:
    """Print images a second of the tutorial's loop and of these, of one batch size, and how they compare."""
    for contestant in ours:
        contestant.begin()
    speed = {contestant: [] for contestant in (tutorial, *ours)}
    for turn in range(rounds):
        for contestant in list(speed) if turn % 2 else reversed(speed):
            speed[contestant].append(contestant.images_per_second(steps))

    print(f"\nbatch {ours[0].batch_size}: {rounds} rounds of {steps} steps in turn")
    # A captured step does not tell what it computes.
    needed = {one: one.run(operations) / one.batch_size for one in (tutorial, ours[0])}
    for one, values in speed.items():
        figure = f"{statistics.median(values):8.1f} images/s ({min(values):.1f} to {max(values):.1f})"
        work = needed.get(one, needed[ours[0]])
        share = statistics.median(values) * work / rate
        print(
            f"  {one.name:9}{figure}, peak memory {one.run(peak_memory):.0f} MiB, "
            f"{work / 1e9:.2f} GFLOP an image, {share:.0%} of the matrix rate"
        )
    for one in ours:
        ratios = [mine / theirs for mine, theirs in zip(speed[one], speed[tutorial], strict=True)]
        times = f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {one.name} against the tutorial at batch {tutorial.batch_size}: {times}", flush=True)
    if profiled:
        ours[-1].run(print_profile)
    for one in ours:
        one.pool.shutdown()


def describe(device: str) -> str:
    """The hardware and software that the figures belong to."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
        name += f", {torch.backends.cpu.get_cpu_capability()}"
    bf16 = "native bf16" if has_native_bf16(torch.device(device)) else "no native bf16"
    return f"{name}, {bf16}; PyTorch {torch.__version__}, Python {platform.python_version()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, compare at each batch size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = "of ours, each compared to the tutorial's at 64 (default 64)"
    parser.add_argument("--batch-sizes", type=count, nargs="+", default=[64], metavar="N", help=sizes)
    parser.add_argument("--rounds", type=count, default=5, help="turns that each loop takes (default 5)")
    parser.add_argument("--steps", type=count, default=10, help="steps in a turn (default 10)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--profile", action="store_true", help="also show where the time of ours goes")
    options = parser.parse_args(arguments)
    try:
        device = str(pick_device(options.device))
    except DeviceError as error:
        parser.error(str(error))
    rate = matrix_rate(device)
    print(f"{describe(device)}; {precision(device)} matrix products at {rate / 1e12:.2f} TFLOP/s", flush=True)
    names = ["launched"] * device.startswith("cuda") + ["ours"]
    tutorial = Contestant("tutorial", TUTORIAL_BATCH, device)
    groups = [[Contestant(name, size, device) for name in names] for size in options.batch_sizes]
    for contestant in (tutorial, *chain.from_iterable(groups)):
        contestant.ready.result()
    tutorial.begin()
    for group in groups:
        compare(tutorial, group, options.rounds, options.steps, rate, options.profile)
    tutorial.pool.shutdown()


if __name__ == "__main__":
    run_program(main, prints_result=True)
