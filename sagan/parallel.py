"""One run in several processes, one per device, as `torchrun` starts them."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sagan.device import DeviceError

Made = TypeVar("Made")

PATIENCE = timedelta(hours=2)  # the first process decodes the images while the others wait


@dataclass(frozen=True)
class Processes:
    """The processes that train together: which of them this one is, and how they agree.

    Each computes an equal share of every batch; DistributedDataParallel averages the gradients, so that all
    of them hold the same weights.
    """

    rank: int = 0
    count: int = 1
    gloo: "dist.ProcessGroup | None" = None  # talks on the CPU, so that agreeing never waits for a GPU

    @property
    def leads(self) -> bool:
        """Whether this is the one process that logs, draws and saves."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch (N, ...): (N / count, ...)."""
        return batch.chunk(self.count)[self.rank]

    def together(self, network: nn.Module) -> nn.Module:
        """`network` with gradients averaged over all processes in each backward pass."""
        if self.count == 1:
            return network
        # Batch norm stays each process's own; the power iterations agree because the weights do.
        newer, older = "forward_sync_buffers", "broadcast_buffers"  # PyTorch 2.14 renamed the option
        name = newer if newer in inspect.signature(DistributedDataParallel).parameters else older
        return DistributedDataParallel(network, **{name: False})

    def most(self, *values: float) -> list[float]:
        """The largest that any process gave, of each value."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def mean(self, *values: float) -> list[float]:
        """The mean over all processes, of each value."""
        return [total / self.count for total in self._reduced(values, dist.ReduceOp.SUM)]

    def _reduced(self, values: tuple[float, ...], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.count == 1:
            return list(values)
        joined = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(joined, how, self.gloo)
        return joined.tolist()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader runs the block while the others wait; then they run it."""
        if not self.leads:
            dist.barrier(self.gloo)
        try:
            yield
        finally:
            if self.leads and self.count > 1:
                dist.barrier(self.gloo)

    def by_leader(self, make: Callable[[], Made], refused: Exception) -> Made | None:
        """What the leader makes, and None for the others, which raise `refused` where the leader fails."""
        made = failure = None
        if self.leads:
            try:
                made = make()
            except Exception as error:
                failure = error
        if any(self.most(failure is not None)):
            raise failure or refused
        return made


ALONE = Processes()


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@contextmanager
def processes(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the others if `torchrun` started this process; yields them and the device of this one.

    device "auto" and "cuda" become this process's own GPU. Raises DeviceError where it has none.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE, device
        return
    gpus, number = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
    if device == "cuda" or (device == "auto" and gpus):
        if number >= gpus:
            raise DeviceError(
                f"There is no GPU for process {number + 1} on this machine, which has {gpus}: start at most "
                "one process for each, or train with --device cpu."
            )
        device = f"cuda:{number}"
        torch.cuda.set_device(device)
    elif device not in ("auto", "cpu"):
        raise DeviceError(f"Several processes cannot share the device '{device}': use cpu, cuda or auto.")
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    gloo = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), gloo), device
    finally:
        dist.destroy_process_group()
