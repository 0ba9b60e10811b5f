"""Images on disk -> batches of (N, 3, S, S) in [-1, 1], with labels.

Every image is decoded once, into a memory map of bytes that later runs just open. What changes from update to
update (order, flips, floats) is made a batch at a time and depends only on the seed and the update.
"""

import csv
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import tempfile
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import AvifImagePlugin, Image, ImageOps
from torch import Tensor
from tqdm import tqdm

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".avif": "AVIF"}
MAX_UNREADABLE = 0.01  # share of the images
MAX_FILE_BYTES = 1 << 28  # of one in a zip, which may unpack to a thousand times its size there
MAX_ASPECT = 100  # of the longer side to the shorter one: resizing a thread of pixels would take gigabytes
MAX_LABEL_COLUMNS = 13  # 8,192 classes
WORKERS = min(os.cpu_count() or 1, 32)  # threads that decode images
BUILDING = "decoding-"  # begins the name of a folder in the cache that is being filled
CACHE_VERSION = 1  # to be raised when the same files would decode to other bytes

# Images are decoded side by side, so threads inside one AVIF image only cost (measured: two thirds).
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class DataError(ValueError):
    """Training data that can't be used; the message is one sentence that says what to do."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images: uint8 (N, S, S, 3), labels int64 (N,) or None, and the name of each class.

    fingerprint: of the file names in their order and of the labels, wherever the files lie; "" is unknown.
    Raises DataError where these do not fit together.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        images, labels, classes = self.images, self.labels, len(self.class_names)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (images.shape[1],) * 2 + (3,):
            raise DataError(
                f"images must be uint8 of shape (N, S, S, 3), but are {images.dtype} of shape {images.shape}"
            )
        if labels is None and not classes:
            return
        if labels is None or labels.shape != (len(images),) or labels.dtype != np.int64:
            given = "none were" if labels is None else f"{labels.dtype} of shape {labels.shape} were"
            raise DataError(f"{len(images)} images need as many labels, int64, but {given} given")
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(
                f"labels run from {labels.min()} to {labels.max()}, but there are {classes} class_names"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many images each class has; () without labels."""
        if self.labels is None:
            return ()
        return tuple(np.bincount(self.labels, minlength=len(self.class_names)).tolist())


def load_images(
    sources: str | Path | Sequence[str | Path],
    image_size: int,
    crop: int | None = None,
    labels: str | Path | None = None,
    label_columns: str | Sequence[str] = (),
    workers: int = WORKERS,
    cache: str | Path = ".cache/images",
) -> ImageSet:
    """Decode the images of all sources to image_size x image_size, or open what an earlier call decoded.

    A source is a folder, searched to any depth, or a .zip, holding jpg, png, webp or avif files. `crop` is
    the side in pixels of the centre square that is cut out before the resize; without it the shorter side is
    resized and the centre kept. EXIF orientation is applied, and transparent images are put on white.
    `labels` is a CSV file whose first column is the file name; each of `label_columns` gives one bit of the
    class (1 above 0.5), the first column the highest.

    Raises DataError for data that can't be used. Up to 1 percent of broken images are left out with a warning
    that names them; one that the disk refuses is an error. Files of other kinds are counted in a warning.
    """
    if crop is not None and crop < 1:
        raise DataError(f"crop is {crop}, but must be a number of pixels from 1 up")
    sources = [sources] if isinstance(sources, str | Path) else sources
    label_columns = [label_columns] if isinstance(label_columns, str) else label_columns
    files = _list_files(sources)
    names = class_names(labels, label_columns)
    classes = None if labels is None else _read_labels(Path(labels), label_columns, files)

    entry = Path(cache) / _cache_key(files, image_size, crop)
    if (unreadable := _left_out(entry, len(files), image_size)) is None:
        _decode_all(files, image_size, crop, workers, entry)
        unreadable = _left_out(entry, len(files), image_size)
    if unreadable is None:
        raise DataError(f"the decoded images in {entry} were removed meanwhile; start again")
    if unreadable:
        named = ", ".join(f"{files[i]} ({reason})" for i, reason in unreadable.items())
        warnings.warn(
            f"left out {len(unreadable)} of {len(files)} images as unreadable: {named}", stacklevel=2
        )

    kept = [i for i in range(len(files)) if i not in unreadable]
    try:
        images = np.memmap(entry / "images.u8", np.uint8, "r", shape=(len(kept), image_size, image_size, 3))
    except OSError as error:
        raise DataError(f"the decoded images in {entry} cannot be read: {error}") from error
    of_kept = None if classes is None else classes[kept]
    return ImageSet(images, of_kept, names, _fingerprint([files[i] for i in kept], of_kept))


def class_names(labels: str | Path | None, columns: Sequence[str]) -> tuple[str, ...]:
    """("Male", "Smiling") -> ("not Male, not Smiling", "not Male, Smiling", ...): class 0, class 1, ...

    () where there are neither labels nor columns. Raises DataError where there is one without the other, for
    too many columns, and for one that is named twice; the file is not read.
    """
    if (labels is None) != (not columns):
        raise DataError("labels need both a CSV file and at least one of its columns, but only one was given")
    if len(columns) > MAX_LABEL_COLUMNS:
        raise DataError(
            f"{len(columns)} label columns were given, but at most {MAX_LABEL_COLUMNS} are possible"
        )
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise DataError(f"the label column {twice!r} was given twice; name each once")
    if not columns:
        return ()
    return tuple(", ".join(words) for words in itertools.product(*((f"not {c}", c) for c in columns)))


def to_batch(images: Tensor | np.ndarray, flip: Tensor | np.ndarray | None = None) -> Tensor:
    """Turn uint8 images (N, S, S, 3) into float32 (N, 3, S, S), channels_last, from -1 (0) to 1 (255).

    flip (N,) of bool mirrors images left to right. The batch is made where the images are.
    """
    images = torch.tensor(images) if isinstance(images, np.ndarray) else images
    if flip is not None:
        flip = torch.as_tensor(flip, device=images.device)
        images = torch.where(flip[:, None, None, None], images.flip(2), images)
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # keeps the strides: channels_last


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, 3, S, S) in [-1, 1] -> uint8 (N, S, S, 3), as `to_batch` takes them."""
    return (127.5 * (images + 1)).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def batch_indices(length: int, batch_size: int, update: int, seed: int) -> np.ndarray:
    """The images of one update, int64 (batch_size,): a function of (seed, update) alone.

    Epochs are fresh permutations laid end to end and cut into batches, so each visits every image once and a
    batch may span several.
    """
    positions = np.arange(update * batch_size, (update + 1) * batch_size)
    epochs = positions // length
    return np.concatenate(
        [_permutation(length, seed, int(e))[positions[epochs == e] % length] for e in np.unique(epochs)]
    )


def batch_flips(batch_size: int, update: int, seed: int) -> np.ndarray:
    """Which images of one update to mirror, bool (batch_size,): a function of (seed, update) alone."""
    # The third number sets this stream apart from the permutations'.
    return np.random.default_rng([seed, update, 1]).random(batch_size) < 0.5


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def _left_out(entry: Path, count: int, image_size: int) -> dict[int, str] | None:
    """Which of `count` files a cache entry left out, and why; None where the entry is missing or damaged."""
    try:
        unreadable = {
            int(i): reason for i, reason in json.loads((entry / "unreadable.json").read_text()).items()
        }
        whole = (entry / "images.u8").stat().st_size == (count - len(unreadable)) * image_size**2 * 3
    except (OSError, ValueError, AttributeError):
        return None
    return unreadable if whole else None


@dataclass(frozen=True)
class _File:
    source: Path
    name: str  # path inside the source, with forward slashes
    stamp: tuple[int, int]  # size in bytes and time of the last change in ns, of the file or of its archive

    def __str__(self) -> str:
        return f"{self.source}/{self.name}"


def _list_files(sources: Sequence[str | Path]) -> list[_File]:
    """All images of all sources: sources in the order given, files sorted by name."""
    if not sources:
        raise DataError("no data source was given; name a folder of images or a .zip")
    files = []
    for source in map(_as_path, sources):
        if not source.exists():
            raise DataError(f"data source {source} does not exist; name a folder of images or a .zip")
        if source.is_dir():
            found = _list_folder(source)
        elif source.suffix.lower() == ".zip":
            found = _list_archive(source)
        else:
            raise DataError(f"data source {source} is neither a folder nor a .zip")
        found = sorted((file for file in found if not _is_hidden(file.name)), key=lambda file: file.name)
        images = [file for file in found if _is_image(file.name)]
        if not images:
            raise DataError(f"data source {source} holds no images ({', '.join(FORMATS)})")
        if len(images) < len(found):
            others = [file for file in found if not _is_image(file.name)]
            warnings.warn(
                f"left out {len(others)} of the {len(found)} files in {source}, which are not "
                f"{', '.join(FORMATS)}, for example {others[0].name}",
                stacklevel=3,
            )
        files += images
    return files


def _as_path(source: str | Path) -> Path:
    if not str(source):  # a Path of it would be the folder that one is in
        raise DataError("a data source has an empty name; name a folder of images or a .zip")
    return Path(source)


def reads(source: str | Path, folder: Path) -> bool:
    """Whether images that lie somewhere in `folder` belong to a source. Raises DataError."""
    source = _as_path(source)
    whole = Path(os.path.realpath(folder))
    read = {real for real, _, _ in _folders(source)} if source.is_dir() else ()
    above = next((parent for parent in (whole, *whole.parents) if str(parent) in read), None)
    return above is not None and not any(part.startswith(".") for part in whole.relative_to(above).parts)


def _list_folder(source: Path) -> Iterator[_File]:
    """Its files at any depth; hidden folders are left out."""
    for _, folder, names in _folders(source):
        for path in (Path(folder, name) for name in names):
            if path.is_file():
                yield _File(source, path.relative_to(source).as_posix(), _stamp(path))


def _folders(source: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Where each folder really is, its path and its files: at any depth, behind links too, each once."""

    def refuse(error: OSError) -> None:
        raise DataError(f"data source {source} can't be read: {error.filename}: {error.strerror}") from error

    seen = set()
    for folder, inside, names in os.walk(source, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if real in seen:  # a link back to where we came from
            inside.clear()
            continue
        seen.add(real)
        yield real, folder, names


def _list_archive(source: Path) -> Iterator[_File]:
    try:
        with zipfile.ZipFile(source) as archive:
            names = [name for name in archive.namelist() if name and not name.endswith("/")]  # no folders
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(f"data source {source} can't be read as a .zip: {error}") from error
    stamp = _stamp(source)
    return (_File(source, name, stamp) for name in names)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in FORMATS


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)  # "._name.jpg" of macOS's archives


def _cache_key(files: list[_File], image_size: int, crop: int | None) -> str:
    content = hashlib.sha256(f"{CACHE_VERSION} {image_size} {crop}".encode())
    roots = {source: str(source.resolve()) for source in {file.source for file in files}}
    for file in files:
        content.update(json.dumps([roots[file.source], file.name, *file.stamp]).encode())
    return content.hexdigest()[:32]


def _fingerprint(files: list[_File], labels: np.ndarray | None) -> str:
    content = hashlib.sha256(json.dumps([PurePosixPath(file.name).name for file in files]).encode())
    if labels is not None:
        content.update(labels.astype("<i8").tobytes())
    return content.hexdigest()[:32]


class _Rejected(NamedTuple):
    reason: str
    too_small: bool = False


def _decode_all(files: list[_File], image_size: int, crop: int | None, workers: int, entry: Path) -> None:
    """Decode into a folder beside `entry`, then rename it: an entry is there whole or not at all."""
    from torchvision.transforms import v2  # as slow to import as torch; a filled cache needs none of it

    if crop is None:
        transform = v2.Compose([v2.Resize(image_size), v2.CenterCrop(image_size)])
    else:
        transform = v2.Compose([v2.CenterCrop(crop), v2.Resize(image_size)])
    small, unreadable = {}, {}
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_sharing(entry.parent))
            temporary = tempfile.TemporaryDirectory(prefix=BUILDING, dir=entry.parent)
            building = Path(stack.enter_context(temporary)) / entry.name
            building.mkdir()
            sources = {file.source for file in files if file.source.is_file()}
            archives = {source: stack.enter_context(zipfile.ZipFile(source)) for source in sources}
            out = stack.enter_context((building / "images.u8").open("wb"))
            pool = stack.enter_context(_start_threads(workers))
            decoded = pool.imap(lambda file: _decode(file, archives, crop, transform), files, chunksize=16)
            for i, image in enumerate(tqdm(decoded, "Decoding images", len(files), unit="image")):
                if not isinstance(image, _Rejected):
                    out.write(image)
                elif image.too_small:
                    small[i] = image.reason
                else:
                    unreadable[i] = image.reason
            _check_rejected(files, crop, small, unreadable)
            left_out = stack.enter_context((building / "unreadable.json").open("w"))
            json.dump(unreadable, left_out)
            for file in (out, left_out):
                file.flush()
                os.fsync(file.fileno())
            try:
                building.rename(entry)
            except OSError:
                # Either another process was faster, with the same bytes, or what is there is damaged.
                if _left_out(entry, len(files), image_size) is None:
                    shutil.rmtree(entry, ignore_errors=True)
                    building.rename(entry)
    except OSError as error:
        raise DataError(f"the decoded images can't be written to {entry.parent}: {error}") from error


@contextmanager
def _sharing(cache: Path) -> Iterator[None]:
    """In the block a cache is decoded into; where nobody else does so, what a killed one left is cleared."""
    with ExitStack() as stack:
        try:
            import fcntl

            handle = os.open(cache, os.O_RDONLY)
            stack.callback(os.close, handle)
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left_over in cache.glob(f"{BUILDING}*"):
                    shutil.rmtree(left_over, ignore_errors=True)
            fcntl.flock(handle, fcntl.LOCK_SH)
        except (OSError, ImportError):  # a system, or a file system, without such locks
            pass
        yield


def _start_threads(count: int) -> ThreadPool:
    try:
        return ThreadPool(count)
    except (RuntimeError, AttributeError) as error:  # the second where it would end those that it has
        raise DataError(
            f"the system cannot start {count} threads to decode images; choose fewer --workers"
        ) from error


def _check_rejected(
    files: list[_File], crop: int | None, small: dict[int, str], unreadable: dict[int, str]
) -> None:
    if small:
        i, size = next(iter(small.items()))
        raise DataError(
            f"{len(small)} of {len(files)} images are smaller than the crop of {crop} pixels, for example "
            f"{files[i]} ({size}); choose a smaller crop or remove them"
        )
    if len(unreadable) > MAX_UNREADABLE * len(files):
        i, reason = next(iter(unreadable.items()))
        raise DataError(
            f"{len(unreadable)} of {len(files)} images can't be read, more than 1 percent, for example "
            f"{files[i]} ({reason}); repair or remove them"
        )


def _decode(
    file: _File,
    archives: dict[Path, zipfile.ZipFile],
    crop: int | None,
    transform: Callable[[Image.Image], Image.Image],
) -> np.ndarray | _Rejected:
    """One file as uint8 (S, S, 3), or what is wrong with it. Raises DataError where the disk refuses it."""
    try:
        stream = file.source / file.name
        if (archive := archives.get(file.source)) is not None:
            if archive.getinfo(file.name).file_size > MAX_FILE_BYTES:
                return _Rejected(f"unpacked, it is larger than {MAX_FILE_BYTES / 2**20:.0f} MiB")
            stream = io.BytesIO(archive.read(file.name))
        with Image.open(stream, formats=sorted(set(FORMATS.values()))) as image:
            if crop is not None and min(image.size) < crop:
                return _Rejected(f"{image.width} x {image.height}", too_small=True)
            if crop is None and max(image.size) > MAX_ASPECT * min(image.size):
                return _Rejected(f"{image.width} x {image.height} is too narrow")
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(transform(_to_rgb(image)))
    except Exception as error:  # decoders raise almost anything on broken bytes; the reason is reported
        if isinstance(error, OSError) and error.errno:  # the disk's word: nothing is known of the bytes
            raise DataError(f"{file} can't be read: {error.strerror}; put that right or remove it") from error
        return _Rejected(f"{type(error).__name__}: {error}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow clips or shifts depending on its release
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _read_labels(path: Path, columns: Sequence[str], files: list[_File]) -> np.ndarray:
    """The class of every file, int64 (len(files),)."""
    index_of = {}
    for i, file in enumerate(files):
        name = _name_in_table(file.name)
        if name in index_of:
            raise DataError(
                f"{files[index_of[name]]} and {file} have the same file name, so the labels in {path} can't "
                "tell them apart; rename one"
            )
        index_of[name] = i

    classes = np.full(len(files), -1, np.int64)
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            header = [cell.strip() for cell in next(rows, [])]
            if len(header) < 2:
                raise DataError(
                    f"{path} must begin with the names of its columns, separated by commas, but begins with "
                    f"{','.join(header)[:60]!r}"
                )
            for column in columns:
                if column not in header[1:]:
                    raise DataError(
                        f"{path} has no column {column!r}; its columns are {', '.join(header[1:])}"
                    )
            at = [header.index(column, 1) for column in columns]
            for row in rows:
                name = _name_in_table(row[0].strip()) if row else ""
                if name in index_of:
                    values = [row[i] if i < len(row) else "" for i in at]
                    bits = [_bit(*pair, name, path) for pair in zip(values, columns, strict=True)]
                    label = sum(bit << i for i, bit in enumerate(reversed(bits)))
                    if classes[index_of[name]] not in (-1, label):
                        raise DataError(f"{path} has two rows for {name} that disagree; keep one of them")
                    classes[index_of[name]] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"labels {path} can't be read as CSV: {error}") from error

    missing = np.flatnonzero(classes < 0)
    if len(missing):
        raise DataError(
            f"{path} has no row for {len(missing)} of {len(files)} images, for example {files[missing[0]]}"
        )
    return classes


def _name_in_table(path: str) -> str:
    """A file's name alone, its accents in one form: macOS writes "é" as two letters, tables have one."""
    return unicodedata.normalize("NFC", PurePosixPath(path).name)


def _bit(value: str, column: str, name: str, path: Path) -> int:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not -1 <= number <= 1:  # nor is NaN
        raise DataError(
            f"{path} gives {value!r} as {column} of {name}, but a label is 1 for yes, 0 or -1 for no"
        )
    return int(number > 0.5)
