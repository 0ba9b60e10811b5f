"""How a run trains and tells of it, as numbers: what `train.py` is told, and what is saved with the run."""

import math
from dataclasses import dataclass

LOSSES, PRECISIONS = ("hinge", "wgan-gp"), ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Recipe:
    """How a run trains.

    Together with the SaganConfig and the data it determines the result, for one number of processes on one
    kind of hardware, which also decides what precision "auto" means; of a run of so many minutes, the clock
    has its part too. Raises ValueError for values that make no sense.
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
            _check_number(name, value)
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
        betas = self.betas if isinstance(self.betas, list | tuple) else ()
        if len(betas) != 2 or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are {self.betas!r}, but must be two numbers from 0 to below 1")
        object.__setattr__(self, "betas", tuple(betas))
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("a run is as long as either steps or minutes says: give one of them")
        for name in ("steps", "minutes", "ema_kimg"):
            value = getattr(self, name)
            if value is None:
                continue
            _check_number(name, value)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}, but must be more than 0")
        for name, allowed in (("loss", LOSSES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {allowed}")

    @property
    def images_per_step(self) -> int:
        """Real images shown in one step, over all processes and all updates of D."""
        return self.batch_size * self.d_steps


@dataclass(frozen=True)
class Intervals:
    """After how many steps each a run is logged, drawn and saved. Raises ValueError for less than one."""

    log_every: int = 50
    sample_every: int = 500
    save_every: int = 500

    def __post_init__(self) -> None:
        log, sample, save = self.log_every, self.sample_every, self.save_every
        if min(log, sample, save) < 1:
            raise ValueError(f"intervals are {log}, {sample} and {save} steps, but must be at least 1")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}, but must be a number")


# What the presets set in the Recipe. The tutorial's code defaults to WGAN-GP with spectral norm, which fight
# each other; its text says hinge, and so does the preset. Both keep averaged and raw weights.
PRESETS: dict[str, dict] = {
    "sagan": {"lr_decay": Recipe.lr_decay, "flips": Recipe.flips},
    "tutorial": {"lr_decay": 0.0, "flips": False},
}
