"""The worksheet for a class: eight exercises on one page, and the answers, in the model's own figures."""

import html
import math
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from sagan import heatmaps
from sagan.latents import from_seeds
from sagan.networks import side_of
from sagan.ui import texts
from sagan.ui.current import CurrentFace, class_name, first_class, labels_of, signed
from sagan.ui.lab import Pin, cell_of

if TYPE_CHECKING:
    from sagan.sampler import Sampler

TEMPLATE = Path(__file__).parent / "components" / "lesson" / "worksheet.html"
SCORED = range(1, 7)  # seeds whose scores an exercise asks for


def page(sampler: "Sampler", face: tuple[int, tuple[float, float]]) -> str:
    """The worksheet about a seed and a point of its face, (x, y) in shares of it: a whole HTML document."""
    seed, point = face
    pixel = heatmaps.cell(point, sampler.config.image_size)
    known = figures(sampler, seed, pixel)
    words = {name: text for name, text in texts.WORKSHEET.items() if isinstance(text, str)}
    label = first_class(sampler)
    of_class = "" if label is None else words["of_class"].format(name=class_name(sampler, label))
    words["subtitle"] = words["subtitle"].format(seed=seed, x=pixel[0], y=pixel[1], of_class=of_class)
    exercises = [
        {part: text.format(**known) for part, text in exercise.items()}
        for exercise in texts.WORKSHEET["exercises"]
        if sampler.discriminator_layers or not exercise.get("of_scores")
    ]
    filled = {
        "query": f"?seed={seed}&psi=1&pins={pixel[0]}-{pixel[1]}" + (f"&class={label}" if of_class else ""),
        "exercises": "".join(
            f'<li><b class="tab">{html.escape(one["tab"])}</b> {html.escape(one["ask"])}<i></i><i></i></li>'
            for one in exercises
        ),
        "solutions": "".join(f"<li>{html.escape(one['answer'])}</li>" for one in exercises),
    }
    escaped = {name: html.escape(text) for name, text in words.items()}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(escaped | filled)


def figures(sampler: "Sampler", seed: int, pixel: Pin) -> dict[str, str]:
    """What the exercises and their answers say of the model, of a seed and of a pixel (column, row)."""
    size, label = sampler.config.image_size, first_class(sampler)
    latent = CurrentFace(seed, seed).latent(sampler.config.z_dim)
    by_side = sorted(sampler.layers, key=side_of)
    coarse, fine = by_side[0], by_side[-1]

    def query(layer: str) -> int:
        return cell_of(pixel, size, side_of(layer))

    row = sampler.attention(latent, fine, label)[query(fine)]
    coarse_row = sampler.attention(latent, coarse, label)[query(coarse)]
    computed = sampler.computation(latent, fine, query(fine), label)
    first, fifth = (round(float(computed.logits[at]), 2) for at in (0, -1))
    gap = first - fifth  # of the figures that are printed

    off = dict.fromkeys(sampler.layers, 0.0)
    labels = labels_of(label)
    without, with_fine = (
        sampler.faces(latent[None], labels, gammas)[0].astype(int)
        for gammas in (off, off | {fine: sampler.gammas[fine]})
    )
    scores = _scores(sampler)
    return {
        "coarse": coarse,
        "fine": fine,
        "all": f"{side_of(fine) ** 2:,}",
        "coarse_all": f"{side_of(coarse) ** 2:,}",
        "nine": f"{900 / side_of(fine) ** 2:.2g}",
        "outside": _percent(heatmaps.share_outside(row, query(fine), side_of(fine))),
        "first": signed(first),
        "fifth": signed(fifth),
        "gap": f"{gap:.2f}",
        "ratio": f"{math.exp(gap):,.3g}",
        "first_share": f"{computed.weights[0]:.3g}",
        "fifth_share": f"{computed.weights[-1]:.3g}",
        "times": f"{heatmaps.times_uniform(coarse_row).max():.1f}",
        "share": _percent(coarse_row.max()),
        "cells": "; ".join(
            f"{layer}: {size // side_of(layer)} pixels, {side_of(layer) ** 4:,} shares" for layer in by_side
        ),
        "pixel_shares": f"{size**4:,}",
        "change": f"{np.abs(with_fine - without).mean():.1f}",
        "bits": f"{math.log2(side_of(fine) ** 2):g}",
        "entropy": f"{heatmaps.entropy_bits(row):.1f}",
        "scores": ", ".join(f"{seed}: {signed(score)}" for seed, score in scores.items()),
        "best": str(max(scores, key=scores.get)) if scores else "",
    }


def _scores(sampler: "Sampler") -> dict[int, float]:
    """The discriminator's scores of the seeds that an exercise asks for; with classes, of the first."""
    if not sampler.discriminator_layers:  # then the page does not show them
        return {}
    latents = from_seeds(SCORED, sampler.config.z_dim)
    labels = labels_of(first_class(sampler), len(latents))
    return dict(zip(SCORED, sampler.score(sampler.faces(latents, labels), labels).tolist(), strict=True))


def _percent(share: float) -> str:
    """As the page says it (static/panel.js): softmax leaves no place out, so never 100."""
    return "> 99.9" if share > 0.9995 else f"{100 * share:.1f}"
