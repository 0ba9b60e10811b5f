"""The Training tab: a film of faces growing out of noise, with their attention, and the curves of the run."""

import math
from itertools import pairwise
from typing import Any

import gradio as gr
import numpy as np

from sagan import film
from sagan.checkpoint import FILM
from sagan.losses import PENALTIES
from sagan.ui import texts
from sagan.ui.attention import layer_props
from sagan.ui.components import view
from sagan.ui.controls import MAX_SEED, Controls
from sagan.ui.current import CurrentFace
from sagan.ui.downloads import served
from sagan.ui.footer import metric
from sagan.ui.work import CHOICE, failed, in_worker, number_of

POINTS = 300  # of a curve, at most: about one for each pixel
RISE = 1.5  # times: where a learning rate rises by so much, training began anew
KIMG = 1000

Row = dict[str, float]
Points = list[tuple[float, float]]


def training_tab(controls: Controls) -> None:
    """Build the tab and its events, if the checkpoint has a film or a history."""
    sampler = controls.sampler
    charts = curves(sampler.history, sampler.layers)
    filmed = sampler.film is not None
    if not filmed and not charts:
        return
    attends = bool(sampler.layers)
    labels = sampler.classes.in_turn(film.SEEDS) or []
    words = texts.ATTENTION | texts.TRAINING
    if not attends:
        words |= {"face": words["face_plain"], "help": words["help_plain"]}
    if labels:
        words |= {"help": f"{words['help']} {words['classes']}"}
    joints = joined(sampler.history) if charts else []
    with gr.Tab(texts.TRAINING_TAB, id="training"):
        training = view(
            "training",
            "layers",
            **layer_props(sampler) | ({} if filmed else {"layers": []}),
            texts=words,
            faces=[
                {"label": words["face"].format(seed=seed), "name": texts.FACE["seed"].format(seed=seed)}
                for seed in (film.SEEDS if filmed else ())
            ],
            seeds=list(film.SEEDS),
            labels=labels,
            side=sampler.config.image_size,
            has_layers=filmed and attends,
            joints=joints,
            notes=" ".join(words[name] for name in notes(sampler.history, charts, joints)),
            charts=[{**chart, "lines": [line["name"] for line in chart["lines"]]} for chart in charts],
        )

    def make(number: int) -> dict[str, Any]:
        value = {
            "number": number,
            "curves": [[line["points"] for line in chart["lines"]] for chart in charts],
        }
        if not filmed:
            return value | {"moments": moments(sampler.history)}
        return value | {"film": served(training, sampler.files[FILM], FILM)}

    async def want(event: gr.EventData) -> dict[str, Any]:
        return await in_worker(make, number_of(event, "number"))

    async def pick(event: gr.EventData, asked: float, seed_b: int) -> tuple:
        seed = number_of(event, "seed", MAX_SEED)
        labels = sampler.classes.in_turn([seed])
        face = CurrentFace(seed, seed_b, label=labels[0] if labels else None)
        return seed, 0, 1, face.label, await controls.describe(asked, face)

    training.want(want, None, training, **CHOICE).failure(None, js=failed(training))
    picked = [controls.seed, controls.t, controls.psi, controls.label]
    controls.new_face(training.pick, pick, [controls.seed_b], picked, **CHOICE)


def curves(history: list[Row], layers: tuple[str, ...]) -> list[dict[str, Any]]:
    """The charts of a history, where they are: losses, the generator's gammas, a metric and its floor.

    A line is its name and its points (images shown, value), two at least.
    """
    words = texts.TRAINING
    charts = [
        ("losses", words["losses"], {"d_loss": words["d_loss"], "g_loss": words["g_loss"]}),
        ("gammas", words["gammas"], {f"g_gamma_{layer}": layer for layer in layers}),
    ]
    if (column := metric(history)) and len(points(history, column)) > 1:
        title = words["metric"].format(metric=texts.METRICS[column])
        charts.append(("metric", title, {column: words["generated"], f"floor_{column}": words["floor"]}))
    drawn = []
    for chart, title, columns in charts:
        lines = [{"name": name, "points": points(history, column)} for column, name in columns.items()]
        if lines := [line for line in lines if len(line["points"]) > 1]:
            drawn.append({"id": chart, "title": title, "lines": lines})
    return drawn


def notes(history: list[Row], charts: list[dict[str, Any]], joints: list[float]) -> list[str]:
    """The names of the texts that explain what these charts and joints of a history show."""
    columns = {name for row in history for name in row}
    drawn = {chart["id"] for chart in charts}
    of_losses = {"hinge": "penalty" not in columns} | {name: name in columns for name in PENALTIES}
    names = [name for name, holds in of_losses.items() if holds and "losses" in drawn]
    if "metric" in drawn and metric(history) == "fid":
        names.append("fid")
    return [*names, "joined"] if joints else names


def points(history: list[Row], column: str) -> Points:
    """(images shown, value) of a column wherever it is a number; more than 300 are averaged in 300 stretches.

    Stretches are equally long in log2(1 + kimg), the axis on which the page draws them.
    """
    rows = [
        (row["images"], row[column]) for row in _known(history) if math.isfinite(row.get(column, math.nan))
    ]
    if len(rows) <= POINTS:
        return rows
    pairs = np.array(rows, np.float64)  # (n, 2)
    place = np.log2(1 + pairs[:, 0] / KIMG)
    edges = np.linspace(place.min(), place.max(), POINTS + 1)[1:-1]
    stretch = np.digitize(place, edges)
    count = np.bincount(stretch)
    means = [np.bincount(stretch, values)[count > 0] / count[count > 0] for values in pairs.T]
    return [(float(images), float(value)) for images, value in zip(*means, strict=True)]


def joined(history: list[Row]) -> list[float]:
    """After how many images shown training went on with a higher learning rate, as another run's."""
    rows = [row for row in _known(history) if math.isfinite(row.get("g_lr", math.nan))]
    return [before["images"] for before, row in pairwise(rows) if row["g_lr"] > RISE * before["g_lr"]]


def moments(history: list[Row]) -> list[dict[str, int]]:
    """Steps to scrub through where there is no film: at most 300 rows of the history, evenly spread."""
    rows = _known(history)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), POINTS)).round().astype(int))
    return [{"step": int(rows[i]["step"]), "images": int(rows[i]["images"])} for i in chosen]


def _known(history: list[Row]) -> list[Row]:
    """The rows that say when they were written."""
    known = ("step", "images")
    return [row for row in history if all(math.isfinite(row.get(name, math.nan)) for name in known)]
