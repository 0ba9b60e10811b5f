"""The adversarial loop: steps, averaging, logging, pictures, saving, resuming."""

import dataclasses
import errno
import html
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from sagan import checkpoint, losses, pictures, spectra
from sagan.augment import augment, draw_changes
from sagan.captured import Captured
from sagan.data import ImageSet, batch_flips, batch_indices, move, to_batch
from sagan.device import (
    aside,
    describe_device,
    has_native_bf16,
    is_lack_of_memory,
    keep_freed_memory,
    make_deterministic,
    pick_device,
    resident,
)
from sagan.export import plain, revive, shippable
from sagan.film import Film, is_moment
from sagan.layers import load_state, normalised_once
from sagan.networks import Discriminator, Generator, SaganConfig, gammas, layer_name
from sagan.parallel import ALONE, Processes, is_lost_connection

LOSSES, PRECISIONS = ("hinge", "wgan-gp"), ("auto", "fp32", "bf16")
INTERVALS = {"log_every": 50, "sample_every": 500, "save_every": 500}  # in steps
Value = TypeVar("Value")

# Streams of random numbers, each a function of (seed, update) alone.
DISCRIMINATOR_NOISE, GENERATOR_NOISE, PENALTY, MOVES, D_CHANGES, G_CHANGES = range(6)

MOVED_SHARE = 1 / 32  # images move by up to this share of their side: 2 pixels of 64
SMALL_SIDE = 8  # fused attention is made for long rows: on a GPU, 16 of them took a tenth of a step
EMA_RAMP = 0.05  # the half-life of the average is never more than this share of the images seen
ALPHAS_FASTER = 10  # times the rate of the rest: one number decides how much of a residual block is used
BEFORE_CAPTURE = 3  # steps in which a GPU chooses its algorithms and compilers do their work

MEASURED = "frechet_distance"  # which only the rows of the history have that were measured

NOTHING_BEFORE = {"step": 0, "images": 0, "seconds": 0.0, "source": ""}

# What state.json must hold.
Kind = type | tuple[type, ...] | dict[str, "Kind"]
STATE_KINDS: dict[str, Kind] = {
    "step": int,
    "seconds": (int, float),
    "recipe": {"batch_size": int, "d_steps": int},
    "images": int,
    "about": dict,
    "before": {"step": int, "images": int, "seconds": (int, float), "source": str},
}


class TrainingError(RuntimeError):
    """A run that cannot start or go on, said in one sentence."""


@dataclass(frozen=True)
class Recipe:
    """How a run trains.

    Together with the SaganConfig and the data it determines the result, for one number of processes on one
    kind of hardware, which also decides what precision "auto" means; of a run of so many minutes, the clock
    has its part too.
    """

    batch_size: int = 64  # over all processes
    steps: int | None = 50_000
    minutes: float | None = None  # instead of steps
    loss: str = "hinge"  # or "wgan-gp"
    g_lr: float = 1e-4
    d_lr: float = 4e-4
    betas: tuple[float, float] = (0.0, 0.9)
    lr_decay: float = 0.6  # the share of the run, at its end, over which both rates fall to zero
    d_steps: int = 1
    lambda_gp: float = 10.0
    consistency: float = 0.0  # weight of how little D shall mind images that are shifted and mirrored
    augment: float = 0.0  # probability of each kind of change of what D sees, see sagan/augment.py
    ema_kimg: float | None = None  # half-life of the averaged generator; None: batch_size * 10 / 32
    flips: bool = True
    sync_batch_norm: bool = False  # whether processes share batch statistics; needs GPUs
    precision: str = "auto"  # fp32, bf16; auto: bf16 where the processor has it
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name, low, high in (
            ("batch_size", 1, 65_536),
            ("d_steps", 1, 1000),
            ("g_lr", 0, 1),
            ("d_lr", 0, 1),
            ("lr_decay", 0, 1),
            ("lambda_gp", 0, 1e6),
            ("consistency", 0, 1e6),
            ("augment", 0, 1),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, but must be from {low} to {high}")
        for name in ("batch_size", "d_steps", "seed", "steps"):
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ValueError(f"{name} is {value!r}, but must be an integer")
        for name in ("flips", "sync_batch_norm", "deterministic"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, but must be true or false")
        if not all(0 <= beta < 1 for beta in self.betas) or len(self.betas) != 2:
            raise ValueError(f"betas are {self.betas}, but must be two numbers from 0 to below 1")
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("a run is as long as either steps or minutes says: give one of them")
        for name in ("steps", "minutes", "ema_kimg"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, but must be more than 0")
        for name, allowed in (("loss", LOSSES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {allowed}")

    @property
    def images_per_step(self) -> int:
        """Real images shown in one step, over all processes and all updates of D."""
        return self.batch_size * self.d_steps


# What the presets set in the Recipe. The tutorial's code defaults to WGAN-GP with spectral norm, which fight
# each other; its text says hinge, and so does the preset. Both keep averaged and raw weights.
PRESETS: dict[str, dict] = {
    "sagan": {"lr_decay": 0.6, "flips": True},
    "tutorial": {"lr_decay": 0.0, "flips": False},
}


class Draw(NamedTuple):
    """All that one update draws, of one process: a function of (seed, update) alone."""

    noise: Tensor  # (B, z_dim)
    labels: Tensor | None = None  # (B,)
    changes: Tensor | None = None  # (B, 2, 9), of real and of generated images; of G's fakes (B, 1, 9)
    images: Tensor | None = None  # uint8 (B, S, S, 3); only D learns from them, and so all below
    flips: Tensor | None = None  # (B,) of bool
    moves: Tensor | None = None  # (B, 3), see `move`; only for consistency
    mix: Tensor | None = None  # (B,) in [0, 1]; only for the gradient penalty


class Trainer:
    """Trains one generator and one discriminator on one image set, and keeps the run in a folder.

    out/checkpoint/ is the newest checkpoint with all that resuming needs, out/best/ the best one measured;
    out/history.csv, out/curves.png and out/samples/ grow along the way. Data order, flips and noise depend
    only on (seed, step), so that saving, sampling, logging and measuring never change what is learned, and a
    resumed run goes on bit for bit on the CPU. (But in one of so many minutes, the rates follow the clock.)
    Building one changes this process: PyTorch's global seed becomes the recipe's, on a GPU cuDNN looks for
    the fastest convolutions, on a CPU malloc keeps freed memory, and a deterministic recipe lets PyTorch use
    deterministic algorithms only.
    """

    def __init__(
        self,
        config: SaganConfig,
        recipe: Recipe,
        data: ImageSet,
        out: Path,
        device: str = "auto",
        about: dict | None = None,
        processes: Processes = ALONE,
        measure: Callable[[Generator], dict[str, float]] | None = None,
        measure_kimg: float | None = None,
        compiler: str | Callable | None = None,
        capture: bool | None = None,
    ) -> None:
        """about: plain data for the model card (command, sources, crop).

        measure: called with the averaged generator after every measure_kimg thousand images and at the end of
        the run; returns figures by name, the first of them better when lower. What a signal or a crash left
        unmeasured is measured when the run goes on, where the figures are those of `sagan.metrics`. Only the
        first process calls it; all must be given the same measure_kimg, without which nothing is measured.

        compiler: the backend of `torch.compile` that turns each network's passes into code of their own, such
        as "inductor"; they compute the same up to rounding. None: as they are.

        capture: whether a step is recorded once as a CUDA graph and then replayed, which spares the processor
        its part; it computes the same. None: on a GPU, where one process trains.

        The classes are those of the data, whatever the config says. Raises TrainingError for what does not go
        together.
        """
        if measure and not measure_kimg:
            raise ValueError("measure is called after so many images as measure_kimg says: give both")
        if compiler and recipe.loss == "wgan-gp":
            raise TrainingError(
                "wgan-gp needs derivatives of derivatives, which compiled networks lack: leave out --compile."
            )
        if recipe.batch_size % processes.count:
            raise TrainingError(
                f"A batch of {recipe.batch_size} images cannot be shared equally by {processes.count} "
                "processes: choose another --batch-size."
            )
        if recipe.loss == "wgan-gp" and config.d_spectral_norm:
            config = dataclasses.replace(config, d_spectral_norm=False)
        if data.images.shape[1] != config.image_size:
            raise TrainingError(
                f"The images are {data.images.shape[1]} pixels wide, but the networks are for "
                f"{config.image_size}."
            )
        self.config = dataclasses.replace(config, num_classes=len(data.class_names))
        check_size(self.config)
        self.recipe, self.data, self.out, self.about = recipe, data, Path(out), about or {}
        self.processes = processes
        self.measure, self.measure_kimg = measure, measure_kimg
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
            self.generator = nn.SyncBatchNorm.convert_sync_batchnorm(self.generator)
        self.discriminator = self._place(Discriminator(self.config))
        self.averaged = self._place(Generator(self.config)).requires_grad_(False)
        self.averaged.load_state_dict(self.generator.state_dict())
        self._compiles = bool(compiler)  # in the first step
        if compiler:
            try:
                for network in (self.generator, self.discriminator):
                    network.compile(backend=compiler, fullgraph=True, dynamic=False)
            except (RuntimeError, OSError, KeyError) as error:  # no place for its files, too new a Python
                raise _not_compiled(error) from error
        # The same networks, for passes with a gradient that all processes average.
        self._g, self._d = (processes.together(net) for net in (self.generator, self.discriminator))
        self.g_optimizer = self._adam(self.generator, recipe.g_lr)
        self.d_optimizer = self._adam(self.discriminator, recipe.d_lr)
        self.step = 0  # generator updates so far
        self.before = dict(NOTHING_BEFORE)  # what another run had trained of these weights
        self.seconds = 0.0  # spent training, over all sessions of the run
        self.history: list[dict[str, float]] = []
        self._columns: list[str] = []  # of the history that this trainer wrote
        self.film = Film(self.config)
        self._may_replace = False  # what there is in `out`
        self._warm_up = BEFORE_CAPTURE  # steps left
        self._rates: dict[str, float] = {}  # of this step
        self._sums: dict[str, tuple[Tensor, int]] = {}  # and how many were added
        self._snapshot: tuple[int, Generator] | None = None
        self.stopped_by: int | None = None  # the signal that ended `train`, agreed by all processes
        self._signal = 0  # the one that this process received

    def _place(self, network: nn.Module) -> nn.Module:
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
                    fake = self._fake(draw)
                figures.append(self._d_step(draw, fake))
            figures.append(self._g_step(self._fake(of_g), of_g))
        return [{name: value.detach() for name, value in row.items()} for row in figures]

    def _fake(self, draw: Draw) -> Tensor:
        """Generated images (B, 3, S, S)."""
        network = self._g if torch.is_grad_enabled() else self.generator
        with self._autocast():
            return network(draw.noise, draw.labels).float()

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

    # What a step is made of

    @property
    def images(self) -> int:
        """Real images shown so far, those before this run included."""
        steps = self.step - self.before["step"]
        return self.before["images"] + steps * self.recipe.images_per_step

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        if self.recipe.steps is not None:
            return min(1.0, (self.step - self.before["step"]) / self.recipe.steps)
        return min(1.0, (self.seconds - self.before["seconds"]) / (60 * self.recipe.minutes))

    def _set_rates(self) -> None:
        left = 1 - self.progress
        factor = min(1.0, left / self.recipe.lr_decay) if self.recipe.lr_decay else 1.0
        self._rates = {"g_lr": self.recipe.g_lr * factor, "d_lr": self.recipe.d_lr * factor}
        for optimizer, rate in zip((self.g_optimizer, self.d_optimizer), self._rates.values(), strict=True):
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

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    @torch.no_grad()
    def _note(self, values: dict[str, Tensor]) -> None:
        """Add to the sums that the next log line averages, without waiting for the device."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0, 0))
            self._sums[name] = (total + value, count + 1)

    # The run

    def train(
        self,
        log_every: int = INTERVALS["log_every"],
        sample_every: int = INTERVALS["sample_every"],
        save_every: int = INTERVALS["save_every"],
    ) -> bool:
        """Train to the end of the recipe, or until SIGINT or SIGTERM; the run is saved in both cases.

        Called again, it goes on. The intervals are in steps. Returns whether the run is complete. Raises
        TrainingError where there is another run in the folder that was not resumed, a loss is no longer
        finite, the disk refuses a file or another process is gone; the last good checkpoint stays.
        """
        if min(log_every, sample_every, save_every) < 1:
            raise ValueError(
                f"intervals are {log_every}, {sample_every} and {save_every} steps, but must be at least 1"
            )
        self.stopped_by, self._signal = None, 0  # those of an earlier call
        if not self._may_replace:
            refuse_to_replace(self.out)
        self._may_replace = True
        try:
            return self._train(log_every, sample_every, save_every)
        except TrainingError:  # a RuntimeError too, and said already
            raise
        except AssertionError as error:  # how code that was compiled says that it does not fit
            if not self._compiles:
                raise
            raise _not_compiled(error) from error
        except RuntimeError as error:
            if is_lack_of_memory(error):
                raise TrainingError(
                    f"At step {self.step}, {self.device} ran out of memory; {self._kept()}. "
                    "Start a run with a smaller --batch-size."
                ) from error
            if isinstance(error, torch._dynamo.exc.TorchDynamoException):
                if self._signal:  # Ctrl-C ends the compiler as well, in the first step
                    self.stopped_by = self._signal
                    raise KeyboardInterrupt from error
                raise _not_compiled(error) from error
            if not is_lost_connection(error):
                raise
            raise TrainingError(
                f"At step {self.step}, the processes of this run stopped working together "
                f"({str(error).splitlines()[0]}); {self._kept()}. Go on with --resume."
            ) from error

    def _train(self, log_every: int, sample_every: int, save_every: int) -> bool:
        with self._writing("The folder of the pictures"):
            (self.out / "samples").mkdir(parents=True, exist_ok=True)
        handlers = {name: signal.signal(name, self._remember) for name in (signal.SIGINT, signal.SIGTERM)}
        leads = self.processes.leads
        written: dict[Callable[[], None], int] = {}  # the step at which each was last
        bar = tqdm(
            total=None if self.recipe.steps is None else self.before["step"] + self.recipe.steps,
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not leads,
        )
        started, clock = self.seconds, time.monotonic()
        logged_at, logged_step = time.monotonic(), self.step

        def record() -> None:
            self.film.record(self.step, self.images, self.snapshot(), self.data.class_counts)

        def write(what: Callable[[], None]) -> None:
            """Once a step; the speed that is told leaves its time out."""
            nonlocal logged_at
            if leads and written.get(what) != self.step:
                begun = time.monotonic()
                what()
                written[what] = self.step
                logged_at += time.monotonic() - begun

        def keep_if_best(figures: dict[str, float]) -> None:
            if self._is_best(next(iter(figures))):
                write(self.keep_as_best)
                write(self.save)

        try:
            # All of them look before the first one may save what they resume from.
            if self.measure_kimg and any(self.processes.most(self._owes_figures())):
                with self.processes.leader_first():
                    if leads:
                        figures = self.measure(self.snapshot())
                        self._add_figures(figures)
                        keep_if_best(figures)
                clock = logged_at = time.monotonic()
            while self.progress < 1 and self.stopped_by is None:
                if is_moment(self.step):
                    write(record)
                self.train_step()
                if self._compiles:  # a step that took a minute: not one of training, see below
                    self._compiles = False
                    clock = logged_at = time.monotonic()
                    logged_step = self.step
                seconds = started + time.monotonic() - clock
                signalled, self.seconds = self.processes.most(self._signal, seconds)
                self.stopped_by = int(signalled) or None
                bar.update()
                leaving = self.progress == 1 or self.stopped_by is not None
                measuring = self._time_to_measure()
                if self.step % log_every == 0 or leaving or measuring:
                    paused = time.monotonic()
                    timed = self.step - logged_step  # none where the only step was the one that compiled
                    speed = timed / (paused - logged_at) if timed else math.nan
                    figures = {}
                    if measuring and leads:
                        self.save()  # what was learned is worth more than its figures, which may take long
                        figures = self.measure(self.snapshot())
                    self._log(bar, speed * self.recipe.images_per_step, figures)
                    logged_at, logged_step = time.monotonic(), self.step
                    clock += logged_at - paused  # measuring takes none of --minutes
                if leads and measuring:
                    keep_if_best(figures)
                if self.step % sample_every == 0:
                    write(self.draw)
                if self.step % save_every == 0:
                    write(self.save)
            if self.stopped_by is None:
                write(self.draw)
            write(self.save)
        finally:
            bar.close()
            if self.processes.count > 1 and sys.exc_info()[0] is not None:
                # torchrun ends what is left of a run by SIGTERM; this process says first why it stopped.
                handlers[signal.SIGTERM] = signal.SIG_IGN
            for name, handler in handlers.items():
                signal.signal(name, handler)
        return self.progress == 1

    def _remember(self, number: int, frame: object) -> None:
        """First signal: leave after this step. Second: leave now."""
        if self._signal:
            self.stopped_by = self._signal
            raise KeyboardInterrupt
        self._signal = number

    def _time_to_measure(self) -> bool:
        """Whether this step completed another measure_kimg, or the run; a signal is not kept waiting."""
        if not self.measure_kimg or self.stopped_by is not None:
            return False
        before = self.images - self.recipe.images_per_step
        every = 1000 * self.measure_kimg
        return self.images // every > before // every or self.progress == 1

    def _owes_figures(self) -> bool:
        """Whether the run was left at its end, or beyond another measure_kimg, and not measured there."""
        measured = (row.get("images", 0) for row in self.history if MEASURED in row)
        latest, every = max([self.before["images"], *measured]), 1000 * self.measure_kimg
        return self.images // every > latest // every or (self.progress == 1 and self.images > latest)

    def _add_figures(self, figures: dict[str, float]) -> None:
        """Put the figures of this step into the history, whose last row is of this step or an earlier one."""
        if not self.history or self.history[-1].get("step") != self.step:
            self.history.append({"step": self.step, "images": self.images, "seconds": round(self.seconds, 1)})
        self.history[-1] |= figures
        self._columns = []  # a row that was written has changed
        self._write_history()

    def _is_best(self, figure: str) -> bool:
        """Whether the last row of the history has a lower value than the best checkpoint that is kept."""
        folder = self.out / checkpoint.RUN_BEST
        try:
            checkpoint.recover(folder)
            kept = checkpoint.read_history(folder)[-1:]
        except (checkpoint.CheckpointError, OSError):  # damaged: no good to anybody
            kept = []
        return self.history[-1][figure] < min((row.get(figure, math.inf) for row in kept), default=math.inf)

    def _log(self, bar: tqdm, images_per_second: float, figures: dict[str, float]) -> None:
        means = [float(total) / count for total, count in self._sums.values()]
        means = dict(zip(self._sums, self.processes.mean(*means), strict=True))
        self._sums.clear()
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(bad[0])
        learned = {
            f"{letter}_gamma_{layer}": float(value)
            for letter, network in (("g", self.generator), ("d", self.discriminator))
            for layer, value in gammas(network).items()
        }
        row = {"step": self.step, "images": self.images, "seconds": round(self.seconds, 1)}
        row |= {name: round(value, 6) for name, value in (means | learned).items()} | figures
        row |= self._rates
        if math.isfinite(images_per_second):
            row["images_per_second"] = round(images_per_second, 2)
        self.history.append(row)
        if not self.processes.leads:
            return
        self._write_history()

        shown = {"kimg": f"{self.images / 1000:.1f}", "img/s": f"{images_per_second:.0f}"}
        if self.recipe.minutes is not None:
            shown["min left"] = f"{(1 - self.progress) * self.recipe.minutes:.0f}"
        shown |= {"D": f"{means['d_loss']:.2f}", "G": f"{means['g_loss']:.2f}"}
        shown |= {"D(real)": f"{means['d_real']:.2f}", "D(fake)": f"{means['d_fake']:.2f}"}
        shown["gamma"] = " ".join(f"{value:.3f}" for name, value in learned.items() if name.startswith("g_"))
        bar.set_postfix(shown, refresh=False)

    def _write_history(self) -> None:
        with self._writing("history.csv"):
            path = self.out / checkpoint.HISTORY
            self._columns = checkpoint.add_to_history(path, self.history, self._columns)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"At step {self.step}, {what} is no longer a finite number; {self._kept()}. "
            "Try smaller --g-lr and --d-lr, --precision fp32, or another --seed."
        )

    @property
    def _has_saved(self) -> bool:
        return (self.out / checkpoint.RUN_CHECKPOINT).exists()

    def _kept(self) -> str:
        if self._has_saved:
            return f"the last good checkpoint is kept in '{self.out}'"
        return "nothing was saved before"

    def snapshot(self) -> Generator:
        """The averaged generator of this step as it would be shipped. Raises TrainingError if it diverged."""
        if self._snapshot is None or self._snapshot[0] != self.step:
            if not _finite(self.averaged.parameters()):
                raise self._diverged("a weight")
            self._snapshot = self.step, shippable(self.averaged, self.data.class_counts)
        return self._snapshot[1]

    def draw(self) -> None:
        """Save the pictures of this step: faces from fixed noise, their attention, the curves so far."""
        generator = self.snapshot()
        name, samples, counts = f"{self.step:06d}.png", self.out / "samples", self.data.class_counts
        with self._writing("The pictures"):
            pictures.faces(generator, samples / f"faces-{name}", counts)
            pictures.attention(generator, samples / f"attention-{name}", counts)
            if self.history:
                pictures.curves(self.history, self.out / "curves.png")

    # Saving and resuming

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Let a disk that refuses stop the run with a sentence."""
        try:
            yield
        except OSError as error:
            full = error.errno in (None, errno.ENOSPC, errno.EDQUOT)
            first = "Make room" if full else "Put that right"
            then = "go on with --resume" if self._has_saved else "start again"
            raise TrainingError(
                f"{what} of step {self.step} could not be written ({error.strerror or error}); "
                f"{self._kept()}. {first} and {then}."
            ) from error

    def save(self) -> None:
        """Write out/checkpoint. Raises TrainingError where that fails; the previous checkpoint stays."""
        self._write("The checkpoint", checkpoint.RUN_CHECKPOINT, self._state())

    def keep_as_best(self) -> None:
        """Write out/best, without what only resuming needs. Raises TrainingError."""
        self._write("The best checkpoint", checkpoint.RUN_BEST)

    def _state(self) -> tuple[dict[str, Tensor], dict]:
        """All that resuming needs: tensors, and plain data."""
        tensors = {}
        for name, network in self._networks.items():
            tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
        for name, optimizer in self._optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{key}": value for key, value in values.items()}
        if not _finite(tensors.values()):
            raise self._diverged("a weight")
        info = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": dataclasses.asdict(self.recipe),
            "images": len(self.data),
            "fingerprint": self.data.fingerprint,
            "about": self.about,
            "before": self.before,
        }
        return tensors, info

    def _write(self, what: str, name: str, state: tuple[dict[str, Tensor], dict] | None = None) -> None:
        with self._writing(what):
            checkpoint.save(
                self.out / name,
                self.config,
                self.data.class_names,
                self.snapshot(),
                plain(self.discriminator),
                self.history,
                self.card(),
                raw_generator=plain(self.generator),
                state=state,
                companions={
                    checkpoint.FILM: self.film.ending_with(
                        self.step, self.images, self.snapshot(), self.data.class_counts
                    ),
                    checkpoint.SPECTRA: spectra.measure(self.averaged, self.discriminator),
                },
                class_counts=self.data.class_counts,
            )

    def start_from(self, folder: Path, source: str) -> None:
        """Begin with the weights of a checkpoint, its history and its film; both optimisers start anew.

        `source` is what the model card calls it. Of a run's checkpoint it takes the raw generator. Weights
        get back the scale that they had before they were normalised, where the checkpoint tells, the raw
        generator's that of the averaged one: it grows in training, and so the same rates turn them less and
        less. A discriminator of another kind of loss, with or without spectral norm, starts anew, as do
        residual blocks that the checkpoint lacks. Raises CheckpointError, or TrainingError where the networks
        are other ones, or a run saved meanwhile.
        """
        made = checkpoint.generator_hash(folder)
        config, class_names = checkpoint.load_config(folder)
        check_same_classes(folder, class_names, self.data.class_names)
        if not config.can_become(self.config):
            raise TrainingError(
                f"The networks in '{folder}' are {config}, but this run is set up as {self.config}."
            )
        averaged = checkpoint.load_generator(folder)
        has_raw = (folder / checkpoint.RAW_GENERATOR).is_file()
        raw = checkpoint.load_generator(folder, checkpoint.RAW_GENERATOR) if has_raw else averaged
        sigmas = spectra.largest(folder)
        revive(self.generator, raw, _under(sigmas, "generator"))
        revive(self.averaged, averaged, _under(sigmas, "generator"))
        if config.d_spectral_norm == self.config.d_spectral_norm:
            discriminator = checkpoint.load_discriminator(folder)
            revive(self.discriminator, discriminator, _under(sigmas, "discriminator"))
        self.history = checkpoint.read_history(folder)
        film = self._take_film(folder)
        last = self.history[-1] if self.history else {}
        shown = [last, *film.moments[-1:]] if film else [last]  # the film may end later than the history
        step, images = (max(int(part.get(name, 0)) for part in shown) for name in ("step", "images"))
        seconds = last.get("seconds", 0.0)
        if (folder / checkpoint.STATE_INFO).is_file():  # saved since the last row of the history
            info = read_state_info(folder)
            step, seconds, earlier = info["step"], info["seconds"], info["before"]
            a_step = info["recipe"]["batch_size"] * info["recipe"]["d_steps"]
            images = earlier["images"] + (step - earlier["step"]) * a_step
        digits = int(made[:12], 16)  # as many as a float64 holds
        most, least = self.processes.most(digits, -digits)
        if checkpoint.generator_hash(folder) != made or most != -least:
            raise TrainingError(f"The run in '{folder}' saved its checkpoint meanwhile: start again.")
        self.step, self.seconds = step, seconds
        self.before = {"step": step, "images": images, "seconds": seconds, "source": source}
        self._snapshot = None

    def _take_film(self, folder: Path) -> Film | None:
        """Go on with the film of a checkpoint, which is returned as it was saved, if there is one."""
        if film := Film.load(folder, self.config):
            self.film = film.going_on()
        return film

    def resume(self) -> None:
        """Go on from out/checkpoint. Raises CheckpointError or TrainingError."""
        folder = checkpoint.find(self.out.absolute())  # never a Hub id
        config, _ = checkpoint.load_config(folder)
        info = read_state_info(folder)
        if config != self.config:
            raise TrainingError(
                f"The networks in '{folder}' are {config}, but this run is set up as {self.config}."
            )
        if info["images"] != len(self.data):
            raise TrainingError(
                f"The run in '{self.out}' was trained on {info['images']} images, "
                f"but there are {len(self.data)} now."
            )
        earlier = info.get("fingerprint")  # older runs have none
        if earlier and self.data.fingerprint and earlier != self.data.fingerprint:
            raise TrainingError(
                f"The run in '{self.out}' was trained on images of other names or labels, or in another "
                "order: give the same --data and --labels."
            )
        tensors = checkpoint.load_tensors(folder / checkpoint.STATE, max_bytes=math.inf)
        try:
            for name, network in self._networks.items():
                load_state(network, _under(tensors, name))
            for name, optimizer in self._optimizers.items():
                _load_optimizer(optimizer, _under(tensors, name))
        except (RuntimeError, ValueError, IndexError) as error:
            raise TrainingError(
                f"'{folder}' cannot be resumed: {checkpoint.STATE} does not fit its networks. If it is of an "
                "older version, a new run can begin with its weights: "
                f"--start-from {shlex.quote(str(self.out))}."
            ) from error
        self.step, self.seconds, self.before = info["step"], info["seconds"], info["before"]
        self._snapshot = None
        self.history = checkpoint.read_history(folder)
        self._take_film(folder)
        self._may_replace = True

    @property
    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "averaged": self.averaged}

    @property
    def _optimizers(self) -> dict[str, torch.optim.Adam]:
        return {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}

    def describe(self) -> str:
        """What is about to be trained, in two or three lines."""
        sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in self._networks.values()]
        precision = "bfloat16" if self.bf16 else "float32"
        count = self.processes.count
        together = f" in {count} processes" if count > 1 else ""
        lines = [
            f"{len(self.data):,} images of {self.config.image_size} px, {self.config.num_classes} classes",
            f"{sizes[0]:.1f} M weights in G, {sizes[1]:.1f} M in D; {precision} on {self.device}{together}",
        ]
        if without := self.data.class_counts.count(0):
            name = self.data.class_names[self.data.class_counts.index(0)]
            lines.append(f"{without} classes have no image and will not be learned, for example '{name}'.")
        if self.recipe.loss == "wgan-gp":
            lines.append("Spectral norm in the discriminator is off: it fights wgan-gp's gradient penalty.")
        if self.step > self.before["step"]:
            lines.append(f"Going on from step {self.step}.")
        elif self.before["source"]:
            lines.append(f"Starting from '{self.before['source']}', {self.images:,} images shown before.")
        return "\n".join(lines)

    def card(self) -> str:
        """The model card of this moment, in Markdown."""
        size = self.config.image_size
        sources = ", ".join(Path(source).name for source in self.about.get("data", ["an unnamed source"]))
        hardware = f"{describe_device(self.device)}, PyTorch {torch.__version__}"
        if self.processes.count > 1:
            hardware = f"{self.processes.count} processes, each on {hardware}"
        classes = html.escape("; ".join(self.data.class_names), quote=False) or "none"
        sides = {"generator": self.config.g_attention, "discriminator": self.config.d_attention}
        attention = [
            f"{' and '.join(map(layer_name, attending))} of the {network}"
            for network, attending in sides.items()
            if attending
        ]
        begun = ""
        if self.before["source"]:
            begun = f", of which '{self.before['source']}' had taken {self.before['step']:,} before"
        return "\n".join(
            [
                f"# A {'Self-Attention ' if attention else ''}GAN for {size}x{size} images",
                "",
                f"- Data: {len(self.data):,} images from {sources}",
                f"- Classes: {classes}",
                f"- Attention: {', '.join(attention) or 'none'}",
                f"- Images shown: {self.images:,} in {self.step:,} steps of batch {self.recipe.batch_size}"
                f"{begun}",
                f"- Time: {self.seconds / 3600:.2f} hours on {hardware}",
                f"- Command: `{self.about.get('command', 'unknown')}`",
                f"- Loss: {self.recipe.loss}; spectral norm in the discriminator: "
                f"{'on' if self.config.d_spectral_norm else 'off, because it fights the gradient penalty'}",
                "",
                "Before you share it, say here what the images show, whose they are, under which licence,",
                "and what the model must not be used for.",
                "",
            ]
        )


def check_size(config: SaganConfig) -> None:
    """Raise TrainingError where a checkpoint of these networks would be larger than what is read."""
    with torch.device("meta"):
        networks = {"g": Generator(config, spectral=False), "d": Discriminator(config, spectral=False)}
    for letter, network in networks.items():
        size = checkpoint.stored_bytes(network)
        if size + checkpoint.HEADER_BYTES > checkpoint.MAX_BYTES:
            raise TrainingError(
                f"The weights of {letter.upper()} would take {size / 2**20:,.0f} MiB on disk, but no more "
                f"than {checkpoint.MAX_BYTES / 2**20:,.0f} are read: choose a smaller --{letter}-width."
            )


def refuse_to_replace(out: Path) -> None:
    """Raise TrainingError where there is a run in the folder already."""
    parts = (checkpoint.RUN_CHECKPOINT, checkpoint.RUN_BEST)
    if any((out / part).exists() for part in parts) or checkpoint.find_local(out):
        raise TrainingError(f"There is a run in '{out}': go on with it by --resume, or name another --out.")


def check_same_classes(folder: Path, there: Sequence[str], here: Sequence[str]) -> None:
    """Raise TrainingError where the networks in the folder have other classes than the run, by name."""
    if len(there) != len(here):
        counts = [len(names) or "no" for names in (there, here)]
        raise TrainingError(
            f"The checkpoint in '{folder}' has {counts[0]} classes, but this run {counts[1]}: give "
            "the --labels and --label-columns that it was trained with, or leave them out if it has none."
        )
    if pair := next(((a, b) for a, b in zip(there, here, strict=True) if a != b), None):
        raise TrainingError(
            f"The classes in '{folder}' are not those of this run, for example '{pair[0]}' instead of "
            f"'{pair[1]}': give the same --label-columns."
        )


def read_state_info(folder: Path) -> dict:
    """state.json of a run's checkpoint, with what older runs lack filled in.

    Raises TrainingError where the folder has none, or a damaged one.
    """
    try:
        info = checkpoint.read_json(folder / checkpoint.STATE_INFO, any_path=True)
    except checkpoint.CheckpointError:
        info = None
    if isinstance(info, dict):
        info = {"before": dict(NOTHING_BEFORE)} | info
        if isinstance(info.get("recipe"), dict):
            info["recipe"] = {"d_steps": 1} | info["recipe"]
    if not _is_like(info, STATE_KINDS):
        raise TrainingError(f"'{folder}' cannot be resumed: {checkpoint.STATE_INFO} is missing or damaged.")
    return info


def _is_like(value: object, kind: Kind) -> bool:
    """Whether a value is of this kind; a dictionary's must have these keys, and may have more."""
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(_is_like(value.get(key), kind[key]) for key in kind)
    return isinstance(value, kind)


def _not_compiled(error: Exception) -> TrainingError:
    cause = getattr(error, "inner_exception", error)  # what the compiler said
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].removesuffix(".")
    return TrainingError(f"The networks cannot be compiled here ({reason}): leave out --compile.")


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _under(named: dict[str, Value], prefix: str) -> dict[str, Value]:
    return {
        key.removeprefix(f"{prefix}/"): value for key, value in named.items() if key.startswith(f"{prefix}/")
    }


def _load_optimizer(optimizer: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Restore Adam's moments in the memory layout of their parameters, which its fused kernel relies on."""
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
