"""A function of tensors as a CUDA graph: recorded once, replayed with other values in the same memory."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Captured(Generic[Result]):
    """`function`, with all of its kernels launched at once.

    What it reads and writes stays where it is: the weights and moments that it updates in place, the tensors
    of its result, which the next call overwrites. Shapes are those of the first call. The function must have
    run before, in a stream of its own, and may not wait for the GPU.
    """

    def __init__(
        self,
        function: Callable[[list], Result],
        inputs: Sequence[tuple[Tensor | None, ...]],
    ) -> None:
        """inputs: named tuples of tensors. Recording computes nothing yet. Raises RuntimeError."""
        self._inputs = [
            type(group)(*(None if tensor is None else tensor.clone() for tensor in group)) for group in inputs
        ]
        self._device = self._inputs[0][0].device
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph):
            self._result = function(self._inputs)

    def __call__(self, inputs: Sequence[tuple[Tensor | None, ...]]) -> Result:
        for kept, new in zip(self._inputs, inputs, strict=True):
            for to, source in zip(kept, new, strict=True):
                if to is not None:
                    to.copy_(source, non_blocking=True)
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self._result
