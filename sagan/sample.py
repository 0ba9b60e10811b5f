"""Draw many faces from a checkpoint into one file: python -m sagan.sample --count 5000 --out faces.npy"""

import argparse
import sys
import zipfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path

from sagan.commands import add_checkpoint, end_at_ctrl_c, run_program

if __name__ == "__main__":
    end_at_ctrl_c()

import numpy as np
from PIL import Image
from tqdm import tqdm

from sagan.checkpoint import replace_file
from sagan.heatmaps import sheet
from sagan.latents import from_seeds, sheet_seeds, truncate
from sagan.sampler import Sampler
from sagan.seeds import labels_in_turn

CHUNK = 16  # faces asked for at once


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
        if options.count < 1:
            raise ValueError(f"--count must be at least 1, but was {options.count}.")
        seeds = sheet_seeds(options.seed, options.count)
        sampler = Sampler.load(options.checkpoint)
        labels = _labels(sampler, seeds, options.class_)
        latents = from_seeds(seeds, sampler.config.z_dim)
        # Closed before anything else is printed, or the progress bar would have the last word.
        with closing(_draw(sampler, truncate(latents, options.truncation), labels)) as faces:
            replace_file(out, lambda path: write(path, faces, seeds, sampler.config.image_size))
    except ValueError as error:
        parser.error(str(error))
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
        help="x.npy: uint8 array (count, S, S, 3); x.zip: a PNG a face, named by its seed; x.png: one sheet",
    )
    add("--overwrite", action="store_true", help="replace --out where it exists (default: refuse)")
    add("--seed", type=int, default=0, help="seed of the first face; the next have the next (default: 0)")
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


def _labels(sampler: Sampler, seeds: list[int], chosen: str | None) -> np.ndarray | None:
    """The label of every seed: the chosen class, by name or index, or else those learned, in turn."""
    names = sampler.class_names
    if not names:
        if chosen is not None:
            raise ValueError(f"There is no class '{chosen}': this model has none; leave --class out.")
        return None
    if chosen is None:
        return np.array(labels_in_turn(seeds, sampler.classes))
    if chosen in names:
        return np.full(len(seeds), names.index(chosen))
    if chosen in map(str, range(len(names))):
        return np.full(len(seeds), int(chosen))
    there = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    raise ValueError(f"There is no class '{chosen}': this model has {there}.")


def _draw(
    sampler: Sampler, latents: np.ndarray, labels: np.ndarray | None
) -> Generator[np.ndarray, None, None]:
    """Yield the faces one by one behind a progress bar."""
    with tqdm(total=len(latents), unit=" faces", desc="Sampling") as bar:
        for start in range(0, len(latents), CHUNK):
            part = slice(start, start + CHUNK)
            for face in sampler.faces(latents[part], None if labels is None else labels[part]):
                yield face
                bar.update()


def _write_array(path: Path, faces: Iterator[np.ndarray], seeds: list[int], size: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(seeds), size, size, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for face in faces:
            file.write(face.tobytes())


def _write_zip(path: Path, faces: Iterator[np.ndarray], seeds: list[int], size: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for seed, face in zip(seeds, faces, strict=True):
            png = BytesIO()
            Image.fromarray(face).save(png, "PNG")
            archive.writestr(
                zipfile.ZipInfo(f"{seed}.png"), png.getvalue()
            )  # no date: equal runs, equal files


def _write_sheet(path: Path, faces: Iterator[np.ndarray], seeds: list[int], size: int) -> None:
    sheet(np.stack(list(faces))).save(path)


WRITERS = {".npy": _write_array, ".zip": _write_zip, ".png": _write_sheet}


def _writer(out: Path):
    """The function that writes files with this ending; ValueError where nothing can be written there."""
    if out.suffix.lower() not in WRITERS:
        raise ValueError(f"--out must end in {', '.join(WRITERS)}, but was '{out}'.")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"'{out}' cannot be written: its folder does not exist, or it is a folder itself.")
    return WRITERS[out.suffix.lower()]


if __name__ == "__main__":
    run_program(main)
