"""What a run folder says of the run in it, whether another one may go on with it, and that only one does."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sagan import checkpoint
from sagan.film import Moment
from sagan.learner import Inherited, TrainingError

LOCK = ".lock"  # in the run folder, held while a run trains there
CURVES, SAMPLES = "curves.png", "samples"  # in the run folder


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= checkpoint.MOST_IMAGES


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _or_none(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or kind(value)


# What state.json must hold, and of what kind it is.
Kind = Callable[[object], bool] | dict[str, "Kind"]
STATE_KINDS: dict[str, Kind] = {
    "step": _is_count,
    "seconds": _is_number,
    "recipe": {"batch_size": _is_count, "d_steps": _is_count},
    "images": _is_count,
    "about": {},
    "before": {"step": _is_count, "images": _is_count, "seconds": _is_number, "source": _is_text},
}
# And what its "about" may hold.
ABOUT_KINDS: dict[str, Kind] = {
    "command": _or_none(_is_text),
    "data": _or_none(_are_texts),
    "crop": _or_none(_is_count),
    "labels": _or_none(_is_text),
    "label_columns": _or_none(_is_text),
    "measure_every": _is_number,
    "measure_reference": _are_texts,
    "measure_features": _is_text,
    "measure_count": _or_none(_is_count),
}


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make the run folder if it is missing, and keep other runs out: they would replace each other's files.

    New folders that stay empty are removed. Raises TrainingError where another run is in there.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("a")
    except OSError as error:
        raise TrainingError(f"--out '{out}' cannot be a folder: {error.strerror}.") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with this process, however that ends
        except BlockingIOError as error:
            raise TrainingError(f"Another process is training in '{out}': name another --out.") from error
        except (OSError, ImportError):  # a system, or a file system, without such locks
            pass
        try:
            yield
        finally:
            with suppress(OSError):  # up to the first that holds something else
                if new and [path.name for path in out.iterdir()] == [LOCK]:
                    (out / LOCK).unlink()
                    for folder in new:
                        folder.rmdir()


def refuse_checkpoint(out: Path) -> None:
    """Raise TrainingError where the folder is a checkpoint, of a run or a shipped one."""
    if (out / checkpoint.CONFIG).is_file():
        whole = out.resolve()
        inside = whole.name in (checkpoint.RUN_CHECKPOINT, checkpoint.RUN_BEST)
        instead = f"its run folder is '{whole.parent}'" if inside else "name another --out"
        raise TrainingError(f"'{out}' is a checkpoint, not a run folder: {instead}.")


def refuse_to_replace(out: Path) -> None:
    """Raise TrainingError where there is a run in the folder already."""
    parts = (checkpoint.RUN_CHECKPOINT, checkpoint.RUN_BEST)
    if any((out / part).exists() for part in parts) or checkpoint.find_local(out):
        raise TrainingError(f"There is a run in '{out}': go on with --resume, or name another --out.")


def set_aside(out: Path) -> None:
    """Rename what a new run would write over, as in history.previous.csv. Raises TrainingError."""
    for path in (out / checkpoint.HISTORY, out / CURVES, out / SAMPLES):
        try:
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                path.rename(checkpoint.previous_name(path))
        except OSError as error:
            raise TrainingError(
                f"'{path}' is in the way of a new run and cannot be set aside ({error.strerror}): "
                "name another --out."
            ) from error


def check_same_classes(folder: Path, there: Sequence[str], here: Sequence[str]) -> None:
    """Raise TrainingError where the networks in the folder have other classes than the run, by name."""
    if len(there) != len(here):
        counts = len(there) or "no", len(here) or "none"
        raise TrainingError(
            f"The checkpoint in '{folder}' has {counts[0]} classes, but this run has {counts[1]}: give "
            "the --labels and --label-columns that it was trained with, or leave them out if it has none."
        )
    if pair := next(((a, b) for a, b in zip(there, here, strict=True) if a != b), None):
        raise TrainingError(
            f"The classes in '{folder}' are not those of this run, for example '{pair[0]}' instead of "
            f"'{pair[1]}': give the same --label-columns."
        )


def check_same_reference(
    history: Sequence[dict[str, float]], inherited: Inherited, floor: Mapping[str, float]
) -> None:
    """Raise TrainingError where the run was measured against other images: the best could not be told.

    floor: the figures of the reference's two halves, with which those in the run's own history are compared.
    """
    own = (row for row in history if row.get("step", 0) > inherited.step)
    floors = [row["floor_frechet_distance"] for row in own if "floor_frechet_distance" in row]
    if not floors:
        return
    now, before = floor["frechet_distance"], floors[-1]
    comparable = math.isfinite(now) and math.isfinite(before)
    alike = math.isclose(before, now, rel_tol=0.01, abs_tol=1e-6)  # devices differ by less
    if comparable and not alike:
        raise TrainingError(
            "--measure-reference holds other images than this run was measured against: their two halves are "
            f"{now:.4g} apart, those were {before:.4g}."
        )


def read_state_info(folder: Path) -> dict:
    """state.json of a run's checkpoint, with what older runs lack filled in, and `Inherited` as "before".

    Raises TrainingError where the folder has none, or a damaged one.
    """
    try:
        info = checkpoint.read_json(folder / checkpoint.STATE_INFO, any_path=True)
    except checkpoint.CheckpointError:
        info = None
    if isinstance(info, dict):
        info = {"before": dataclasses.asdict(Inherited())} | info
        if isinstance(info.get("recipe"), dict):
            info["recipe"] = {"d_steps": 1} | info["recipe"]
    if not (_is_like(info, STATE_KINDS) and _is_like(info["about"], _named_in(info["about"]))):
        raise TrainingError(f"'{folder}' cannot be resumed: {checkpoint.STATE_INFO} is missing or damaged.")
    names = [field.name for field in dataclasses.fields(Inherited)]
    return info | {"before": Inherited(**{name: info["before"][name] for name in names})}


def where_it_stood(
    folder: Path, source: str, history: Sequence[dict[str, float]], moments: Sequence[Moment]
) -> Inherited:
    """What a run inherits of the checkpoint in the folder, whose history and film these are.

    A checkpoint with a state was saved where that says, maybe after the last row of the history. One without
    is where its history ends or its film, which may end later. Raises TrainingError for a damaged state.
    """
    if (folder / checkpoint.STATE_INFO).is_file():
        info = read_state_info(folder)
        step, earlier, recipe = info["step"], info["before"], info["recipe"]
        images = earlier.images + (step - earlier.step) * recipe["batch_size"] * recipe["d_steps"]
        return Inherited(step, images, info["seconds"], source)
    row = history[-1] if history else {}
    step, images = (
        max(int(last.get(name, 0)) for last in (row, *moments[-1:])) for name in ("step", "images")
    )
    return Inherited(step, images, row.get("seconds", 0.0), source)


def _named_in(about: dict) -> dict[str, Kind]:
    return {name: kind for name, kind in ABOUT_KINDS.items() if name in about}


def _is_like(value: object, kind: Kind) -> bool:
    """Whether a value is of this kind; a dictionary's must have these keys, and may have more."""
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(_is_like(value.get(key), kind[key]) for key in kind)
    return kind(value)
