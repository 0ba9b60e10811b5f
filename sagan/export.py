"""From a network in training to one that can be shipped: exact weights, batch norm measured anew."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from sagan.layers import exact_weight
from sagan.networks import Discriminator, Generator

CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 64


def plain(network: Generator | Discriminator) -> Generator | Discriminator:
    """A copy in eval mode without parametrizations: every normalised weight divided by its exact sigma (SVD).

    The live power iteration lags behind averaged weights, so its u and v are not used.
    """
    state = {name: value for name, value in network.state_dict().items() if ".parametrizations." not in name}
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            state[f"{name}.weight"] = exact_weight(module)
    device = next(network.parameters()).device
    twin = type(network)(network.config, spectral=False).to(device, memory_format=torch.channels_last)
    twin.load_state_dict(state)
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def measure_batch_norm(generator: Generator, seed: int = 0) -> None:
    """Replace the batch-norm statistics in place by averages over the same 512 latents each time.

    Averaged weights never saw the statistics that were collected in training; with classes, labels cycle.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    config, device = generator.config, next(generator.parameters()).device
    noise = torch.Generator("cpu").manual_seed(seed)
    generator.train()
    for start in range(0, CALIBRATION_IMAGES, CALIBRATION_BATCH):
        z = torch.randn(CALIBRATION_BATCH, config.z_dim, generator=noise).to(device)
        labels = None
        if config.num_classes:
            labels = torch.arange(start, start + CALIBRATION_BATCH, device=device) % config.num_classes
        generator(z, labels)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def shippable(generator: Generator) -> Generator:
    """The generator as it is shipped and sampled: `plain`, with batch norm measured anew."""
    twin = plain(generator)
    measure_batch_norm(twin)
    return twin
