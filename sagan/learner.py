"""Two networks that learn from each other, one step at a time; it knows nothing of files."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sagan import losses
from sagan.augment import augment, draw_changes, move
from sagan.captured import Captured
from sagan.data import ImageSet, batch_flips, batch_indices, to_batch
from sagan.device import (
    aside,
    has_native_bf16,
    keep_freed_memory,
    make_deterministic,
    pick_device,
    resident,
)
from sagan.layers import normalised_once
from sagan.networks import Discriminator, Generator, Network, SaganConfig, layer_name
from sagan.parallel import ALONE, Processes
from sagan.recipe import Recipe

# Streams of random numbers, each a function of (seed, update) alone.
DISCRIMINATOR_NOISE, GENERATOR_NOISE, PENALTY, MOVES, D_CHANGES, G_CHANGES = range(6)

MOVED_SHARE = 1 / 32  # images move by up to this share of their side: 2 pixels of 64
SMALL_SIDE = 8  # fused attention is made for long rows: on a GPU, 16 of them took a tenth of a step
EMA_RAMP = 0.05  # the half-life of the average is never more than this share of the images seen
ALPHAS_FASTER = 10  # times the rate of the rest: one number decides how much of a residual block is used
BEFORE_CAPTURE = 3  # steps in which a GPU chooses its algorithms

Value = TypeVar("Value")


class TrainingError(ValueError):
    """A run that cannot start or go on, said in one sentence."""


@dataclass(frozen=True)
class Inherited:
    """What another run had trained of the weights that this one began with."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    source: str = ""  # what the model card calls it; "": this run began with new weights


class Draw(NamedTuple):
    """All that one update draws, of one process: a function of (seed, update) alone."""

    noise: Tensor  # (B, z_dim)
    labels: Tensor | None = None  # (B,)
    changes: Tensor | None = None  # (B, 2, 9), of real and of generated images; of G's fakes (B, 1, 9)
    images: Tensor | None = None  # uint8 (B, S, S, 3); only D learns from them, and so all below
    flips: Tensor | None = None  # (B,) of bool
    moves: Tensor | None = None  # (B, 3), see `move`; only for consistency
    mix: Tensor | None = None  # (B,) in [0, 1]; only for the gradient penalty


class Learner:
    """A generator and a discriminator on one image set, and the step in which each learns from the other.

    Data order, flips and noise depend only on (seed, step). Building one changes this process: PyTorch's
    global seed becomes the recipe's, and on a CPU malloc keeps freed memory. A deterministic recipe lets
    PyTorch use deterministic algorithms only; with another, on a GPU, cuDNN looks for the fastest ones.

    config       of the networks, with the classes of the data
    averaged     the generator averaged over training, beside `generator` and `discriminator`
    step         generator updates so far
    seconds      spent training, pictures and saves of the run included, measuring not
    inherited    what another run had trained of these weights
    rates        with which the last step learned, by their names in the history
    """

    def __init__(
        self,
        config: SaganConfig,
        recipe: Recipe,
        data: ImageSet,
        device: str = "auto",
        processes: Processes = ALONE,
        capture: bool | None = None,
    ) -> None:
        """capture: whether a step is recorded once as a CUDA graph and then replayed, which spares the
        processor its part; it computes the same. None: on a GPU, where one process trains.

        The classes are those of the data, whatever the config says. Raises TrainingError for what does not go
        together.
        """
        if recipe.batch_size % processes.count:
            raise TrainingError(
                f"A batch of {recipe.batch_size} images cannot be shared equally by {processes.count} "
                "processes: choose another --batch-size."
            )
        if data.images.shape[1] != config.image_size:
            raise TrainingError(
                f"The images are {data.images.shape[1]} pixels wide, but the networks are for "
                f"{config.image_size}."
            )
        self.config = dataclasses.replace(
            config,
            num_classes=len(data.class_names),
            d_spectral_norm=config.d_spectral_norm and recipe.loss != "wgan-gp",
        )
        self.recipe, self.data = recipe, data
        self.processes = processes
        self.device = pick_device(device)
        on_gpu = self.device.type == "cuda"
        if capture and (not on_gpu or processes.count > 1):
            raise TrainingError("A step can be captured only on a GPU, and only where one process trains.")
        self._captures = on_gpu and processes.count == 1 if capture is None else capture
        self._captured: Captured | None = None
        if on_gpu:  # shapes stay the same, so looking for the fastest convolutions pays
            torch.backends.cudnn.benchmark = not recipe.deterministic
        else:
            keep_freed_memory()
        if recipe.sync_batch_norm and self.device.type != "cuda":
            raise TrainingError(f"Batch statistics can be shared between GPUs, but not on '{self.device}'.")
        self.bf16 = recipe.precision == "bf16" or (
            recipe.precision == "auto" and has_native_bf16(self.device)
        )
        if recipe.deterministic:
            make_deterministic()

        self._images = resident(data.images, self.device)
        torch.manual_seed(recipe.seed)
        self.generator = self._place(Generator(self.config))
        if recipe.sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.generator)  # in place
        self.discriminator = self._place(Discriminator(self.config))
        self.averaged = self._place(Generator(self.config)).requires_grad_(False)
        self.averaged.load_state_dict(self.generator.state_dict())
        # The same networks, for passes with a gradient that all processes average.
        self._g, self._d = (processes.together(net) for net in (self.generator, self.discriminator))
        self.g_optimizer = self._adam(self.generator, recipe.g_lr)
        self.d_optimizer = self._adam(self.discriminator, recipe.d_lr)
        self.step = 0  # generator updates so far
        self.inherited = Inherited()
        self.seconds = 0.0  # over all sessions of the run
        self._warm_up = BEFORE_CAPTURE  # steps left
        self.rates: dict[str, float] = {}  # of this step
        self._sums: dict[str, tuple[Tensor, int]] = {}  # and how many were added

    def _place(self, network: Network) -> Network:
        network.to(self.device, memory_format=torch.channels_last)
        # The explicit softmax is faster on a CPU, and has the double backward that the penalty needs.
        fused = self.device.type == "cuda" and self.recipe.loss == "hinge"
        for side in self.config.sides:
            if (name := layer_name(side)) in network.attention:
                network.attention[name].fused = fused and side > SMALL_SIDE
        return network.train()

    def _adam(self, network: nn.Module, lr: float) -> torch.optim.Adam:
        groups: dict[int, list[nn.Parameter]] = {}  # by how much faster they learn
        for name, parameter in network.named_parameters():
            groups.setdefault(ALPHAS_FASTER if name.endswith(".alpha") else 1, []).append(parameter)
        described = [{"params": of, "faster": faster, "lr": lr} for faster, of in groups.items()]
        if self._captures:  # a graph reads each rate from where it lies
            for group in described:
                group["lr"] = torch.tensor(lr, device=self.device)
        return torch.optim.Adam(described, betas=self.recipe.betas, fused=True, capturable=self._captures)

    # The step

    def train_step(self) -> None:
        """d_steps discriminator updates, one generator update, one update of the average."""
        self._set_rates()
        draws = self._draws()
        if not self._captures:
            figures = self._learn(draws)
        elif self._warm_up:
            self._warm_up -= 1
            with aside(self.device):
                figures = self._learn(draws)
        else:
            if self._captured is None:
                self._captured = self._capture(draws)
            figures = self._captured(draws)
        for values in figures:
            self._note(values)
        self.step += 1
        self._average()

    def _draws(self) -> list[Draw]:
        """What the updates of this step draw: those of D, and at the end that of G."""
        n = self.recipe.d_steps
        draws = [self._draw(self.step * n + i) for i in range(n)]
        noise, changes = self._noise(GENERATOR_NOISE, self.step), self._changes(1, G_CHANGES, self.step)
        return [*draws, Draw(noise, draws[-1].labels, changes)]

    def _learn(self, draws: list[Draw]) -> list[dict[str, Tensor]]:
        """All updates of a step; the losses and scores of each. It waits for nothing and draws nothing."""
        figures = []
        *of_d, of_g = draws
        with normalised_once(self.generator):  # its weights stay what they are until its update
            for draw in of_d:
                with torch.no_grad():
                    fake = self._fake(self.generator, draw)
                figures.append(self._d_step(draw, fake))
            figures.append(self._g_step(self._fake(self._g, of_g), of_g))
        return [{name: value.detach() for name, value in row.items()} for row in figures]

    def _fake(self, generator: nn.Module, draw: Draw) -> Tensor:
        """Generated images (B, 3, S, S)."""
        with self._autocast():
            return generator(draw.noise, draw.labels).float()

    def _d_step(self, draw: Draw, fake: Tensor) -> dict[str, Tensor]:
        """One update of D from real images and as many generated ones (B, 3, S, S); returns its figures.

        Both go through D in one batch, for consistency also as `move` moves them: scores (2B,) or (4B,).
        """
        real, labels = to_batch(draw.images, draw.flips), draw.labels
        if draw.changes is not None:
            real, fake = map(augment, (real, fake), draw.changes.unbind(1))
        images = [real, fake]
        if draw.moves is not None:
            images += [move(x, draw.moves) for x in images]
        with normalised_once(self.discriminator), self._autocast():
            repeated = None if labels is None else labels.repeat(len(images))
            scores = self._d(torch.cat(images), repeated).float()
        real_scores, fake_scores, *moved = scores.split(len(real))
        figures = {}
        if self.recipe.loss == "hinge":
            loss = losses.hinge_d(real_scores, fake_scores)
        else:
            penalty = losses.gradient_penalty(lambda x: self.discriminator(x, labels), real, fake, draw.mix)
            loss = losses.wasserstein_d(real_scores, fake_scores) + self.recipe.lambda_gp * penalty
            figures["penalty"] = penalty
        if moved:
            inconsistency = sum(map(losses.inconsistency, (real_scores, fake_scores), moved))
            loss = loss + self.recipe.consistency * inconsistency
            figures["inconsistency"] = inconsistency
        self.d_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.d_optimizer.step()
        return figures | {"d_loss": loss, "d_real": real_scores.mean(), "d_fake": fake_scores.mean()}

    def _g_step(self, fake: Tensor, draw: Draw) -> dict[str, Tensor]:
        """One update of G from what D, which rests meanwhile, says of generated images (B, 3, S, S)."""
        self.discriminator.requires_grad_(False)
        if draw.changes is not None:
            fake = augment(fake, draw.changes[:, 0])
        with normalised_once(self.discriminator), self._autocast():
            loss = losses.adversarial_g(self.discriminator(fake, draw.labels).float())
        self.g_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.g_optimizer.step()
        self.discriminator.requires_grad_(True)
        return {"g_loss": loss}

    def _capture(self, draws: list[Draw]) -> Captured:
        try:
            return Captured(self._learn, draws)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0].removesuffix(".")
            raise TrainingError(f"A step cannot be captured here ({reason}): add --no-capture.") from error

    @torch.no_grad()
    def _average(self) -> None:
        half_life = 1000 * (self.recipe.ema_kimg or self.recipe.batch_size * 10 / 32)
        half_life = min(half_life, EMA_RAMP * self.images)
        averaged, live = list(self.averaged.parameters()), list(self.generator.parameters())
        decay = 0.5 ** (self.recipe.images_per_step / half_life)
        get_ema_multi_avg_fn(decay)(averaged, live, None)

    # What is learned

    @property
    def networks(self) -> dict[str, Generator | Discriminator]:
        return {"generator": self.generator, "discriminator": self.discriminator, "averaged": self.averaged}

    @property
    def optimizers(self) -> dict[str, torch.optim.Adam]:
        return {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}

    def state_dict(self) -> dict[str, Tensor]:
        """All that training changes, as in "generator/to_image.bias" and "d_optimizer/0/exp_avg"."""
        tensors = {}
        for name, network in self.networks.items():
            tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{key}": value for key, value in values.items()}
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises RuntimeError, ValueError or IndexError where that was of other networks; some may have changed.
        """
        for name, network in self.networks.items():
            network.load_state_dict(under(tensors, name))
        for name, optimizer in self.optimizers.items():
            _load_moments(optimizer, under(tensors, name))
        self._captured = None  # a recorded step reads the moments and rates that were there before

    def take_means(self) -> dict[str, float]:
        """The mean of each loss and score since the last call, over all processes, for which it waits."""
        means = [float(total) / count for total, count in self._sums.values()]
        means = dict(zip(self._sums, self.processes.mean(*means), strict=True))
        self._sums.clear()
        return means

    # What a step is made of

    @property
    def images(self) -> int:
        """Real images shown so far, those before this run included."""
        steps = self.step - self.inherited.step
        return self.inherited.images + steps * self.recipe.images_per_step

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        if self.recipe.steps is not None:
            return min(1.0, (self.step - self.inherited.step) / self.recipe.steps)
        return min(1.0, (self.seconds - self.inherited.seconds) / (60 * self.recipe.minutes))

    def _set_rates(self) -> None:
        left = 1 - self.progress
        factor = min(1.0, left / self.recipe.lr_decay) if self.recipe.lr_decay else 1.0
        self.rates = {"g_lr": self.recipe.g_lr * factor, "d_lr": self.recipe.d_lr * factor}
        for optimizer, rate in zip((self.g_optimizer, self.d_optimizer), self.rates.values(), strict=True):
            for group in optimizer.param_groups:
                own = rate * group["faster"]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(own)
                else:
                    group["lr"] = own

    def _draw(self, update: int) -> Draw:
        """What this update of D draws."""
        recipe, share = self.recipe, self.processes.share
        size, seed = recipe.batch_size, recipe.seed
        indices = share(torch.from_numpy(batch_indices(len(self.data), size, update, seed))).numpy()
        labels = flips = moves = mix = None
        if self.data.labels is not None:
            labels = self._sent(self.data.labels[indices])
        if isinstance(self._images, Tensor):
            images = self._images[self._sent(indices)]
        else:
            images = self._sent(self._images[indices])
        if recipe.flips:
            flips = share(self._sent(batch_flips(size, update, seed)))
        if recipe.consistency:
            moves = self._moves(update)
        if recipe.loss == "wgan-gp":
            mix = share(torch.rand(size, generator=self._random(PENALTY, update), device=self.device))
        noise, changes = self._noise(DISCRIMINATOR_NOISE, update), self._changes(2, D_CHANGES, update)
        return Draw(noise, labels, changes, images, flips, moves, mix)

    def _sent(self, values: np.ndarray) -> Tensor:
        """To the device, without waiting for it."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _noise(self, *stream: int) -> Tensor:
        """This process's share of a batch of latents (B, z_dim)."""
        size = (self.recipe.batch_size, self.config.z_dim)
        return self.processes.share(torch.randn(size, generator=self._random(*stream), device=self.device))

    def _changes(self, sets: int, *stream: int) -> Tensor | None:
        """How the images of so many sets are augmented (B, sets, 9), or None; this process's share."""
        if not self.recipe.augment:
            return None
        changes = draw_changes(sets * self.recipe.batch_size, self.recipe.augment, self._random(*stream))
        return self.processes.share(changes.unflatten(0, (-1, sets)))

    def _moves(self, update: int) -> Tensor:
        """How each pair of a real and a fake image is moved (B, 3), see `move`; this process's share."""
        most = round(self.config.image_size * MOVED_SHARE)
        size, random = self.recipe.batch_size, self._random(MOVES, update)
        shifts = torch.randint(-most, most + 1, (size, 2), generator=random, device=self.device)
        mirrored = torch.randint(0, 1 + self.recipe.flips, (size, 1), generator=random, device=self.device)
        return self.processes.share(torch.cat([shifts, mirrored], dim=1))

    def _random(self, *stream: int) -> torch.Generator:
        seed = np.random.SeedSequence([self.recipe.seed, *stream]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(seed >> np.uint64(1)))

    def _autocast(self) -> torch.autocast | nullcontext:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    @torch.no_grad()
    def _note(self, values: dict[str, Tensor]) -> None:
        """Add to the sums of which `take_means` makes means, without waiting for the device."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0, 0))
            self._sums[name] = (total + value, count + 1)


def under(named: dict[str, Value], prefix: str) -> dict[str, Value]:
    """What is named "prefix/...", without the prefix."""
    return {
        key.removeprefix(f"{prefix}/"): value for key, value in named.items() if key.startswith(f"{prefix}/")
    }


def _load_moments(optimizer: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Restore Adam's moments in the memory layout of their parameters, which its fused kernel relies on.

    Raises ValueError or IndexError where they are named after parameters that are not there.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        like = parameters[int(index)]
        placed = (
            torch.empty_like(like).copy_(value) if value.shape == like.shape and name != "step" else value
        )
        state.setdefault(int(index), {})[name] = placed
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
