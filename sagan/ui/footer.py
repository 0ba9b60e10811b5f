"""The last lines of the page: the model in one line, its card, where it comes from."""

from typing import TYPE_CHECKING

import gradio as gr

from sagan.checkpoint import RUN_CHECKPOINT
from sagan.ui import texts
from sagan.ui.components import view

if TYPE_CHECKING:
    from sagan.sampler import Sampler

METRIC = "face_fd"


def footer(sampler: "Sampler") -> None:
    """Build the footer."""
    view("footer", texts=texts.FOOTER, line=model_line(sampler))
    if sampler.card:
        with gr.Accordion(texts.CARD, open=False, elem_id="card"):
            gr.Markdown(sampler.card)


def model_line(sampler: "Sampler") -> str:
    """The model card in one line: name, size, images shown and the metric, as far as they are known."""
    folder = sampler.source
    name = (folder.parent if folder.name == RUN_CHECKPOINT else folder).name if folder else texts.TITLE
    newest: dict[str, float] = {}
    for row in sampler.history:
        newest.update(row)
    parts = [name, texts.FOOTER_SIZE.format(size=sampler.config.image_size)]
    if "images" in newest:
        parts.append(texts.FOOTER_SHOWN.format(images=int(newest["images"])))
    if METRIC in newest:
        parts.append(f"{METRIC} {newest[METRIC]:.0f}")
    return " · ".join(parts)
