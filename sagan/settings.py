"""What a run of train.py is to be: the options, a preset and the run that goes on, settled as one plan."""

import dataclasses
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan import checkpoint
from sagan.data import class_names, reads
from sagan.learner import TrainingError
from sagan.metrics import INCEPTION
from sagan.networks import SaganConfig, includes
from sagan.recipe import PRESETS, Intervals, Recipe
from sagan.resuming import SAMPLES, check_same_classes, read_state_info

Settings = dict[str, Any]  # by the names of the options; one that is not given is absent

RESIDUAL_OPTIONS = ("g_residual", "d_residual")
MODEL_OPTIONS = (
    *("image_size", "z_dim", "g_width", "d_width", "g_attention", "d_attention"),
    *RESIDUAL_OPTIONS,
)
DATA_OPTIONS = ("data", "crop", "labels", "label_columns")
RECIPE_OPTIONS = tuple(field.name for field in dataclasses.fields(Recipe))
INTERVAL_OPTIONS = tuple(field.name for field in dataclasses.fields(Intervals))
WHETHER_MEASURED, HOW_MEASURED = ("measure_every", "measure_reference"), ("measure_features", "measure_count")
MEASURE_OPTIONS = (*WHETHER_MEASURED, *HOW_MEASURED)
PATH_OPTIONS = ("--data", "--out", "--labels", "--start-from", "--measure-reference")
SETTINGS = (*MODEL_OPTIONS, *RECIPE_OPTIONS, *DATA_OPTIONS, *MEASURE_OPTIONS, *INTERVAL_OPTIONS)
# On --resume: the length, where the images lie, and what never changes what is learned.
MAY_CHANGE = ("steps", "minutes", "data", "labels", "measure_every", "measure_reference", *INTERVAL_OPTIONS)


@dataclass(frozen=True)
class Measuring:
    """How often a run is measured, against what, and by what."""

    kimg: float  # thousand images from one time to the next
    reference: tuple[Path, ...]
    features: str  # as `sagan.metrics.load_features` takes them
    count: int | None  # images on each side; None: as many as `Measurement` takes by default


@dataclass(frozen=True)
class Plan:
    """All that is settled of a run before its images are read."""

    config: SaganConfig  # without the classes, which the data tell
    recipe: Recipe
    data: tuple[Path, ...]
    crop: int | None
    labels: str | None
    label_columns: tuple[str, ...]
    measuring: Measuring | None
    intervals: Intervals
    start_from: tuple[Path, str] | None  # the checkpoint to begin with, and what the model card calls it
    about: Settings  # what the run's checkpoints keep for --resume, and the command for the model card


def plan_run(given: Mapping[str, Any]) -> Plan:
    """Every setting as it is given, else as the preset has it, else as the run was started, else by default.

    given: the options of train.py by name, where nothing but "out", "resume" and "words", the command line,
    must be. Raises TrainingError, CheckpointError or DataError for what does not go together.
    """
    stored = _stored(given["out"]) if given["resume"] else {}
    settings = _settings(given, stored)
    columns = tuple(_split(settings.get("label_columns") or ""))
    start_from = None
    if (named := given.get("start_from")) is not None:
        if given["resume"]:
            raise TrainingError("--resume goes on with the weights of the run: leave out --start-from.")
        folder = checkpoint.find(named)
        config, classes = checkpoint.load_config(folder)
        check_same_classes(folder, classes.names, class_names(settings.get("labels"), columns))
        settings |= _networks_of(config, named, settings)
        start_from = folder, Path(named).resolve().name if Path(named).exists() else named
    _check_place(given["out"], settings)
    try:
        config = SaganConfig(**_some(settings, MODEL_OPTIONS))
        recipe = Recipe(**_some(settings, RECIPE_OPTIONS))
    except ValueError as error:
        raise TrainingError(str(error)) from error
    about = {"command": _command(given["words"], stored.get("command") or "")}
    about |= {name: settings.get(name) for name in DATA_OPTIONS}
    about |= _some(settings, (*INTERVAL_OPTIONS, *MEASURE_OPTIONS))
    return Plan(
        config,
        recipe,
        data=tuple(map(Path, settings["data"])),
        crop=settings.get("crop"),
        labels=settings.get("labels"),
        label_columns=columns,
        measuring=_measuring(given, settings),
        intervals=Intervals(**_some(settings, INTERVAL_OPTIONS)),
        start_from=start_from,
        about=about,
    )


def _stored(out: Path) -> Settings:
    """The settings with which the run in `out` was started, and its command."""
    folder = checkpoint.find(out.absolute())  # never a Hub id
    info = read_state_info(folder)
    config, _ = checkpoint.load_config(folder)
    about = {name: info["about"].get(name) for name in (*DATA_OPTIONS, "command")}
    # A run that never measured has nothing stored of it, and may begin; one from Python may lack intervals.
    about |= _some(info["about"], (*MEASURE_OPTIONS, *INTERVAL_OPTIONS))
    for name, steps in _some(about, INTERVAL_OPTIONS).items():
        if type(steps) is not int or steps < 1:
            raise TrainingError(f"The {name} of the run in '{out}' is damaged: it is {steps!r}.")
    try:
        recipe = Recipe(**_some(info["recipe"], RECIPE_OPTIONS))  # an older run trained with no newer option
    except ValueError as error:
        raise TrainingError(f"The recipe of the run in '{out}' is damaged: {error}.") from error
    return dataclasses.asdict(recipe) | _some(dataclasses.asdict(config), MODEL_OPTIONS) | about


def _settings(given: Mapping[str, Any], stored: Settings) -> Settings:
    """All settings: as they are given, else as the preset has them, else as `stored`, else by default."""
    settings = PRESETS[given["preset"]] if "preset" in given else {}
    settings = settings | _some(given, SETTINGS)
    for name, value in settings.items():
        if name in stored and name not in MAY_CHANGE and json.dumps(value) != json.dumps(stored[name]):
            before = "its default" if stored[name] is None else stored[name]
            by = "" if name in given else f" by --preset {given['preset']}"
            raise TrainingError(
                f"{_option(name)} is {value} now{by}, but the run in '{given['out']}' was started "
                f"with {before}: leave it out, or start a new run."
            )
    if "minutes" in given or "steps" in given:
        settings = {"steps": None, "minutes": None} | settings
    if settings.get("measure_every") == 0:
        del settings["measure_every"]
        stored = {name: value for name, value in stored.items() if name not in WHETHER_MEASURED}
    settings = PRESETS["sagan"] | dataclasses.asdict(Intervals()) | stored | settings
    if settings.keys() & {*MEASURE_OPTIONS}:
        settings = {"measure_features": INCEPTION} | settings
    if not settings.get("data"):
        raise TrainingError("Say which images to train on: --data FOLDER_OR_ZIP.")
    return settings


def _networks_of(config: SaganConfig, named: str, settings: Settings) -> Settings:
    """The networks of --start-from's checkpoint, but for the residual blocks that the settings have already.

    Raises TrainingError where the settings have other networks.
    """
    networks = {}
    for name in MODEL_OPTIONS:
        value = getattr(config, name)
        if name in RESIDUAL_OPTIONS and name in settings:
            if not includes(settings[name], value):
                raise TrainingError(
                    f"{_option(name)} is {_joined(settings[name])}, but must name all that "
                    f"'{named}' was trained with ({_joined(value)}) and may add more."
                )
            continue
        if name in settings and settings[name] != value:
            raise TrainingError(
                f"{_option(name)} is {settings[name]}, but '{named}' was trained with {value}: leave it out."
            )
        networks[name] = value
    return networks


def _check_place(out: Path, settings: Settings) -> None:
    """Refuse a run folder that could not be read again, or whose pictures would be taken for data."""
    try:
        str(out.resolve()).encode()
    except UnicodeEncodeError as error:
        raise TrainingError(f"--out {str(out)!r} is not text in UTF-8, which checkpoints need.") from error
    for source in [*settings["data"], *(settings.get("measure_reference") or ())]:
        if reads(source, out / SAMPLES):
            raise TrainingError(
                f"The pictures of the run folder '{out}' would be inside '{source}' and be taken for data: "
                "choose another --out."
            )


def _measuring(given: Mapping[str, Any], settings: Settings) -> Measuring | None:
    # A run that is no longer measured keeps the features and the count, for when it is again.
    if not settings.keys() & {*WHETHER_MEASURED} and not given.keys() & {*HOW_MEASURED}:
        return None
    if not settings.keys() >= {*WHETHER_MEASURED}:
        raise TrainingError(
            "Measuring needs both --measure-every KIMG and --measure-reference FOLDER_OR_ZIP."
        )
    features = settings["measure_features"]
    if features != INCEPTION and "measure_features" not in given:  # the run may be somebody else's
        raise TrainingError(
            f"The run in '{given['out']}' is measured by code, '{features}': if you trust it, give "
            f"--measure-features {shlex.quote(features)} again; --measure-every 0 ends measuring."
        )
    return Measuring(
        settings["measure_every"],
        tuple(map(Path, settings["measure_reference"])),
        features,
        settings.get("measure_count"),
    )


def _command(words: Sequence[str], earlier: str) -> str:
    """This command after those that the run had before, for the model card; a repeated one stands once."""
    command = shlex.join(["python", "train.py", *_without_folders(words)])
    if command in earlier.split(" && "):
        return earlier
    return f"{earlier} && {command}" if earlier else command


def _without_folders(words: Sequence[str]) -> Iterator[str]:
    """--out=/somewhere/run -> --out=run: a model card names no places of this machine.

    Only what stands at an option that takes a path, and is one there, is shortened.
    """
    named = ""
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        named = option or named
        is_place = any(path.startswith(named) for path in PATH_OPTIONS) and os.sep in value  # "--measure-r"
        yield f"{option}{equals}{_last_part(value) if is_place and Path(value).exists() else value}"


def _last_part(path: str) -> str:
    return Path(os.path.abspath(path)).name or path  # noqa: PTH100 - what a link is called, not what it leads to


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _split(names: str) -> Iterator[str]:
    return (name.strip() for name in names.split(",") if name.strip())


def _joined(sides: Iterable[int]) -> str:
    """As an option takes them: (8, 16, 16) -> "8,16,16"."""
    return ",".join(map(str, sides)) or "''"


def _some(settings: Mapping[str, Any], names: Iterable[str]) -> Settings:
    """Those of these names that are there."""
    return {name: settings[name] for name in names if name in settings}
