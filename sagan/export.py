"""From a network in training to one that can be shipped: exact weights, batch norm measured anew.

    python -m sagan.export --run runs/mine --out checkpoints/mine

copies what sampling needs out of a run, and leaves behind what only resuming needs.
"""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

import torch
from torch import nn

from sagan import checkpoint
from sagan.classes import Classes
from sagan.commands import run_program
from sagan.layers import estimate_anew, exact_weight, normalised_modules
from sagan.networks import Generator, Network

CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 64


def plain(network: Network) -> Network:
    """A copy in eval mode without parametrizations: every normalised weight divided by its exact sigma.

    The live power iteration lags behind averaged weights, so its u and v are not used.
    """
    state = {name: value for name, value in network.state_dict().items() if ".parametrizations." not in name}
    for name, module in normalised_modules(network):
        state[f"{name}.weight"] = exact_weight(module)
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[]):  # its random start is overwritten, and nobody else's numbers move
        twin = type(network)(network.config, spectral=False)
    twin.to(device, memory_format=torch.channels_last).load_state_dict(state)
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def revive(network: Network, source: Network, sigmas: dict[str, float]) -> None:
    """Give a network in training the weights of a `plain` one, multiplied by sigmas, by layer.

    Layers without a sigma keep the largest singular value 1. It changes nothing that the network computes,
    only how far an update of Adam turns a weight. Residual blocks that only the network has stay as they are.
    """
    state = network.state_dict() | source.state_dict()
    for name, _ in normalised_modules(network):
        if f"{name}.weight" in state:
            weight = state.pop(f"{name}.weight") * sigmas.get(name, 1.0)
            state[f"{name}.parametrizations.weight.original"] = weight
    network.load_state_dict(state)
    estimate_anew(network)


@torch.no_grad()
def measure_batch_norm(generator: Generator, classes: Classes) -> None:
    """Replace the batch-norm statistics in place by averages over the same 512 latents each time.

    Averaged weights never saw the statistics that were collected in training. All classes share them, so
    these must be of images in which each class is as frequent as in training.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    config, device = generator.config, next(generator.parameters()).device
    noise = torch.Generator("cpu").manual_seed(0)
    labels = [None] * (CALIBRATION_IMAGES // CALIBRATION_BATCH)
    if (drawn := classes.in_proportion(CALIBRATION_IMAGES)) is not None:
        labels = torch.from_numpy(drawn).to(device).split(CALIBRATION_BATCH)
    generator.train()
    for of_batch in labels:
        z = torch.randn(CALIBRATION_BATCH, config.z_dim, generator=noise).to(device)
        generator(z, of_batch)
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def shippable(generator: Generator, classes: Classes) -> Generator:
    """The generator as it is shipped and sampled: `plain`, with batch norm measured anew."""
    twin = plain(generator)
    measure_batch_norm(twin, classes)
    return twin


def ship(run: Path, out: Path) -> None:
    """Copy the newest checkpoint of a run to the folder `out`, in the place of a shipped one that is there.

    Whatever else lies in `out` stays, and so does each model card, as model_card.previous.md, then
    model_card.previous-2.md and so on. Raises CheckpointError where there is no checkpoint, where the
    run saves another one meanwhile, or where `out` holds anything but a shipped one; OSError where the disk
    refuses, and what was there stays.
    """
    source = checkpoint.find(run)
    made = checkpoint.generator_hash(source)
    loads = checkpoint.load_generator, checkpoint.load_discriminator
    for read in (*loads, checkpoint.read_history, checkpoint.read_card):
        read(source)  # nothing broken is shipped, and nothing that a link leads to
    checkpoint.recover(out)
    of_run = (checkpoint.STATE, checkpoint.RAW_GENERATOR)
    shipped = (out / checkpoint.CONFIG).is_file() and not any((out / name).exists() for name in of_run)
    if out.exists() and not shipped:
        raise checkpoint.CheckpointError(
            f"'{out}' exists and is not a shipped checkpoint: name another --out."
        )
    meanwhile = f"'{run}' was saved meanwhile: export it again."
    with checkpoint.replacing_folder(out, checkpoint.SHIPPED, keeps_card=True) as new:
        try:
            for name in checkpoint.SHIPPED:
                shutil.copyfile(source / name, new / name)
            for name in checkpoint.COMPANIONS:
                if companion := checkpoint.companion(source, name):
                    shutil.copyfile(companion, new / name)
        except FileNotFoundError as error:
            if not _is_another(source, made):
                raise checkpoint.CheckpointError(f"'{error.filename}' is missing.") from error
            raise checkpoint.CheckpointError(meanwhile) from error
        if _is_another(source, made) or _is_another(new, made):
            raise checkpoint.CheckpointError(meanwhile)


def _is_another(folder: Path, made: str) -> bool:
    """Whether the generator there is not the one with this SHA-256, or not there for the moment."""
    try:
        return checkpoint.generator_hash(folder) != made
    except checkpoint.CheckpointError:
        return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, or 130 after Ctrl-C. What cannot be done exits with status 2.

    The folder is replaced as a whole, or not at all.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m sagan.export",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of train.py")
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoint folder; a model that it holds is replaced"
    )
    options = parser.parse_args(arguments)
    try:
        ship(options.run, options.out)
    except checkpoint.CheckpointError as error:
        parser.error(str(error))
    except OSError as error:
        why = error.strerror or error
        parser.error(f"'{options.run}' could not be exported to '{options.out}': {why}.")
    except KeyboardInterrupt:
        print(f"Stopped; '{options.out}' was not written.", file=sys.stderr)
        return 130
    print(f"'{options.out}' can be opened with: python app.py --checkpoint {shlex.quote(str(options.out))}")
    return 0


if __name__ == "__main__":
    run_program(main)
