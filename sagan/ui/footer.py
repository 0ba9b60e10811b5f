"""The last lines of the page: the model in one line, its card, where it comes from."""

import math
import re
from typing import TYPE_CHECKING

import gradio as gr

from sagan.checkpoint import RUN_CHECKPOINT
from sagan.ui import texts
from sagan.ui.components import view

if TYPE_CHECKING:
    from sagan.sampler import Sampler


def footer(sampler: "Sampler") -> None:
    """Build the footer."""
    view("footer", texts=texts.FOOTER, line=model_line(sampler), has_card=bool(sampler.card))
    if sampler.card:
        with gr.Accordion(texts.CARD, open=False, elem_id="card"):
            gr.Markdown(sampler.card)


def model_line(sampler: "Sampler") -> str:
    """The model card in one line: name, size, images shown and the metric, as far as they are known.

    Beside the metric stands its floor, what it is between real images, and after how many images it was
    measured where more were shown since.
    """
    newest: dict[str, float] = {}
    for row in sampler.history:
        newest.update((name, value) for name, value in row.items() if math.isfinite(value))
    parts = [model_name(sampler), texts.FOOTER_SIZE.format(size=sampler.config.image_size)]
    if "images" in newest:
        parts.append(texts.FOOTER_SHOWN.format(images=int(newest["images"])))
    if column := metric(sampler.history):
        floor = f"floor_{column}"
        sentence = texts.FOOTER_METRIC_FLOOR if floor in newest else texts.FOOTER_METRIC
        figures = {"value": _brief(newest[column]), "floor": _brief(newest.get(floor, math.nan))}
        measured = next(row for row in reversed(sampler.history) if math.isfinite(row.get(column, math.nan)))
        then = measured.get("images", math.nan)
        when = texts.FOOTER_METRIC_THEN.format(images=int(then)) if then < newest.get("images", 0) else ""
        parts.append(sentence.format(metric=texts.METRICS[column] + when, **figures))
    return " · ".join(parts)


def metric(history: list[dict[str, float]]) -> str | None:
    """The column of texts.METRICS that was measured last, the first of several; None where none was."""
    for row in reversed(history):
        if column := next((name for name in texts.METRICS if math.isfinite(row.get(name, math.nan))), None):
            return column
    return None


def _brief(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def model_name(sampler: "Sampler") -> str:
    """The first heading of the model card; without one, the name of the checkpoint's or the run's folder."""
    if heading := re.search(r"^# +(\S.*)$", sampler.card, re.MULTILINE):
        return heading[1].strip()
    if sampler.source is None:
        return texts.TITLE
    folder = sampler.source
    if folder.parent.name == "snapshots":  # where the Hub keeps "models--OWNER--NAME/snapshots/COMMIT"
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    # After a crash the checkpoint may be ".NAME.previous".
    name = folder.name.removeprefix(".").removesuffix(".previous")
    return folder.parent.name if name == RUN_CHECKPOINT else name
