"""Adversarial losses as functions of discriminator scores.

The hinge loss is Lim and Ye 2017 (arXiv:1705.02894), as in SAGAN; the Wasserstein loss with gradient penalty
is Gulrajani et al. 2017 (arXiv:1704.00028); consistency is Zhang et al. 2020 (arXiv:1910.12027), and of fakes
as well Zhao et al. 2020 (arXiv:2002.04724). Scores are (B,) and losses are scalars.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = ("penalty", "inconsistency")  # columns of the history: what the loss of D contains besides


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake)))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """mean(D(fake)) - mean(D(real)); the penalty is added to it by the caller."""
    return fake.mean() - real.mean()


def adversarial_g(fake: Tensor) -> Tensor:
    """-mean(D(fake)): the generator's loss, the same for both."""
    return -fake.mean()


def inconsistency(scores: Tensor, moved: Tensor) -> Tensor:
    """mean((D(x) - D(T(x)))^2): how much D minds a change that leaves an image what it is."""
    return (scores - moved).square().mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """mean((|grad of D at x| - 1)^2) with x on the lines between real and fake images.

    critic maps images (B, 3, S, S) to scores (B,) and must allow a double backward; mix (B,) in [0, 1] is the
    share of the real image in each x.
    """
    share = mix.view(-1, 1, 1, 1)
    x = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)  # (B, 3, S, S)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
