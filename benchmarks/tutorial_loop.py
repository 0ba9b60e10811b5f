"""The training step of the public PyTorch SAGAN tutorial, for comparison only.

Written from its description, with the faults that cost time or correctness kept on purpose, so that there is
something to compare with: float32 throughout, spectral norm as a power iteration in Python around the inner
layers alone, two passes of the discriminator, fakes that are not detached, and weight gradients of the
discriminator in the generator's step. Nothing in sagan/ uses it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Z_DIM = 128


class PowerIteration(nn.Module):
    """Wraps a layer: one power iteration a forward, in eval as well, on u and v reached through `.data`.

    Rows of the matrix are the first axis of the weight, which is the wrong one for transposed convolutions.
    """

    u: nn.Parameter
    v: nn.Parameter

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.layer = layer
        weight = layer.weight
        del layer.weight
        self.weight = weight
        matrix = weight.detach().flatten(1)
        for name, size in (("u", matrix.shape[0]), ("v", matrix.shape[1])):
            vector = F.normalize(torch.randn(size), dim=0)
            self.register_parameter(name, nn.Parameter(vector, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        self.v.data = F.normalize(matrix.data.t().mv(self.u.data), dim=0)
        self.u.data = F.normalize(matrix.data.mv(self.v.data), dim=0)
        sigma = self.u.dot(matrix.mv(self.v))
        self.layer.weight = self.weight / sigma.expand_as(self.weight)
        return self.layer(x)


class Attention(nn.Module):
    """Explicit softmax attention, its 1x1 convolutions without spectral norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).flatten(2) for project in (self.query, self.key, self.value))  # (B, d, H*W)
        attention = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)  # (B, H*W, H*W)
        return self.gamma * torch.bmm(v, attention.transpose(1, 2)).view_as(x) + x


def _up(inputs: int, outputs: int, **options: int) -> tuple[nn.Module, ...]:
    conv = PowerIteration(nn.ConvTranspose2d(inputs, outputs, 4, **options))
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def _down(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return PowerIteration(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)


def build_generator() -> nn.Sequential:
    """z (B, 128, 1, 1) -> images (B, 3, 64, 64)."""
    double = {"stride": 2, "padding": 1}
    return nn.Sequential(
        *_up(Z_DIM, 512),  # 4x4
        *_up(512, 256, **double),  # 8x8
        *_up(256, 128, **double),  # 16x16
        Attention(128),
        *_up(128, 64, **double),  # 32x32
        Attention(64),
        nn.ConvTranspose2d(64, 3, 4, **double),  # 64x64
        nn.Tanh(),
    )


def build_discriminator() -> nn.Sequential:
    """Images (B, 3, 64, 64) -> scores (B, 1, 1, 1)."""
    return nn.Sequential(
        *_down(3, 64),  # 32x32
        *_down(64, 128),  # 16x16
        *_down(128, 256),  # 8x8
        Attention(256),
        *_down(256, 512),  # 4x4
        Attention(512),
        nn.Conv2d(512, 1, 4),
    )


class TutorialLoop:
    """Both networks, their optimisers, and one step of training with the hinge loss."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.generator = build_generator().to(device)
        self.discriminator = build_discriminator().to(device)
        self.g_optimizer = self._adam(self.generator, 1e-4)
        self.d_optimizer = self._adam(self.discriminator, 4e-4)

    @staticmethod
    def _adam(network: nn.Module, lr: float) -> torch.optim.Adam:
        return torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr, (0.0, 0.9))

    def _fake(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, Z_DIM, 1, 1, device=self.device))

    def _zero_grad(self) -> None:
        self.d_optimizer.zero_grad()
        self.g_optimizer.zero_grad()

    def train_step(self, real: Tensor) -> None:
        """One update of the discriminator and one of the generator; real is float32 (B, 3, 64, 64)."""
        d_loss_real = F.relu(1 - self.discriminator(real)).mean()
        d_loss_fake = F.relu(1 + self.discriminator(self._fake(len(real)))).mean()  # not detached
        self._zero_grad()
        (d_loss_real + d_loss_fake).backward()
        self.d_optimizer.step()

        g_loss = -self.discriminator(self._fake(len(real))).mean()
        self._zero_grad()
        g_loss.backward()  # through the weights of the discriminator as well
        self.g_optimizer.step()
