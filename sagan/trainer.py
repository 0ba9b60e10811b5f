"""A run: the loop around the learner, its logs, pictures and checkpoints, and how it resumes."""

import dataclasses
import errno
import math
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sagan import checkpoint, pictures, spectra
from sagan.card import model_card
from sagan.classes import Classes
from sagan.data import ImageSet
from sagan.device import finish, is_lack_of_memory
from sagan.export import plain, revive, shippable
from sagan.film import Film, is_moment
from sagan.learner import Learner, TrainingError, under
from sagan.networks import Discriminator, Generator, SaganConfig, learned_gammas
from sagan.parallel import ALONE, Processes, is_lost_connection
from sagan.recipe import Intervals, Recipe
from sagan.resuming import (
    CURVES,
    SAMPLES,
    check_same_classes,
    read_state_info,
    refuse_to_replace,
    set_aside,
    where_it_stood,
)
from sagan.signals import Signals
from sagan.stopwatch import Stopwatch

MEASURED = "frechet_distance"  # which only the rows of the history have that were measured


class Trainer(Learner):
    """A learner whose run is kept in a folder: logged, drawn, measured, saved and resumed.

    out/checkpoint/ is the newest checkpoint with all that resuming needs, out/best/ the best one measured;
    out/history.csv, out/curves.png and out/samples/ grow along the way. Saving, sampling, logging and
    measuring never change what is learned, and a resumed run goes on bit for bit on the CPU. (But where
    minutes give its length, the rates follow the clock.)
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
        capture: bool | None = None,
    ) -> None:
        """about: plain data that every checkpoint keeps: the settings that train.py --resume goes by, and the
        command; the model card tells "command" and "data", the sources.

        measure: called with the averaged generator after every measure_kimg thousand images and at the end of
        the run; returns figures by name, the first of them better when lower. What a signal or a crash left
        unmeasured is measured when the run goes on, if the figures are those of `sagan.metrics`. Only the
        first process calls it; all must be given the same measure_kimg, without which nothing is measured.

        The rest is `Learner`'s. Raises TrainingError for what does not go together, ValueError where only one
        of measure and measure_kimg is given.
        """
        if measure and not measure_kimg:
            raise ValueError("measure is called after as many images as measure_kimg says: give both")
        if measure_kimg and not measure and processes.leads:
            raise ValueError("the first process measures whenever measure_kimg says: give it measure as well")
        check_size(dataclasses.replace(config, num_classes=len(data.class_names)))
        super().__init__(config, recipe, data, device, processes, capture)
        self.out, self.about = out, about or {}
        self.classes = Classes(data.class_names, data.class_counts)
        self.measure, self.measure_kimg = measure, measure_kimg
        self.history: list[dict[str, float]] = []
        self._columns: list[str] = []  # of the history that this trainer wrote
        self.film = Film(self.config)
        self._may_replace = False  # what there is in `out`
        self._snapshot: tuple[int, Generator] | None = None
        self.stopped_by: int | None = None  # the signal that ended `train`, agreed by all processes

    def train(
        self,
        log_every: int = Intervals.log_every,
        sample_every: int = Intervals.sample_every,
        save_every: int = Intervals.save_every,
    ) -> bool:
        """Train to the end of the recipe, or until SIGINT, SIGTERM or SIGHUP; the run is saved in all cases.

        Called again, it goes on. The intervals are in steps. Returns whether the run is complete. Raises
        TrainingError where there is another run in the folder that was not resumed, a loss is no longer
        finite, the disk refuses a file or another process is gone; the last good checkpoint stays.
        """
        intervals = Intervals(log_every, sample_every, save_every)
        is_new = not self._may_replace
        if is_new:
            refuse_to_replace(self.out)
        refused = TrainingError(f"'{self.out}' cannot be used; the first process says why.")
        self.processes.by_leader(lambda: self._prepare_folder(is_new), refused)
        self._may_replace = True
        self.stopped_by, signals = None, Signals(tells_first=self.processes.count > 1)
        try:
            with signals:
                return self._train(signals, intervals)
        except KeyboardInterrupt:
            self.stopped_by = signals.first or None  # at once, without asking the other processes
            raise
        except RuntimeError as error:
            if is_lack_of_memory(error):
                raise TrainingError(
                    f"At step {self.step}, {self.device} ran out of memory; {self._kept()}. "
                    "Start a run with a smaller --batch-size."
                ) from error
            if not is_lost_connection(error):
                raise
            raise TrainingError(
                f"At step {self.step}, the processes of this run stopped working together "
                f"({str(error).splitlines()[0]}); {self._kept()}. Go on with --resume."
            ) from error

    def _prepare_folder(self, is_new: bool) -> None:
        """Let the run write into its folder; a new one replaces nothing that it finds there."""
        if is_new:
            set_aside(self.out)
        with self._writing("The folder of the pictures"):
            (self.out / SAMPLES).mkdir(parents=True, exist_ok=True)

    def _train(self, signals: Signals, intervals: Intervals) -> bool:
        leads = self.processes.leads
        # The step at which each was last: an interval and the end of the run may fall on the same one.
        written: dict[Callable[[], None], int] = {}
        bar = tqdm(
            total=None if self.recipe.steps is None else self.inherited.step + self.recipe.steps,
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not leads,
        )
        earlier, training = self.seconds, Stopwatch()  # without measuring, which takes none of --minutes
        logged_step, stepping = self.step, Stopwatch()  # since the last row, also without what is written

        def record() -> None:
            self.film.record(self.step, self.images, self.snapshot(), self.classes)

        def write(what: Callable[[], None]) -> None:
            """Once a step; the speed that is told leaves its time out, but not that of steps under way."""
            if leads and written.get(what) != self.step:
                finish(self.device)
                with stepping.paused():
                    what()
                written[what] = self.step

        def agree() -> None:
            """All processes go by the clock of the slowest, and leave by the same signal."""
            signalled, self.seconds = self.processes.most(signals.first, earlier + training.seconds)
            self.stopped_by = int(signalled) or None

        def is_logged() -> bool:
            leaving = self.progress == 1 or self.stopped_by is not None
            return self.step % intervals.log_every == 0 or leaving or self._time_to_measure()

        def keep_if_best(figures: dict[str, float]) -> None:
            if self._is_best(next(iter(figures))):
                write(self.keep_as_best)
                write(self.save)

        try:
            # Only the first one has all figures in its history.
            if self.measure_kimg and any(self.processes.most(leads and self._owes_figures())):
                with self.processes.leader_first():
                    if leads:
                        figures = self.measure(self.snapshot())
                        self._add_figures(figures)
                        keep_if_best(figures)
                training.restart()
                stepping.restart()
            while self.progress < 1 and self.stopped_by is None:
                if is_moment(self.step):
                    write(record)
                self.train_step()
                agree()
                if logged := is_logged():
                    finish(self.device)
                    agree()  # on the time that the steps took, not on that in which they were launched
                bar.update()
                measuring = self._time_to_measure()
                if logged:
                    speed = (self.step - logged_step) / stepping.seconds
                    figures = {}
                    with training.paused():
                        if measuring and leads:
                            self.save()  # what was learned is worth more than figures, which may take long
                            figures = self.measure(self.snapshot())
                        # The other processes wait for the leader's measuring in here, where the means of all
                        # are taken: their clocks leave it out only because the pause holds this as well.
                        self._log(bar, speed * self.recipe.images_per_step, figures)
                    stepping.restart()
                    logged_step = self.step
                if leads and measuring:
                    keep_if_best(figures)
                if self.step % intervals.save_every == 0:
                    write(self.save)
                if self.step % intervals.sample_every == 0:
                    write(self.draw)  # after saving, where both are due: a disk may refuse it
            write(self.save)
            if self.stopped_by is None:
                write(self.draw)
        finally:
            bar.close()
        return self.progress == 1

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
        latest, every = max([self.inherited.images, *measured]), 1000 * self.measure_kimg
        return self.images // every > latest // every or (self.progress == 1 and self.images > latest)

    def _add_figures(self, figures: dict[str, float]) -> None:
        """Put the figures of this step into the history, whose last row is of this step or an earlier one."""
        if not self.history or self.history[-1].get("step") != self.step:
            self.history.append({"step": self.step, "images": self.images, "seconds": round(self.seconds, 1)})
        self.history[-1] |= figures
        self._columns = []  # a row that was written has changed
        self._write_history()

    def _is_best(self, figure: str) -> bool:
        """Whether the last row of the history has a lower value than the best checkpoint that is kept.

        False, with a warning, where the disk does not let that be read: it may be the better one.
        """
        folder = self.out / checkpoint.RUN_BEST
        try:
            checkpoint.recover(folder)
            kept = checkpoint.read_history(folder, max_bytes=math.inf)[-1:]
        except FileNotFoundError:
            kept = []
        except (checkpoint.CheckpointError, OSError) as error:
            refusal = error.__cause__ or error
            if isinstance(refusal, OSError):
                warnings.warn(
                    f"'{folder}' stays as it is at step {self.step}, because what it keeps cannot be read "
                    f"({refusal.strerror or refusal}).",
                    stacklevel=2,
                )
                return False
            kept = []  # damaged: no good to anybody
        return self.history[-1][figure] < min((row.get(figure, math.inf) for row in kept), default=math.inf)

    def _log(self, bar: tqdm, images_per_second: float, figures: dict[str, float]) -> None:
        means = self.take_means()
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(bad[0])
        learned = {
            f"{letter}_gamma_{layer}": float(value)
            for letter, network in (("g", self.generator), ("d", self.discriminator))
            for layer, value in learned_gammas(network).items()
        }
        row = {"step": self.step, "images": self.images, "seconds": round(self.seconds, 1)}
        row |= {name: round(value, 6) for name, value in (means | learned).items()} | figures
        row |= self.rates | {"images_per_second": round(images_per_second, 2)}
        if self.recipe.augment:  # the scores of this row are of pictures that were so changed
            row["augment"] = self.recipe.augment
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
            self._snapshot = self.step, shippable(self.averaged, self.classes)
        return self._snapshot[1]

    def draw(self) -> None:
        """Save the pictures of this step: faces from fixed noise, their attention, the curves so far."""
        generator = self.snapshot()
        name, samples = f"{self.step:06d}.png", self.out / SAMPLES
        with self._writing("The pictures"):
            samples.mkdir(parents=True, exist_ok=True)
            pictures.faces(generator, samples / f"faces-{name}", self.classes)
            pictures.attention(generator, samples / f"attention-{name}", self.classes)
            if self.history:
                pictures.curves(self.history, self.out / CURVES)

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
        tensors = self.state_dict()
        if not _finite(tensors.values()):
            raise self._diverged("a weight")
        info = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": dataclasses.asdict(self.recipe),
            "images": len(self.data),
            "fingerprint": self.data.fingerprint,
            "about": self.about,
            "before": dataclasses.asdict(self.inherited),
        }
        return tensors, info

    def _write(self, what: str, name: str, state: tuple[dict[str, Tensor], dict] | None = None) -> None:
        with self._writing(what):
            checkpoint.save(
                self.out / name,
                self.classes,
                self.snapshot(),
                plain(self.discriminator),
                self.history,
                model_card(self, self.about),
                raw_generator=plain(self.generator),
                state=state,
                companions={
                    checkpoint.FILM: self.film.ending_with(
                        self.step, self.images, self.snapshot(), self.classes
                    ),
                    checkpoint.SPECTRA: spectra.measure(self.averaged, self.discriminator),
                },
            )

    def start_from(self, folder: Path, source: str) -> None:
        """Begin with the weights of a checkpoint, its history and its film; both optimisers start anew.

        `source` is what the model card calls it. From a run's checkpoint it takes the raw generator. Weights
        get back the scale that they had before they were normalised, where the checkpoint tells it (the raw
        generator gets that of the averaged one): the scale grows in training, so the same rates turn weights
        less and less. A discriminator of another kind of loss, with or without spectral norm, starts anew, as
        do residual blocks that the checkpoint lacks. Raises CheckpointError, or TrainingError where the
        networks are different, or a run saved meanwhile.
        """
        made = checkpoint.generator_hash(folder)
        config, classes = checkpoint.load_config(folder)
        check_same_classes(folder, classes.names, self.data.class_names)
        if not config.can_become(self.config):
            raise TrainingError(
                f"The networks in '{folder}' are {config}, but this run is set up as {self.config}."
            )
        averaged = checkpoint.load_generator(folder)
        has_raw = (folder / checkpoint.RAW_GENERATOR).is_file()
        raw = checkpoint.load_generator(folder, checkpoint.RAW_GENERATOR) if has_raw else averaged
        sigmas = spectra.largest(folder, config)
        revive(self.generator, raw, under(sigmas, "generator"))
        revive(self.averaged, averaged, under(sigmas, "generator"))
        if config.d_spectral_norm == self.config.d_spectral_norm:
            discriminator = checkpoint.load_discriminator(folder)
            revive(self.discriminator, discriminator, under(sigmas, "discriminator"))
        self.history = checkpoint.read_history(folder)
        film = Film.load(folder, self.config)
        same = classes.learned == self.classes.learned
        if film and same:  # of other classes its seeds would be other faces from here on
            self.film = film.going_on()
        inherited = where_it_stood(folder, source, self.history, film.moments if film else ())
        digits = int(made[:12], 16)  # as many as a float64 holds
        most, least = self.processes.most(digits, -digits)
        if checkpoint.generator_hash(folder) != made or most != -least:
            raise TrainingError(f"The run in '{folder}' saved its checkpoint meanwhile: start again.")
        self.inherited, self.step, self.seconds = inherited, inherited.step, inherited.seconds
        self._snapshot = None

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
                f"The run in '{self.out}' was trained on images with other names or labels, or in another "
                "order: give the same --data and --labels."
            )
        tensors = checkpoint.load_tensors(folder / checkpoint.STATE, max_bytes=math.inf)
        try:
            self.load_state_dict(tensors)
        except (RuntimeError, ValueError, IndexError) as error:
            raise TrainingError(
                f"'{folder}' cannot be resumed: {checkpoint.STATE} does not fit its networks. If it is of an "
                "older version, a new run can begin with its weights: "
                f"--start-from {shlex.quote(str(self.out))}."
            ) from error
        self.step, self.seconds, self.inherited = info["step"], info["seconds"], info["before"]
        self._snapshot = None
        self.history = checkpoint.read_history(folder, max_bytes=math.inf)
        if film := Film.load(folder, self.config):
            self.film = film.going_on()
        self._may_replace = True


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


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
