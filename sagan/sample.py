"""Draw many faces from a checkpoint into one file: python -m sagan.sample --count 5000 --out faces.npy"""

import argparse
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sagan.checkpoint import replace_file
from sagan.commands import add_checkpoint, run_program
from sagan.device import is_lack_of_memory
from sagan.heatmaps import sheet
from sagan.latents import SEEDS, check_seed, from_seeds, sheet_seeds, truncate
from sagan.sampler import Sampler

CHUNK = 16  # faces asked for at once

Drawn = tuple[int, np.ndarray]  # a seed and its face, uint8 (S, S, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 130 after Ctrl-C. Options that cannot be met exit with status 2.

    The file appears when it is complete, or not at all; one that exists is replaced only with --overwrite.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    out = options.out
    try:
        write = _writer(out)
        if out.exists() and not options.overwrite:
            raise ValueError(f"'{out}' exists: name another --out, or add --overwrite.")
        if not 1 <= options.count <= SEEDS:
            raise ValueError(
                f"--count must be from 1 to {SEEDS}, the number of seeds, but was {options.count}."
            )
        check_seed(options.seed)
        sampler = Sampler.load(options.checkpoint)
        label = _chosen(sampler, options.class_)
        truncate(np.zeros(1), options.truncation)  # refused now rather than behind the progress bar
        # Closed before anything else is printed, or the progress bar would have the last word.
        with closing(_draw(sampler, options, label)) as faces:
            replace_file(out, lambda path: write(path, faces, options.count, sampler.config.image_size))
    except ValueError as error:
        parser.error(str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        parser.error("There is too little memory: choose a smaller --count, or close other programs.")
    except OSError as error:
        parser.error(f"'{out}' could not be written: {error.strerror or error}.")
    except KeyboardInterrupt:
        print(f"Stopped; '{out}' was not written.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sagan.sample", description="Draw faces from a checkpoint into one file."
    )
    add_checkpoint(parser)
    add = parser.add_argument
    add("--count", type=int, default=64, help="how many faces (default: %(default)s)")
    add(
        "--out",
        type=Path,
        required=True,
        help="x.npy: uint8 array (count, S, S, 3); x.zip: a PNG per face, named by seed; x.png: one sheet",
    )
    add("--overwrite", action="store_true", help="replace --out where it exists (default: refuse)")
    add("--seed", type=int, default=0, help="seed of the first face; seeds count up from it (default: 0)")
    add(
        "--truncation",
        type=float,
        default=1.0,
        help="0 to 1: a little below 1, less variety and often cleaner faces (default: %(default)s)",
    )
    add(
        "--class",
        dest="class_",
        metavar="NAME",
        help="name or index of a class of a conditional model (default: the seeds go through them in turn)",
    )
    return parser


def _chosen(sampler: Sampler, name: str | None) -> int | None:
    """The label of the class of this name or index; None where none is named. Raises ValueError."""
    names = sampler.classes.names
    if name is None:
        return None
    if not names:
        raise ValueError(f"There is no class '{name}': this model has none; leave --class out.")
    if name in names:
        return names.index(name)
    if name in map(str, range(len(names))):
        return int(name)
    there = ", ".join(f"{i} ({called})" for i, called in enumerate(names))
    raise ValueError(f"There is no class '{name}': this model has {there}.")


def _draw(sampler: Sampler, options: argparse.Namespace, label: int | None) -> Generator[Drawn, None, None]:
    """Yield each seed and its face behind a progress bar, a chunk in memory at a time.

    label: the class of all of them; None: they go through the classes in turn.
    """
    with tqdm(total=options.count, unit=" faces", desc="Sampling") as bar:
        for start in range(0, options.count, CHUNK):
            seeds = sheet_seeds((options.seed + start) % SEEDS, min(CHUNK, options.count - start))
            latents = truncate(from_seeds(seeds, sampler.config.z_dim), options.truncation)
            labels = sampler.classes.in_turn(seeds) if label is None else [label] * len(seeds)
            made = sampler.faces(latents, None if labels is None else np.array(labels))
            for drawn in zip(seeds, made, strict=True):
                yield drawn
                bar.update()


def _write_array(path: Path, faces: Iterator[Drawn], count: int, size: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, face in faces:
            file.write(face.tobytes())


def _write_zip(path: Path, faces: Iterator[Drawn], count: int, size: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for seed, face in faces:
            png = BytesIO()
            Image.fromarray(face).save(png, "PNG")
            archive.writestr(
                zipfile.ZipInfo(f"{seed}.png"), png.getvalue()
            )  # no date: equal runs, equal files


def _write_sheet(path: Path, faces: Iterator[Drawn], count: int, size: int) -> None:
    sheet(np.stack([face for _, face in faces])).save(path)


WRITERS = {".npy": _write_array, ".zip": _write_zip, ".png": _write_sheet}


def _writer(out: Path) -> Callable[[Path, Iterator[Drawn], int, int], None]:
    """The function that writes files with this ending; ValueError where nothing can be written there."""
    if out.suffix.lower() not in WRITERS:
        raise ValueError(f"--out must end in {', '.join(WRITERS)}, but was '{out}'.")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"'{out}' cannot be written: its folder does not exist, or it is a folder itself.")
    return WRITERS[out.suffix.lower()]


if __name__ == "__main__":
    run_program(main)
