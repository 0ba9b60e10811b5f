"""The checkpoint folder: write it atomically, read it safely, find it on disk or on the Hugging Face Hub.

    config.json                    SaganConfig, format version; of classes, their names and numbers of images;
                                   the SHA-256 of the model card as it was written
    generator.safetensors          averaged over training; matrices in fp16, the rest in fp32
    discriminator.safetensors      the same for the discriminator, not averaged
    generator_raw.safetensors      the generator of the last step, not averaged; only in a run
    history.csv                    step, images, losses, gammas, metrics
    model_card.md                  what it was trained on, how, and what it is not for

Weights are normalised already, but for those of a discriminator without spectral norm, as WGAN-GP wants it.
Companion files (film.safetensors and spectra.safetensors of the training, average_maps.safetensors, curated
seeds) carry the SHA-256 of the generator they belong to. A run keeps its checkpoint in `checkpoint/`, with
`state.safetensors` and `state.json` in it: all that is needed to go on; and the best one it measured, without
those, in `best/`. Anything else put there stays when the run replaces them, and a card that was changed is
kept as `model_card.previous.md`.
"""

import csv
import dataclasses
import errno
import glob
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import stat
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sagan.classes import Classes
from sagan.networks import Discriminator, Generator, Network, SaganConfig

FORMAT_VERSION = 1
CONFIG, HISTORY, CARD = "config.json", "history.csv", "model_card.md"
GENERATOR, DISCRIMINATOR, RAW_GENERATOR = (
    f"{name}.safetensors" for name in ("generator", "discriminator", "generator_raw")
)
SHIPPED = (CONFIG, GENERATOR, DISCRIMINATOR, HISTORY, CARD)
FILM, SPECTRA, AVERAGE_MAPS = "film.safetensors", "spectra.safetensors", "average_maps.safetensors"
CURATED = "curated.json"
COMPANIONS = (FILM, SPECTRA, AVERAGE_MAPS, CURATED)
STATE, STATE_INFO = "state.safetensors", "state.json"
OF_RUN = (*SHIPPED, RAW_GENERATOR, FILM, SPECTRA, AVERAGE_MAPS, STATE, STATE_INFO)  # maps are made anew
RUN_CHECKPOINT, RUN_BEST = "checkpoint", "best"
MAX_BYTES, MAX_HISTORY_BYTES, MAX_TEXT_BYTES = 1 << 30, 1 << 26, 1 << 24
MOST_IMAGES = 2**53  # or steps: browsers count no further
HEADER_BYTES = 1 << 20  # more than a file of weights has beside them
# Names of files that something did not finish with.
LEFT_OVER = re.compile(r"\.(fuse_hidden|nfs|.*\.new-[0-9a-f]{8}(\.|$))")
Value = TypeVar("Value")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, said in one sentence."""


# Finding


def find(source: str | Path) -> Path:
    """The checkpoint folder that `source` names: a folder, a run folder, or a Hub id "owner/name".

    Raises CheckpointError where there is none.
    """
    folder = Path(source)
    try:
        str(folder).encode()
        there = find_local(folder)
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{str(source)!r} is not text in UTF-8, which checkpoints need.") from error
    except OSError as error:  # too long a name, or a folder that this user may not see
        raise CheckpointError(f"No checkpoint at '{source}': {error.strerror}.") from error
    if there:
        return there
    if folder.is_file():
        raise CheckpointError(f"'{source}' is a file: name the folder that it is in, '{folder.parent}'.")
    # "checkpoints/faces" beside other checkpoints names a folder, whoever owns that name on the Hub.
    if not folder.parent.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        return _download(str(source))
    what = "has no config.json" if folder.is_dir() else "does not exist"
    raise CheckpointError(
        f"No checkpoint at '{source}': the folder {what}. "
        "Train one with train.py, or name another folder or a Hub id."
    )


def find_local(folder: Path) -> Path | None:
    """The checkpoint of a run folder, or the folder itself if it is one; None where there is none."""
    for candidate in (folder / RUN_CHECKPOINT, folder):
        for place in (candidate, _previous(candidate)):
            if (place / CONFIG).is_file():
                return place
    return None


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    files = (*SHIPPED, *COMPANIONS, RAW_GENERATOR, STATE_INFO)
    # By their names: another repository may hold hundreds of gigabytes of weights, also as safetensors.
    wanted = [f"{folder}{file}" for folder in ("", f"{RUN_CHECKPOINT}/") for file in files]
    _check_on_hub(name, wanted)
    try:
        snapshot = Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # those of its HTTP library have no common ancestor across releases
        raise CheckpointError(
            f"No checkpoint at '{name}': no such folder, and the Hugging Face Hub did not deliver it "
            f"({type(error).__name__})."
        ) from error
    if there := find_local(snapshot):
        return there
    raise CheckpointError(f"No checkpoint at '{name}': that repository of the Hub has no config.json.")


def _check_on_hub(name: str, wanted: Collection[str]) -> None:
    """Refuse a Hub repository whose wanted files are larger than what is read, before they are downloaded."""
    from huggingface_hub import model_info

    try:
        files = model_info(name, files_metadata=True, timeout=10).siblings or ()
    except Exception:  # no network, or no such repository: the download knows, and may have been made before
        return
    kinds = {".safetensors": MAX_BYTES, ".csv": MAX_HISTORY_BYTES}
    for file in files:
        max_bytes = kinds.get(Path(file.rfilename).suffix, MAX_TEXT_BYTES)
        if file.rfilename in wanted and (file.size or 0) > max_bytes:
            raise _too_large(f"{name}/{file.rfilename}", max_bytes)


# Reading


def load_config(folder: Path) -> tuple[SaganConfig, Classes]:
    """The configuration and the classes. Raises CheckpointError."""
    path = folder / CONFIG
    stored = _read_config(path)
    try:
        config = SaganConfig(**stored["model"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' does not describe a network that can be built: {error}.") from error
    names = stored.get("class_names", [])
    if not isinstance(names, list) or len(names) != config.num_classes:
        raise CheckpointError(
            f"'{path}' must name the classes of the model in a list of {config.num_classes}, as class_names."
        )
    counts = stored.get("class_counts", [])
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or (counts and not (len(counts) == len(names) and 0 < sum(counts) <= MOST_IMAGES)):
        raise CheckpointError(
            f"'{path}' must give a number of images for each of its {len(names)} classes, as class_counts."
        )
    return config, Classes(tuple(str(name) for name in names), tuple(counts))


def _read_config(path: Path) -> dict:
    stored = read_json(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("model"), dict):
        raise CheckpointError(f"'{path}' does not describe a SAGAN checkpoint.")
    if stored.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"'{path}' has format version {stored.get('format_version')!r}, but this program reads "
            f"version {FORMAT_VERSION}."
        )
    return stored


def read_json(path: Path, any_path: bool = False) -> Any:
    """What a JSON file of a checkpoint says, all of which can be written again. Raises CheckpointError.

    With any_path it may hold lone surrogates, with which Python spells a path that is not UTF-8.
    """
    text = _read_text(path)
    try:
        stored = json.loads(text)
        if not any_path:
            json.dumps(stored, ensure_ascii=False).encode()  # "\ud800" is half a letter
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is not valid JSON: {error}.") from error
    return stored


def load_generator(folder: Path, name: str = GENERATOR) -> Generator:
    """The generator in eval mode, float32, its weights normalised already. Raises CheckpointError."""
    return _load_network(Generator, folder, name)


def load_discriminator(folder: Path) -> Discriminator:
    """The discriminator, as `load_generator` gives the generator."""
    return _load_network(Discriminator, folder, DISCRIMINATOR)


def _load_network(kind: type[Network], folder: Path, name: str) -> Network:
    config, _ = load_config(folder)
    with torch.device("meta"):  # no memory is taken before the file is known to fit
        network = kind(config, spectral=False)
    expected = network.state_dict()
    path = folder / name
    # Keys had a bias once, which no softmax saw (sagan.layers.SelfAttention).
    biases = {key.replace(".weight", ".bias") for key in expected if key.endswith(".key.weight")}
    tensors = load_tensors(path, {key: tuple(value.shape) for key, value in expected.items()}, without=biases)
    whole = {key for key, value in expected.items() if not value.is_floating_point()}
    try:
        tensors = {key: value.long() if key in whole else value.float() for key, value in tensors.items()}
    except RuntimeError as error:  # of four bits each
        raise CheckpointError(f"'{path}' holds weights of a type that is not read.") from error
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise CheckpointError(f"'{path}' holds weights that are not finite numbers.")
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def load_tensors(
    path: Path,
    expected: dict[str, tuple[int, ...]] | None = None,
    max_bytes: float = MAX_BYTES,
    without: Collection[str] = (),
) -> dict[str, Tensor]:
    """All tensors of a safetensors file, once their names and shapes are known to be the expected ones.

    Those named in `without` may be there or not, and are left out. Raises CheckpointError for any other file,
    one that is larger than max_bytes, and where there is none.
    """
    try:
        _check_file(path, max_bytes)
        with _open_tensors(path) as file:
            names = [key for key in file.keys() if key not in without]  # noqa: SIM118
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in names}
            if expected is not None:
                check_fits(path, shapes, expected)
            # Copies: what it gives is the file itself, which could not be removed everywhere, nor changed.
            return {key: file.get_tensor(key).clone() for key in names}
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' is missing.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"'{path}' is not a safetensors file, or only a part of one.") from error
    except NotImplementedError as error:  # PyTorch 2.8 cannot even copy those of four bits each
        raise CheckpointError(f"'{path}' holds weights of a type that is not read.") from error


def _open_tensors(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except RuntimeError as error:  # torch opens it a second time, when a run may have replaced it
        if "No such file" not in str(error):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error


def check_fits(path: Path, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    """Raise CheckpointError where a file has other tensors than expected, each described by name."""
    if found != expected:
        odd = next(name for name in {**expected, **found} if found.get(name) != expected.get(name))
        raise CheckpointError(
            f"'{path}' does not fit its config.json: '{odd}' is {found.get(odd, 'missing')}, "
            f"expected {expected.get(odd, 'no such tensor')}."
        )


def read_history(folder: Path, max_bytes: float = MAX_HISTORY_BYTES) -> list[dict[str, float]]:
    """The rows of history.csv as numbers; empty where there is none. Raises CheckpointError.

    max_bytes is for what others may have written; a run reads its own at any size. Raises FileNotFoundError
    where it vanishes meanwhile, as when a run replaces its checkpoint.
    """
    path = folder / HISTORY
    try:
        if not path.is_file():
            return []
        _check_file(path, max_bytes)
        _check_place(path)
        with path.open(newline="") as file:
            return [
                {key: _number(key, value) for key, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
    except (FileNotFoundError, CheckpointError):
        raise
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.") from error
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise CheckpointError(f"'{path}' is not a table of numbers: {error}.") from error


def _number(name: str, text: str) -> int | float:
    number = float(text)
    if name in ("step", "images") and not 0 <= number <= MOST_IMAGES:
        raise ValueError(f"{name} is {number}")
    return int(text) if text.isdigit() and number < 2**63 else number


def read_card(folder: Path) -> str:
    """The model card in Markdown; empty where there is none. Raises CheckpointError."""
    path = folder / CARD
    return _read_text(path) if path.is_file() else ""


def _read_text(path: Path) -> str:
    try:
        _check_file(path, MAX_TEXT_BYTES)
        _check_place(path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' is missing.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.") from error


def _check_file(path: Path, max_bytes: float) -> None:
    """Refuse unread what is too large, a device or a pipe. Raises OSError where there is nothing."""
    about = path.stat()
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):  # it may have no end
        raise CheckpointError(f"'{path}' is a device or a pipe, not a file.")
    if about.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _too_large(path: Path | str, max_bytes: float) -> CheckpointError:
    return CheckpointError(f"'{path}' is larger than {max_bytes / 2**20:.0f} MiB, the most that is read.")


def _check_place(path: Path) -> None:
    """Refuse a link out of the checkpoint: what it leads to would be shown to every visitor of the page.

    The Hub's own links, from "models--OWNER--NAME/snapshots/COMMIT" to a "blobs" above it, are none.
    """
    folder, leads_to = path.parent.resolve(), path.resolve().parents
    of_hub = any(place.name == "blobs" and place.parent in folder.parents for place in leads_to)
    if leads_to[0] != folder and not of_hub:
        raise CheckpointError(f"'{path}' is a link that leads out of its folder: put a copy there.")


# Companion files


def generator_hash(folder: Path) -> str:
    """The SHA-256 of generator.safetensors in hexadecimal. Raises CheckpointError where there is none."""
    path = folder / GENERATOR
    try:
        _check_file(path, MAX_BYTES)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"'{path}' is missing or cannot be read.") from error


def companion(folder: Path, name: str) -> Path | None:
    """The path of a companion file of this generator; None, with a warning, if it is another's."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        if path.suffix == ".json":
            belongs_to = read_json(path)["generator_sha256"]
        else:
            _check_file(path, MAX_BYTES)
            with _open_tensors(path) as file:
                belongs_to = (file.metadata() or {})["generator_sha256"]
    except (ValueError, KeyError, TypeError, OSError, SafetensorError):
        belongs_to = None
    if belongs_to == generator_hash(folder):
        return path
    warnings.warn(f"'{path}' was made for another generator or is damaged, and is left out.", stacklevel=2)
    return None


def read_companion(folder: Path, name: str, what: str, read: Callable[[Path], Value]) -> Value | None:
    """What `read` makes of a companion file; None where there is none.

    Where `read` raises CheckpointError: None, with a warning that `what`, "The film is", left out.
    """
    path = companion(folder, name)
    try:
        return None if path is None else read(path)
    except CheckpointError as error:
        warnings.warn(f"{what} left out: {error}", stacklevel=3)  # whoever asked for what is read
        return None


def add_companion(
    folder: Path, name: str, tensors: dict[str, Tensor], generator_sha256: str, about: dict[str, str]
) -> None:
    """Write a companion file beside a finished checkpoint in one step; `about` goes into its header too.

    Raises CheckpointError where the generator is no longer the one they were made with, OSError where the
    disk refuses; in both cases what was there before stays.
    """
    if generator_hash(folder) != generator_sha256:
        raise CheckpointError(
            f"The generator in '{folder}' was replaced while '{name}' was made: make it again."
        )
    about = {**about, "generator_sha256": generator_sha256}
    replace_file(folder / name, lambda new: _save_tensors(tensors, new, about))


# Writing


def save(
    folder: Path,
    classes: Classes,
    generator: Generator,
    discriminator: Discriminator,
    history: list[dict[str, float]],
    card: str,
    raw_generator: Generator | None = None,
    state: tuple[dict[str, Tensor], dict] | None = None,
    companions: Mapping[str, dict[str, Tensor]] | None = None,
) -> None:
    """Write a checkpoint in one step; the networks are plain ones (see `sagan.export`).

    state adds what a run needs to go on: tensors for state.safetensors and JSON data for state.json.
    companions are the tensors of companion files by name; each receives the hash of this generator. What the
    folder holds beside a run's own files stays, and so does a model card that is not as it was written.
    Raises OSError where the disk refuses; what was there before stays.
    """
    recover(folder)
    with replacing_folder(folder, OF_RUN, keeps_card=not _has_card_as_written(folder)) as new:
        described = {"format_version": FORMAT_VERSION, "model": dataclasses.asdict(generator.config)}
        described["class_names"] = list(classes.names)
        if classes.counts:
            described["class_counts"] = list(classes.counts)
        described["card_sha256"] = hashlib.sha256(card.encode(errors="replace")).hexdigest()
        (new / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
        networks = {GENERATOR: generator, DISCRIMINATOR: discriminator, RAW_GENERATOR: raw_generator}
        for name, network in networks.items():
            if network is not None:
                _save_tensors(_compact(network), new / name)
        for name, tensors in (companions or {}).items():
            _save_tensors(tensors, new / name, {"generator_sha256": generator_hash(new)})
        write_history(new / HISTORY, history)
        (new / CARD).write_text(card, encoding="utf-8", errors="replace")  # it may quote any file name
        if state is not None:
            tensors, info = state
            tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            _save_tensors(tensors, new / STATE)
            (new / STATE_INFO).write_text(json.dumps(info, indent=2) + "\n")


def _has_card_as_written(folder: Path) -> bool:
    """Whether nobody has changed the model card since it was saved."""
    try:
        written = _read_config(folder / CONFIG).get("card_sha256")
        return hashlib.sha256((folder / CARD).read_bytes()).hexdigest() == written
    except (CheckpointError, OSError):
        return False


def _save_tensors(tensors: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    try:
        path.touch()  # or it would be made for its owner's eyes alone
        mode = path.stat().st_mode
        save_file(tensors, path, about)
        path.chmod(mode)
    except SafetensorError as error:  # what it raises when the disk is full; the number is in its words
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise OSError(str(error)) from error


def stored_bytes(network: nn.Module) -> int:
    """How much the weights of a plain network, also one on the meta device, take in a checkpoint."""
    state = network.state_dict().values()
    return sum(value.numel() * (2 if value.ndim >= 2 else value.element_size()) for value in state)


def _compact(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are stored: two or more dimensions in fp16, all else as it is."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    return {key: value.half() if value.ndim >= 2 else value for key, value in state.items()}


def write_history(path: Path, rows: Sequence[Mapping[str, float | str]]) -> list[str]:
    """Write rows as CSV in one step; returns the columns, in the order in which rows first name them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(new: Path) -> None:
        with new.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, write)
    return columns


def add_to_history(path: Path, rows: list[dict[str, float]], columns: list[str]) -> list[str]:
    """Write the last of rows below the others, which `write_history` wrote with these columns.

    Where that is not so, or the row has a column of its own, all are written. Returns the columns.
    """
    *_, row = rows
    if not path.is_file() or not row.keys() <= set(columns):
        return write_history(path, rows)
    with path.open("a", newline="") as file:
        csv.DictWriter(file, columns).writerow(row)
    return columns


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file beside `path`, then put it in the place of `path` in one step."""
    token = secrets.token_hex(4)  # not the process: its threads may write the same file
    new = path.with_name(f".{path.stem}.new-{token}{path.suffix}")
    try:
        write(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def previous_name(path: Path) -> Path:
    """A free name for what another takes the place of: name.previous.md, name.previous-2.md and so on."""
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (path.with_name(f"{path.stem}.previous{suffix}{path.suffix}") for suffix in suffixes)
    return next(name for name in names if not os.path.lexists(name))


@contextmanager
def replacing_folder(folder: Path, own: Collection[str] = (), keeps_card: bool = False) -> Iterator[Path]:
    """Yield a new folder; when the block ends well, it is synced and takes the place of `folder`.

    What `folder` holds that is neither in the new one nor named in `own` is carried over, and its model card
    where keeps_card says so, under another name. A warning tells what cannot be: another user's folder, which
    is left where the old one lay, in `.name.previous`.

    A crash at any moment leaves the old folder or the new one: between both renames the old one stands beside
    it as `.name.previous`, where `find` looks too.
    """
    folder = Path(os.path.realpath(folder))  # what a link leads to is replaced, not the link
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    previous = _previous(folder)
    for kind in ("new", "old"):
        for left_over in folder.parent.glob(f".{glob.escape(folder.name)}.{kind}-*"):
            shutil.rmtree(left_over, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
    token = secrets.token_hex(4)
    if previous.exists():  # NFS and FUSE keep a file as long as somebody has it open
        previous.rename(folder.with_name(f".{folder.name}.old-{token}"))
    new = folder.with_name(f".{folder.name}.new-{token}")
    new.mkdir()
    refused: dict[str, str] = {}
    try:
        if folder.is_dir():
            _copy_mode(folder, new)
        yield new
        for path in new.iterdir():
            _sync(path)
        if folder.is_dir():
            refused = _carry_over(folder, new, own, keeps_card)
        _sync(new)
        if folder.exists():
            folder.rename(previous)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        recover(folder)
        raise
    for name, kept in refused.items():
        try:
            (previous / name).rename(folder / kept)
        except OSError as error:
            warnings.warn(f"'{folder / name}' could not be kept: {error.strerror}.", stacklevel=3)
    _sync(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _carry_over(folder: Path, new: Path, own: Collection[str], keeps_card: bool) -> dict[str, str]:
    """Returns what may be neither linked nor copied, and so is not in `new`: {name: name to keep it by}."""
    names = {path.name: path.name for path in folder.iterdir() if path.name not in own}
    if keeps_card and os.path.lexists(folder / CARD):
        names[CARD] = previous_name(folder / CARD).name
    refused = {}
    for name, kept in names.items():
        if os.path.lexists(new / kept):
            continue
        try:
            _carry(folder / name, new / kept)
        except (PermissionError, shutil.SpecialFileError):
            shutil.rmtree(new / kept, ignore_errors=True)
            (new / kept).unlink(missing_ok=True)
            refused[name] = kept
    return refused


def _carry(path: Path, to: Path) -> None:
    """Let what is at `path` be at `to` as well: the files themselves, or copies where the disk cannot."""
    if LEFT_OVER.match(path.name):
        return
    if path.is_dir() and not path.is_symlink():
        to.mkdir()
        _copy_mode(path, to)
        for part in path.iterdir():
            _carry(part, to / part.name)
        _sync(to)
        return
    with suppress(FileNotFoundError):  # an editor's own, perhaps
        try:
            os.link(path, to, follow_symlinks=False)
        except OSError:
            shutil.copy2(path, to, follow_symlinks=False)
            if not to.is_symlink():
                _sync(to)


def _copy_mode(folder: Path, to: Path) -> None:
    """Let the same people into the folder `to`, and its owner in any case."""
    with suppress(OSError):  # a disk without permissions
        to.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IRWXU)


def recover(folder: Path) -> None:
    """Put `folder` back where a crash in `replacing_folder` left only its predecessor."""
    if _previous(folder).exists() and not folder.exists():
        _previous(folder).rename(os.path.realpath(folder))


def _previous(folder: Path) -> Path:
    folder = Path(os.path.realpath(folder))
    return folder.parent / f".{folder.name}.previous"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
