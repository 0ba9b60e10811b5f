import csv
import errno
import fcntl
import os
import runpy
import shutil
import subprocess
import sys
import threading
import unicodedata
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from sagan import data
from sagan.data import (
    DataError,
    ImageSet,
    batch_flips,
    batch_indices,
    load_images,
    to_batch,
    to_uint8,
)


@pytest.fixture
def load(tmp_path):
    """load_images with this test's own cache."""

    def load(*args, **kwargs):
        return load_images(*args, cache=tmp_path / "cache", **{"workers": 2, **kwargs})

    return load


def random_pixels(rng, height, width, channels=3):
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def save(pixels, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def zip_folder(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def write_labels(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def error_of(load, *args, **kwargs):
    """The DataError's text: one line, without the advice being lost in a traceback."""
    with pytest.raises(DataError) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


def test_images_of_every_kind_at_any_depth_are_read_in_the_order_of_their_names(load, tmp_path, rng):
    colours = {}
    for name in ("a.png", "b/c/d.JPG", "b/e.jpeg", "f.webp", "g/h/i/j.AviF"):
        colours[name] = rng.integers(0, 256, 3)
        save(np.broadcast_to(colours[name].astype(np.uint8), (24, 20, 3)).copy(), tmp_path / "faces" / name)
    (tmp_path / "faces" / "notes.txt").write_text("not an image")
    save(random_pixels(rng, 8, 8), tmp_path / "faces" / "._hidden.png")

    with pytest.warns(UserWarning, match=r"left out 1 of the 6 files in .*, for example notes\.txt$"):
        images = load([tmp_path / "faces"], 8)

    assert images.images.dtype == np.uint8 and images.images.shape == (5, 8, 8, 3) and len(images) == 5
    assert images.labels is None and images.class_names == ()
    wanted = np.stack([colours[name] for name in sorted(colours)])
    # The three lossy formats keep a flat colour within a few grey levels.
    assert np.abs(images.images.astype(int) - wanted[:, None, None]).max() <= 6


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_folders_behind_links_are_read_once(load, make_images, tmp_path):
    make_images(3, folder="elsewhere")
    make_images(2)
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "back").symlink_to(tmp_path / "images")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images")
    assert len(load([tmp_path / "images"], 8)) == 5


def test_a_folder_that_cannot_be_read_is_named_though_others_can(load, make_images, monkeypatch, tmp_path):
    make_images(2)
    make_images(2, folder="images/locked")
    make_images(2, folder="images/.hidden")
    scandir = os.scandir

    def locked(path):
        if Path(path).name in ("locked", ".hidden"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    sentence = error_of(load, [tmp_path / "images"], 8)
    images = tmp_path / "images"
    assert sentence == f"data source {images} can't be read: {images / 'locked'}: Permission denied"


def test_a_zip_gives_the_same_images_as_its_folder(load, make_images, tmp_path):
    folder = make_images(3)
    make_images(2, folder="images/nested/deep")
    archive = zip_folder(folder, tmp_path / "images.ZIP")
    np.testing.assert_array_equal(load([archive], 16).images, load([folder], 16).images)


def test_sources_follow_each_other_in_the_order_given(load, make_images, tmp_path):
    first, second = make_images(2, folder="b"), make_images(3, folder="a")
    archive = zip_folder(make_images(1, folder="c"), tmp_path / "c.zip")
    each = [load([source], 32).images for source in (first, archive, second)]
    np.testing.assert_array_equal(load([str(first), archive, second], 32).images, np.concatenate(each))


def test_hidden_folders_of_an_archive_are_left_out_as_those_of_a_folder(load, make_images, tmp_path):
    folder = make_images(2)
    make_images(3, folder="images/.thumbnails/large")
    assert len(load([folder], 32)) == len(load([zip_folder(folder, tmp_path / "images.zip")], 32)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_that_leads_nowhere_is_no_image(load, make_images):
    folder = make_images(2)
    (folder / "gone.png").symlink_to(folder / "missing.png")
    assert len(load([folder], 32)) == 2


def test_what_macos_adds_to_an_archive_is_not_taken_for_images(load, make_images, tmp_path):
    archive = zip_folder(make_images(2), tmp_path / "images.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/._0000.png", b"resource fork")
    assert len(load([archive], 32)) == 2


# Geometry and colour


@pytest.mark.parametrize(("width", "height"), [(178, 218), (90, 61)])
def test_crop_cuts_the_centre_square_before_an_antialiased_resize(load, tmp_path, rng, width, height):
    crop, size = 50, 16
    pixels = random_pixels(rng, height, width)
    save(pixels, tmp_path / "faces" / "a.png")
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    square = Image.fromarray(pixels[top : top + crop, left : left + crop])
    wanted = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))  # Pillow antialiases
    np.testing.assert_array_equal(load([tmp_path / "faces"], size, crop=crop).images[0], wanted)


@pytest.mark.parametrize(("width", "height"), [(40, 100), (100, 40)])
def test_without_a_crop_the_shorter_side_is_resized_and_the_centre_kept(load, tmp_path, rng, width, height):
    pixels = random_pixels(rng, height, width)
    save(pixels, tmp_path / "faces" / "a.png")
    shrunk = Image.fromarray(pixels).resize((width // 5 * 2, height // 5 * 2), Image.Resampling.BILINEAR)
    middle = (slice(12, 28), slice(None)) if height > width else (slice(None), slice(12, 28))
    np.testing.assert_array_equal(load([tmp_path / "faces"], 16).images[0], np.asarray(shrunk)[middle])


def test_an_image_of_the_wanted_size_keeps_every_pixel(load, tmp_path, rng):
    pixels = random_pixels(rng, 32, 32)
    save(pixels, tmp_path / "faces" / "a.png")
    np.testing.assert_array_equal(load([tmp_path / "faces"], 32).images[0], pixels)


def test_smaller_images_are_enlarged(load, tmp_path, rng):
    pixels = np.broadcast_to(random_pixels(rng, 1, 1), (5, 5, 3)).copy()
    save(pixels, tmp_path / "faces" / "a.png")
    np.testing.assert_array_equal(
        load([tmp_path / "faces"], 32).images[0], np.broadcast_to(pixels[0, 0], (32, 32, 3))
    )


def test_exif_orientation_is_applied(load, tmp_path, rng):
    pixels = random_pixels(rng, 16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be shown rotated by 90 degrees clockwise
    save(pixels, tmp_path / "faces" / "a.png", exif=exif)
    np.testing.assert_array_equal(load([tmp_path / "faces"], 16).images[0], np.rot90(pixels, -1))


def test_grey_palette_and_16_bit_images_become_rgb(load, tmp_path, rng):
    grey = random_pixels(rng, 8, 8, 1)[:, :, 0]
    deep = rng.integers(0, 2**16, (8, 8), np.uint16)
    palette = Image.fromarray(random_pixels(rng, 8, 8)).quantize(16)
    folder = tmp_path / "faces"
    save(deep, folder / "deep.png")
    save(grey, folder / "grey.png")
    palette.save(folder / "palette.png")
    got = load([folder], 8).images
    np.testing.assert_array_equal(got[0], np.repeat((deep // 256).astype(np.uint8)[:, :, None], 3, 2))
    np.testing.assert_array_equal(got[1], np.repeat(grey[:, :, None], 3, 2))
    colours = np.reshape(palette.getpalette(), (-1, 3))
    np.testing.assert_array_equal(got[2], colours[np.asarray(palette)])


def test_transparent_images_are_put_on_white(load, tmp_path, rng):
    rgba = random_pixels(rng, 8, 8, 4)
    save(rgba, tmp_path / "faces" / "a.png")
    alpha = rgba[:, :, 3:] / 255
    wanted = rgba[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(load([tmp_path / "faces"], 8).images[0] - wanted).max() <= 1


def test_a_transparent_colour_of_a_palette_and_transparent_grey_are_put_on_white(load, tmp_path, rng):
    colours = rng.integers(0, 256, (3, 3), np.uint8)
    which = rng.integers(0, 3, (8, 8)).astype(np.uint8)
    palette = Image.fromarray(which)
    palette.putpalette(colours.tobytes())
    grey = random_pixels(rng, 8, 8, 2)
    folder = tmp_path / "faces"
    save(grey, folder / "b.png")
    palette.save(folder / "a.png", transparency=1)
    colours[1] = 255
    images = load([folder], 8).images
    np.testing.assert_array_equal(images[0], colours[which])
    alpha = grey[:, :, 1] / 255
    assert np.abs(images[1] - (grey[:, :, 0] * alpha + 255 * (1 - alpha))[:, :, None]).max() <= 1


# The cache


def forbid_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(data, "_decode", decode)


def test_a_second_call_opens_the_memory_map_without_decoding(load, make_images, monkeypatch):
    folder = make_images(4)
    first = load([folder], 16, crop=20)
    forbid_decoding(monkeypatch)
    second = load([folder], 16, crop=20)
    assert isinstance(second.images, np.memmap)
    np.testing.assert_array_equal(first.images, second.images)


def test_another_size_or_crop_is_decoded_anew(load, make_images):
    folder = make_images(2)
    assert load([folder], 16).images.shape == (2, 16, 16, 3)
    assert load([folder], 8).images.shape == (2, 8, 8, 3)
    assert not np.array_equal(load([folder], 8).images, load([folder], 8, crop=8).images)


@pytest.mark.parametrize("packed", [False, True])
def test_a_changed_file_is_decoded_again(load, make_images, tmp_path, rng, packed):
    folder = make_images(2)

    def source():
        return zip_folder(folder, tmp_path / "images.zip") if packed else folder

    before = load([source()], 32).images
    pixels = random_pixels(rng, 32, 32)
    save(pixels, folder / "0001.png")
    after = load([source()], 32).images
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], pixels)


def test_a_changed_file_with_the_date_of_the_old_one_is_decoded_again(load, make_images, rng):
    folder = make_images(2)
    path = folder / "0001.png"
    load([folder], 32)
    before, pixels = path.stat(), np.zeros((32, 32, 3), np.uint8)  # a smaller file
    save(pixels, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size != before.st_size
    np.testing.assert_array_equal(load([folder], 32).images[1], pixels)


def test_folders_with_equal_names_dates_and_sizes_are_told_apart(load, make_images):
    files = [make_images(1, folder=folder) / "0000.png" for folder in "ab"]
    for file in files:
        file.write_bytes(file.read_bytes().ljust(9000, b"\0"))
        os.utime(file, ns=(10**18, 10**18))
    one, other = (np.array(load([file.parent], 32).images) for file in files)
    assert not np.array_equal(one, other)


def test_files_of_equal_dates_and_sizes_that_swap_their_names_are_told_apart(load, make_images):
    folder = make_images(2)
    one, other = sorted(folder.iterdir())
    for file in (one, other):
        file.write_bytes(file.read_bytes().ljust(9000, b"\0"))
        os.utime(file, ns=(10**18, 10**18))
    before = np.array(load([folder], 32).images)
    one.rename(folder / "0002.png")
    np.testing.assert_array_equal(load([folder], 32).images, before[::-1])


def test_images_one_folder_deeper_are_the_same_images(load, make_images, tmp_path):
    flat = make_images(3)
    shutil.copytree(flat, tmp_path / "deep/inner")
    assert load([flat], 8).fingerprint == load([tmp_path / "deep"], 8).fingerprint


@pytest.mark.parametrize("most", [0, 3, 10])
def test_a_system_that_starts_too_few_threads_is_one_sentence(load, make_images, monkeypatch, tmp_path, most):
    folder, start, started = make_images(3), threading.Thread.start, []

    def limited(thread):
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        sentence = error_of(load, [folder], 8, workers=9)
    assert sentence == "the system cannot start 9 threads to decode images; choose fewer --workers"
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(load([folder], 8, workers=9)) == 3


def test_no_more_threads_decode_than_are_of_use(monkeypatch):
    assert train.build_parser().get_default("workers") == data.WORKERS
    for cores, threads in ((99, 32), (5, 5), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert runpy.run_path(data.__file__)["WORKERS"] == threads


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are named by Linux alone")
def test_the_cache_is_synced_before_it_counts(load, make_images, monkeypatch, tmp_path):
    synced, fsync = {}, os.fsync

    def noting(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        is_new = path.parent.parent.name.startswith(data.BUILDING)  # not yet where it would be found
        synced[path.name] = path.stat().st_size, is_new
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    load([make_images(2)], 8)
    (entry,) = (tmp_path / "cache").iterdir()
    assert synced == {path.name: (path.stat().st_size, True) for path in entry.iterdir()}
    assert synced.keys() == {"images.u8", "unreadable.json"}


def test_the_decoded_images_cannot_be_changed_by_accident(load, make_images):
    with pytest.raises(ValueError, match="read-only"):
        load([make_images(1)], 8).images[0] = 0


@pytest.mark.parametrize("damage", ["no list", "not JSON", "a list", "cut off", "no images"])
def test_a_damaged_cache_is_decoded_again(load, make_images, tmp_path, damage):
    folder = make_images(3)
    before = np.array(load([folder], 16).images)
    (entry,) = (tmp_path / "cache").iterdir()
    listed, images = entry / "unreadable.json", entry / "images.u8"
    if damage in ("no list", "no images"):
        (listed if damage == "no list" else images).unlink()
    elif damage == "cut off":
        images.write_bytes(images.read_bytes()[:-1])
    else:
        listed.write_text("{" if damage == "not JSON" else "[]")
    np.testing.assert_array_equal(load([folder], 16).images, before)


@pytest.mark.parametrize(
    ("when", "words"), [("after decoding", "were removed meanwhile"), ("before opening", "cannot be read")]
)
def test_a_cache_that_vanishes_meanwhile_is_one_sentence(
    load, make_images, tmp_path, monkeypatch, when, words
):
    folder, entries = make_images(3), tmp_path / "cache"
    name = "_decode_all" if when == "after decoding" else "_left_out"
    real = getattr(data, name)

    def then_it_is_gone(*args):
        result = real(*args)
        for entry in entries.glob("*"):
            shutil.rmtree(entry)
        return result

    if when == "before opening":
        load([folder], 16)
    monkeypatch.setattr(data, name, then_it_is_gone)
    error = error_of(load, [folder], 16)
    assert error.startswith(f"the decoded images in {entries}") and words in error and "\n" not in error


def test_an_interrupted_decode_leaves_nothing_behind(load, make_images, tmp_path, monkeypatch):
    folder = make_images(3)

    def interrupt(decoded, *_, **__):
        yield next(iter(decoded))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(data, "tqdm", interrupt)
        load([folder], 16)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(load([folder], 16)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks there")
def test_what_a_killed_decode_left_is_removed_once_nobody_decodes(load, make_images, monkeypatch, tmp_path):
    folder, cache = make_images(3), tmp_path / "cache"
    (cache / "decoding-by-one-that-is-gone" / "entry").mkdir(parents=True)
    (cache / "of-somebody-else").mkdir()
    seen, check = [], data._check_rejected

    def others_decode_meanwhile(*rejected):
        if not seen:
            seen.append(sorted(path.name for path in cache.glob("decoding-*")))
            (cache / "decoding-by-one-that-went-meanwhile").mkdir()
            load([folder], 16)
            seen.append(sorted(path.name for path in cache.glob("decoding-*")))
        check(*rejected)

    monkeypatch.setattr(data, "_check_rejected", others_decode_meanwhile)
    load([folder], 8)
    ours, both = seen
    assert len(ours) == 1 and ours != ["decoding-by-one-that-is-gone"]
    assert both == sorted([*ours, "decoding-by-one-that-went-meanwhile"])
    load([folder], 24)
    assert sorted(path.name for path in cache.iterdir() if len(path.name) != 32) == ["of-somebody-else"]


def test_where_the_cache_cannot_be_locked_images_are_decoded_all_the_same(load, make_images, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(load([make_images(3)], 16)) == 3


def test_a_killed_decode_is_not_taken_for_a_finished_one(load, make_images, tmp_path):
    folder = make_images(40)
    code = (
        "import os, sagan.data as d\n"
        "d._check_rejected = lambda *_: os._exit(9)\n"  # dies when everything is written but nothing renamed
        f"d.load_images([{str(folder)!r}], 16, cache={str(tmp_path / 'cache')!r})"
    )
    root = Path(data.__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr
    images = load([folder], 16).images
    np.testing.assert_array_equal(images, load_images([folder], 16, cache=tmp_path / "other").images)


def test_racing_loads_agree(load, make_images):
    folder = make_images(30)
    with ThreadPoolExecutor(4) as pool:
        sets = [call.result() for call in [pool.submit(load, [folder], 16) for _ in range(4)]]
    for images in sets:
        np.testing.assert_array_equal(images.images, sets[0].images)


def test_what_a_faster_process_decoded_stays(load, make_images, monkeypatch):
    folder, looked, faster = make_images(3), data._left_out, []

    def left_out(*entry):
        found = looked(*entry)
        if not faster:
            faster.append(None)
            theirs = load([folder], 16).images  # done right after ours looked, in vain
            faster.extend([theirs, Path(theirs.filename).stat()])
        return found

    monkeypatch.setattr(data, "_left_out", left_out)
    ours = load([folder], 16).images
    assert os.path.samestat(Path(ours.filename).stat(), faster[2])
    np.testing.assert_array_equal(ours, faster[1])


def test_a_cache_that_cannot_be_written_is_one_sentence(make_images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    error = error_of(load_images, [make_images(1)], 16, cache=tmp_path / "file" / "cache")
    assert error.startswith(f"the decoded images can't be written to {tmp_path / 'file' / 'cache'}")


# Labels


def test_labels_are_bits_above_one_half_with_the_first_column_highest(load, make_images, tmp_path, rng):
    folder = make_images(20)
    values = {f"{i:04}.png": rng.random(3).round(3) for i in range(20)}
    values["0003.png"] = np.array([0.5, -1, 1])  # exactly one half is no; -1 and 1 are CelebA's own values
    rows = [[name, *row] for name, row in values.items()]
    rng.shuffle(rows)
    extra = ["elsewhere.png", "not", "a", "number"]
    table = write_labels(tmp_path / "labels.csv", [["file", "Male", "Old", "Smiling"], extra, *rows])

    images = load([folder], 8, labels=table, label_columns=("Smiling", "Male"))

    wanted = [2 * (smiling > 0.5) + (male > 0.5) for _, (male, _, smiling) in sorted(values.items())]
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == wanted and images.labels[3] == 2
    assert images.class_names == (
        "not Smiling, not Male",
        "not Smiling, Male",
        "Smiling, not Male",
        "Smiling, Male",
    )


def test_labels_stay_with_their_images_where_one_is_left_out(load, make_images, tmp_path):
    folder = make_images(100, size=8)
    (folder / "0050.png").write_bytes(b"broken")
    table = write_labels(tmp_path / "l.csv", [["file", "Odd"], *([f"{i:04}.png", i % 2] for i in range(100))])
    with pytest.warns(UserWarning, match=r"left out 1 of \d+ images as unreadable"):
        images = load([folder], 8, labels=table, label_columns=["Odd"])
    assert images.labels.tolist() == [i % 2 for i in range(100) if i != 50]


def test_labels_may_begin_with_a_byte_order_mark_as_spreadsheets_write_it(load, make_images, tmp_path):
    (tmp_path / "l.csv").write_text("file,Male\n0000.png,1\n", encoding="utf-8-sig")
    assert load([make_images(1)], 8, labels=tmp_path / "l.csv", label_columns=["Male"]).labels.tolist() == [1]


def test_empty_lines_among_the_labels_are_passed_over(load, make_images, tmp_path):
    (tmp_path / "l.csv").write_text("file,Male\n\n0000.png,1\n\n0001.png,0\n\n")
    images = load([make_images(2)], 8, labels=tmp_path / "l.csv", label_columns=["Male"])
    assert images.labels.tolist() == [1, 0]


def test_a_label_column_may_be_called_as_the_column_of_the_files(load, make_images, tmp_path):
    table = write_labels(tmp_path / "l.csv", [["Male", "Male"], ["0000.png", 1], ["0001.png", 0]])
    assert load([make_images(2)], 8, labels=table, label_columns=["Male"]).labels.tolist() == [1, 0]


@pytest.mark.parametrize("row", [b"0000.png,\xff", b"0000.png," + b"1" * 200_000], ids=["no text", "huge"])
def test_labels_that_are_no_table_of_text_are_one_sentence(load, make_images, tmp_path, row):
    path = tmp_path / "l.csv"
    path.write_bytes(b"file,Male\n" + row + b"\n")
    error = error_of(load, [make_images(1)], 8, labels=path, label_columns=["Male"])
    assert error.startswith(f"labels {path} can't be read as CSV: ")


def test_labels_may_name_their_files_with_folders_and_spaces(load, make_images, tmp_path):
    table = write_labels(tmp_path / "l.csv", [["file", " Male"], ["img/0000.png", 1], [" 0001.png ", 0]])
    assert load([make_images(2)], 8, labels=table, label_columns=["Male"]).labels.tolist() == [1, 0]


@pytest.mark.parametrize("of_files", ["NFC", "NFD"])
@pytest.mark.parametrize("of_table", ["NFC", "NFD"])
def test_labels_find_their_images_however_accents_are_written(
    load, make_images, tmp_path, of_files, of_table
):
    name = "Zoë à l'été"
    make_images(1).joinpath("0000.png").rename(
        tmp_path / "images" / f"{unicodedata.normalize(of_files, name)}.png"
    )
    rows = [["file", "Male"], [f"faces/{unicodedata.normalize(of_table, name)}.png", 1]]
    images = load(
        [tmp_path / "images"], 8, labels=write_labels(tmp_path / "l.csv", rows), label_columns="Male"
    )
    assert images.labels.tolist() == [1]


def test_two_rows_of_one_image_have_to_agree(load, make_images, tmp_path):
    folder, path = make_images(2), tmp_path / "l.csv"
    rows = [["file", "Male"], ["train/0000.png", 1], ["train/0001.png", 0]]
    write_labels(path, [*rows, ["0001.png", 0]])
    assert load([folder], 8, labels=path, label_columns=["Male"]).labels.tolist() == [1, 0]
    error = labelled(load, folder, path, [*rows, ["val/0001.png", 1]])
    assert error == f"{path} has two rows for 0001.png that disagree; keep one of them"


def test_classes_are_counted_also_those_of_no_image(load, make_images, tmp_path):
    rows = [["file", "Male", "Old"], ["0000.png", 1, 0], ["0001.png", 0, 0], ["0002.png", 1, 0]]
    images = load(
        [make_images(3)], 8, labels=write_labels(tmp_path / "l.csv", rows), label_columns=["Male", "Old"]
    )
    assert images.class_counts == (1, 0, 2, 0)
    assert load([tmp_path / "images"], 8).class_counts == ()


def test_the_fingerprint_tells_names_order_and_labels_but_not_places(load, make_images, tmp_path):
    folder, one, two = make_images(3), tmp_path / "one.csv", tmp_path / "two.csv"
    for path, last in ((one, 0), (two, 1)):
        write_labels(path, [["file", "Male"], ["0000.png", 1], ["0001.png", 0], ["0002.png", last]])
    archive = zip_folder(folder, tmp_path / "images.zip")
    other = make_images(2, folder="other")
    (other / "0001.png").rename(other / "0009.png")
    prints = [
        load(sources, 8, **options).fingerprint
        for sources, options in (
            ([folder], {}),
            ([folder], {"labels": one, "label_columns": ["Male"]}),
            ([folder], {"labels": two, "label_columns": ["Male"]}),
            ([folder, other], {}),
            ([other, folder], {}),
        )
    ]
    assert len({*prints, ""}) == 6
    assert load([archive], 8).fingerprint == prints[0]


def labelled(load, folder, path, rows, columns=("Male",)):
    return error_of(load, [folder], 8, labels=write_labels(path, rows), label_columns=columns)


def test_label_mistakes_are_named_before_anything_is_decoded(load, make_images, tmp_path, monkeypatch):
    forbid_decoding(monkeypatch)
    folder, path = make_images(3), tmp_path / "l.csv"
    header, rows = ["file", "Male", "Old"], [[f"{i:04}.png", 1, 0] for i in range(3)]

    error = labelled(load, folder, path, [header, *rows[:1]])
    assert error == f"{path} has no row for 2 of 3 images, for example {folder}/0001.png"
    error = labelled(load, folder, path, [header, *rows], ["file"])
    assert error == f"{path} has no column 'file'; its columns are Male, Old"
    error = labelled(load, folder, path, [header, *rows], ["Smiling"])
    assert error == f"{path} has no column 'Smiling'; its columns are Male, Old"
    allowed = "but a label is 1 for yes, 0 or -1 for no"
    for value in ("yes", "", "nan", "2", "-1.5"):
        error = labelled(load, folder, path, [header, *rows[:2], ["0002.png", value, 0]])
        assert error == f"{path} gives {value!r} as Male of 0002.png, {allowed}"
    error = labelled(load, folder, path, [header, *rows[:2], ["0002.png"]])
    assert error == f"{path} gives '' as Male of 0002.png, {allowed}"
    error = labelled(load, folder, path, [header, *rows], ["Male"] * 14)
    assert error == "14 label columns were given, but at most 13 are possible"
    error = labelled(load, folder, path, [header, *rows], ["Male", "Old", "Male"])
    assert error == "the label column 'Male' was given twice; name each once"
    begins = f"{path} must begin with the names of its columns, separated by commas, but begins with "
    assert labelled(load, folder, path, [["3"], ["Male Old"], ["0000.png 1 -1"]]) == f"{begins}'3'"
    assert labelled(load, folder, path, [["file;Male"], ["0000.png;1"]]) == f"{begins}'file;Male'"
    assert "can't be read as CSV" in error_of(load, [folder], 8, labels=tmp_path / "no", label_columns=["a"])
    for options in ({"labels": path}, {"label_columns": ["Male"]}):
        assert "only one was given" in error_of(load, [folder], 8, **options)


def test_one_file_name_twice_is_refused_only_with_labels(load, make_images, tmp_path):
    first, second = make_images(2, folder="a"), make_images(1, folder="b")
    assert len(load([first, second], 8)) == 3
    table = write_labels(tmp_path / "l.csv", [["file", "Male"], ["0000.png", 1], ["0001.png", 1]])
    error = error_of(load, [first, second], 8, labels=table, label_columns=["Male"])
    assert (
        error.startswith(f"{first}/0000.png and {second}/0000.png have the same file name")
        and "rename" in error
    )


# Refusals


def test_sources_that_hold_nothing_to_train_on_are_refused(load, tmp_path):
    empty, text, broken = tmp_path / "empty", tmp_path / "notes.txt", tmp_path / "broken.zip"
    empty.mkdir()
    text.write_text("no images")
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    hollow = zip_folder(empty, tmp_path / "hollow.zip")
    suffixes = "(.jpg, .jpeg, .png, .webp, .avif)"

    assert error_of(load, [], 8) == "no data source was given; name a folder of images or a .zip"
    missing = f"data source {tmp_path}/no does not exist; name a folder of images or a .zip"
    assert error_of(load, [tmp_path / "no"], 8) == missing
    assert error_of(load, [text], 8) == f"data source {text} is neither a folder nor a .zip"
    assert error_of(load, [broken], 8).startswith(f"data source {broken} can't be read as a .zip")
    for source in (empty, hollow):
        assert error_of(load, [source], 8) == f"data source {source} holds no images {suffixes}"


@pytest.mark.parametrize("kind", [str, Path])
def test_one_source_and_one_label_column_may_be_given_by_themselves(load, make_images, tmp_path, kind):
    folder = make_images(3)
    labels = write_labels(
        tmp_path / "labels.csv", [["file", "Male"], *([p.name, 1] for p in folder.iterdir())]
    )
    alone = load(kind(folder), 32, labels=labels, label_columns="Male")
    listed = load([kind(folder)], 32, labels=labels, label_columns=["Male"])
    assert alone.class_names == listed.class_names and len(alone.class_names) == 2
    np.testing.assert_array_equal(alone.images, listed.images)
    np.testing.assert_array_equal(alone.labels, [1, 1, 1])


PIXELS = np.zeros((2, 32, 32, 3), np.uint8)


def test_a_set_of_no_images_may_have_classes():
    assert ImageSet(PIXELS[:0], np.zeros(0, np.int64), ("a", "b")).class_counts == (0, 0)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            [PIXELS.astype(np.float32)],
            "images must be uint8 of shape (N, S, S, 3), but are float32 of shape (2, 32, 32, 3)",
        ),
        (
            [PIXELS.transpose(0, 3, 1, 2)],
            "images must be uint8 of shape (N, S, S, 3), but are uint8 of shape (2, 3, 32, 32)",
        ),
        ([PIXELS[0]], "images must be uint8 of shape (N, S, S, 3), but are uint8 of shape (32, 32, 3)"),
        (
            [PIXELS, np.zeros(3, np.int64), ("a",)],
            "2 images need as many labels, int64, but int64 of shape (3,) were given",
        ),
        (
            [PIXELS, np.zeros(2, np.uint8), ("a",)],
            "2 images need as many labels, int64, but uint8 of shape (2,) were given",
        ),
        ([PIXELS, None, ("a", "b")], "2 images need as many labels, int64, but none were given"),
        ([PIXELS, np.array([0, 1])], "labels run from 0 to 1, but there are 0 class_names"),
        ([PIXELS, np.array([0, 2]), ("a", "b")], "labels run from 0 to 2, but there are 2 class_names"),
        ([PIXELS, np.array([-1, 1]), ("a", "b")], "labels run from -1 to 1, but there are 2 class_names"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_set_whose_parts_do_not_fit_is_refused(parts, sentence):
    with pytest.raises(DataError) as error:
        ImageSet(*parts)
    assert str(error.value) == sentence


@pytest.mark.parametrize("sources", ["", [""], ["images", ""]], ids=repr)
def test_an_empty_name_does_not_stand_for_the_folder_one_is_in(load, make_images, monkeypatch, sources):
    monkeypatch.chdir(make_images(2).parent)
    sentence = "a data source has an empty name; name a folder of images or a .zip"
    assert error_of(load, sources, 8) == sentence
    with pytest.raises(DataError, match=sentence):
        data.reads("", Path("runs/one"))
    assert len(load(".", 8)) == 2


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_other_kinds_are_counted_and_hidden_ones_are_not(load, make_images, tmp_path, packed):
    folder = make_images(4)
    for name in ("0000.heic", "0001.HEIC", "more/notes", ".hidden", "__MACOSX/._0000.heic"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no picture")
    source = zip_folder(folder, tmp_path / "images.zip") if packed else folder
    with pytest.warns(UserWarning) as told:
        assert len(load([make_images(2, folder="pure"), source], 8)) == 6
    assert [str(warning.message) for warning in told] == [
        f"left out 3 of the 7 files in {source}, which are not .jpg, .jpeg, .png, .webp, .avif, for example "
        "0000.heic"
    ]
    assert told[0].filename == __file__


def test_every_source_must_hold_images(load, make_images, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no images" in error_of(load, [make_images(1), tmp_path / "empty"], 8)


def test_images_smaller_than_the_crop_are_counted(load, make_images):
    folder = make_images(5, size=40)
    make_images(2, size=(40, 39), folder="images/low")
    assert error_of(load, [folder], 8, crop=40) == (
        f"2 of 7 images are smaller than the crop of 40 pixels, for example {folder}/low/0000.png (40 x 39); "
        "choose a smaller crop or remove them"
    )
    assert len(load([folder], 8, crop=39)) == 7
    assert "crop is 0" in error_of(load, [folder], 8, crop=0)


def test_up_to_one_percent_unreadable_are_named_and_left_out(load, make_images, monkeypatch):
    folder = make_images(200, size=8)
    (folder / "0007.png").write_bytes(b"broken")
    (folder / "0120.png").write_bytes((folder / "0120.png").read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"left out 2 of 200 images as unreadable: .*0007\.png.*0120\.png"):
        images = load([folder], 8)
    kept = [i for i in range(200) if i not in (7, 120)]
    wanted = [np.asarray(Image.open(folder / f"{i:04}.png")) for i in kept]
    np.testing.assert_array_equal(images.images, wanted)

    forbid_decoding(monkeypatch)
    with pytest.warns(UserWarning, match=r"left out 2 of \d+ images as unreadable"):
        assert len(load([folder], 8)) == 198


def test_more_than_one_percent_unreadable_is_an_error(load, make_images, tmp_path):
    folder = make_images(199, size=8)
    for i in (3, 4):
        (folder / f"{i:04}.png").write_bytes(b"broken")
    error = error_of(load, [folder], 8)
    assert error.startswith("2 of 199 images can't be read, more than 1 percent, for example ")
    assert f"{folder}/0003.png (UnidentifiedImageError" in error and error.endswith("repair or remove them")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("archived", [False, True])
def test_an_image_that_the_disk_refuses_is_named_and_never_left_out(
    load, make_images, tmp_path, monkeypatch, archived
):
    source = make_images(200, size=8)
    if archived:
        source = zip_folder(source, tmp_path / "images.zip")
    opened, read = Image.open, zipfile.ZipFile.read

    def refuse(name: object) -> None:
        if str(name).endswith("0007.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as refusing:
        refusing.setattr(Image, "open", lambda file, **options: refuse(file) or opened(file, **options))
        refusing.setattr(zipfile.ZipFile, "read", lambda self, name: refuse(name) or read(self, name))
        assert error_of(load, [source], 8) == (
            f"{source}/0007.png can't be read: Permission denied; put that right or remove it"
        )
    assert len(load([source], 8)) == 200


def test_a_damaged_zip_member_and_a_foreign_format_are_unreadable(load, make_images, tmp_path):
    folder = make_images(1)
    Image.open(folder / "0000.png").save(folder / "0001.png", format="TIFF")
    archive = zip_folder(folder, tmp_path / "images.zip")
    content = bytearray(archive.read_bytes())
    content[500] ^= 255  # inside the pixels of 0000.png
    archive.write_bytes(content)
    assert "2 of 2 images can't be read" in error_of(load, [archive], 8)


def test_a_decompression_bomb_is_an_unreadable_image(load, make_images, monkeypatch):
    folder = make_images(100, size=8)
    make_images(1, size=60, folder="images/bomb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(UserWarning, match=r"bomb/0000\.png \(DecompressionBombError"):
        assert len(load([folder], 8)) == 100


def test_of_a_zip_nothing_is_unpacked_that_would_be_too_large(load, make_images, tmp_path, monkeypatch):
    make_images(100, size=8)
    with zipfile.ZipFile(zip_folder(tmp_path / "images", tmp_path / "images.zip"), "a") as archive:
        archive.writestr("bomb.png", bytes((3 << 20) + 1), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(data, "MAX_FILE_BYTES", 3 << 20)
    unpacked, read = [], zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda archive, name: unpacked.append(name) or read(archive, name)
    )
    with pytest.warns(UserWarning, match=r"bomb\.png \(unpacked, it is larger than 3 MiB\)"):
        assert len(load([tmp_path / "images.zip"], 8)) == 100
    assert len(unpacked) == 100 and "bomb.png" not in unpacked


def test_a_thread_of_pixels_is_an_unreadable_image(load, make_images):
    """Resized by its shorter side, it would take gigabytes."""
    folder = make_images(200, size=8)
    make_images(1, size=(200, 2), folder="images/wide")
    make_images(1, size=(2, 202), folder="images/high")
    with pytest.warns(
        UserWarning,
        match=r"left out 1 of \d+ images as unreadable: .*high/0000\.png \(2 x 202 is too narrow\)",
    ):
        assert len(load([folder], 8)) == 201


def test_of_a_thread_of_pixels_the_centre_is_cut_out_where_a_crop_is_given(load, make_images):
    path = make_images(1, size=(8, 816)) / "0000.png"
    expected = np.asarray(Image.open(path))[404:412]
    np.testing.assert_array_equal(load([path.parent], 8, crop=8).images, [expected])


@pytest.mark.parametrize(
    "error", [NotImplementedError("zip file version 9.9"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")]
)
def test_an_archive_that_the_library_cannot_read_is_named(load, tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    (tmp_path / "a.zip").touch()
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    assert (
        error_of(load, [tmp_path / "a.zip"], 8)
        == f"data source {tmp_path}/a.zip can't be read as a .zip: {error}"
    )


def test_an_entry_of_an_archive_without_a_name_is_no_image(load, make_images, tmp_path):
    archive = zip_folder(make_images(2), tmp_path / "images.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(zipfile.ZipInfo(""), b"nameless")
        opened.writestr(zipfile.ZipInfo("folder.png/"), b"")
    assert len(load([archive], 8)) == 2


def test_a_good_data_set_gives_no_warning(load, make_images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_batch(load([make_images(3)], 8).images[:2])


# Batches


def test_bytes_map_to_minus_one_and_one_exactly_and_back():
    values = np.arange(256, dtype=np.uint8)
    batch = to_batch(np.repeat(values[:, None], 12, 1).reshape(256, 2, 2, 3))
    assert batch.shape == (256, 3, 2, 2) and batch.dtype == torch.float32
    assert batch[0].eq(-1).all() and batch[255].eq(1).all()
    wanted = torch.tensor([value / 127.5 - 1 for value in range(256)], dtype=torch.float64)
    torch.testing.assert_close(batch[:, 0, 0, 0].double(), wanted, rtol=0, atol=1e-7)
    assert (127.5 * (batch[:, 0, 0, 0] + 1)).round().byte().tolist() == values.tolist()


def test_the_bytes_of_a_batch_are_found_again_and_what_lies_outside_becomes_the_nearest(rng):
    images = rng.integers(0, 256, (3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(to_uint8(to_batch(images)), images)
    odd = (
        torch.tensor([-1.5, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.5]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    )
    assert to_uint8(odd)[0, :, :, 0].tolist() == [[0, 0], [1, 255]]


def test_a_batch_is_channels_last_and_every_pixel_is_in_its_place(rng):
    images = random_pixels(rng, 5, 7 * 7).reshape(5, 7, 7, 3)
    batch = to_batch(torch.from_numpy(images))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for _ in range(50):
        n, channel, row, column = (rng.integers(length) for length in batch.shape)
        wanted = images[n, row, column, channel] / 127.5 - 1
        assert batch[n, channel, row, column].item() == pytest.approx(wanted, abs=1e-6)


def test_flips_mirror_the_chosen_images_left_to_right(rng):
    images = random_pixels(rng, 6, 9 * 9).reshape(6, 9, 9, 3)
    flip = rng.random(6) < 0.5
    flip[:2] = True, False
    flipped = to_batch(images, flip)
    assert flipped.is_contiguous(memory_format=torch.channels_last)
    for image, mirrored, got in zip(images, flip, flipped, strict=True):
        wanted = image[:, ::-1] if mirrored else image
        np.testing.assert_allclose(got.numpy(), np.moveaxis(wanted, 2, 0) / 127.5 - 1, atol=1e-6)


def test_a_batch_leaves_its_source_unchanged(rng):
    images = torch.from_numpy(random_pixels(rng, 4, 4 * 4).reshape(4, 4, 4, 3))
    before = images.clone()
    to_batch(images, torch.ones(4, dtype=torch.bool)).zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_a_batch_is_made_where_its_bytes_live(rng, device):
    images = torch.from_numpy(random_pixels(rng, 4, 4 * 4).reshape(4, 4, 4, 3))
    flip = batch_flips(4, 0, int(rng.integers(2**32)))
    batch = to_batch(images.to(device), flip)
    assert batch.device.type == device
    torch.testing.assert_close(batch.cpu(), to_batch(images, flip), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("length", "batch_size"), [(10, 3), (7, 7), (5, 16), (1, 4), (64, 1)])
def test_every_epoch_visits_every_image_exactly_once(rng, length, batch_size):
    seed = int(rng.integers(2**32))
    epochs = 6
    updates = -(-epochs * length // batch_size)
    batches = [batch_indices(length, batch_size, update, seed) for update in range(updates)]
    assert all(batch.shape == (batch_size,) and batch.dtype == np.int64 for batch in batches)
    order = np.concatenate(batches)[: epochs * length].reshape(epochs, length)
    np.testing.assert_array_equal(np.sort(order, 1), np.tile(np.arange(length), (epochs, 1)))
    if length > 5:
        assert len({tuple(epoch) for epoch in order}) > 1  # each epoch has an order of its own


def test_order_and_flips_depend_only_on_seed_and_update(rng):
    seed, updates = int(rng.integers(2**32)), rng.permutation(40)
    forwards = [(batch_indices(50, 8, u, seed), batch_flips(8, u, seed)) for u in range(40)]
    data._permutation.cache_clear()
    for update in updates:
        np.random.default_rng().random()
        np.testing.assert_array_equal(batch_indices(50, 8, int(update), seed), forwards[update][0])
        np.testing.assert_array_equal(batch_flips(8, int(update), seed), forwards[update][1])
    assert not np.array_equal(batch_indices(50, 50, 0, seed), batch_indices(50, 50, 0, (seed + 1) % 2**32))
    assert not np.array_equal(batch_flips(50, 0, seed), batch_flips(50, 0, (seed + 1) % 2**32))


def test_about_half_of_the_images_are_flipped_and_each_both_ways(rng):
    seed = int(rng.integers(2**32))
    flips = np.stack([batch_flips(64, update, seed) for update in range(200)])
    assert flips.dtype == bool
    assert abs(flips.mean() - 0.5) < 0.03  # six standard deviations
    assert set(Counter(flips[:, 0])) == {True, False}


def test_the_order_of_an_epoch_is_drawn_once(rng, monkeypatch):
    drawn = []
    draw = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda key: drawn.append(key) or draw(key))
    seed = int(rng.integers(2**32))
    for update in range(20):
        batch_indices(100, 10, update, seed)
    assert drawn == [[seed, 0], [seed, 1]]
