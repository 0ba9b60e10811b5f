"""The web page: one current face, and a tab for every side of it. It speaks to `Sampler`, never to torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from sagan.ui import patches, texts
from sagan.ui.api import public_endpoints
from sagan.ui.attention import attention_tab
from sagan.ui.components import view
from sagan.ui.controls import current_face, open_link
from sagan.ui.faces import faces_tab
from sagan.ui.footer import footer
from sagan.ui.gate import Gate, broken
from sagan.ui.inside import inside_tab
from sagan.ui.lesson import lesson_tab, tour
from sagan.ui.training import training_tab
from sagan.ui.walk import walk_tab

if TYPE_CHECKING:
    from sagan.sampler import Sampler

STATIC = Path(__file__).parent / "static"
SESSIONS = 200  # of which Gradio keeps the last answers, 1 MB each; the page itself keeps what it needs
SCRIPTS = ("model", "attention", "page", "frame", "lab", "pointer", "panel", "files", "snapshot")


def build_app(sampler: "Sampler | None", message: str = "") -> gr.Blocks:
    """The page over a loaded checkpoint; without one, a page that says `message` and what to do.

    Launch it with `app.launch(**launch_options())`.
    """
    with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=(60, 600)) as app:
        app.model = (sampler and sampler.sha256) or "none"  # the gate names it in answers
        # Those who chose faces worth a look know that these are faces.
        shows_faces = sampler is None or bool(sampler.curated)
        view(
            "header",
            texts=texts.HEADER | ({"what": texts.HEADER["what_faces"]} if shows_faces else {}),
            has_face=sampler is not None,
            has_attention=sampler is not None and bool(sampler.layers),
        )
        if sampler is None:
            gr.Markdown(
                f"## {texts.NO_CHECKPOINT}\n\n{message}\n\n{texts.WHAT_TO_DO}", elem_id="no-checkpoint"
            )
            return app
        with gr.Row(elem_id="page"):
            controls = current_face(sampler)
            with gr.Column(elem_id="tabs", min_width=320):
                card = tour(sampler) if sampler.layers else None
                with gr.Tabs(selected="attention" if sampler.layers else "faces") as tabs:
                    faces_tab(controls)
                    walk_tab(controls)
                    if sampler.layers:
                        attention_tab(controls)
                    training_tab(controls)
                    inside_tab(controls, tabs)
                    if card:
                        lesson_tab(controls, tabs, card)
        footer(sampler)
        public_endpoints(sampler)
        open_link(controls, tabs, app)
    app.queue(max_size=64, api_open=False)
    patches.apply(app)
    return app


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` needs for this page: its look, its scripts, and bounds on what visitors use."""
    # In the head, because Gradio's `css` reaches only the inner part of the page.
    style = f"<style>{_static('page.css')}</style>"
    scripts = (f"<script>{_static(f'{name}.js')}</script>" for name in SCRIPTS)
    return {
        "theme": _theme(),
        "head": "".join((style, *scripts)),
        "run_history": False,  # it writes every answer to the browser's storage, which makes sliders slow
        "footer_links": ["api"],
        "ssr_mode": False,  # Spaces turn it on; the page is tested as Python alone serves it
        "app_kwargs": {"middleware": [Middleware(Gate)], "exception_handlers": {Exception: broken}},
        "state_session_capacity": SESSIONS,
    }


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _theme() -> gr.Theme:
    """Gradio's own look, with the contrast of small texts and of the accent raised to AA."""
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        # The semi-bold file that Gradio ships holds only a few letters.
        font=(
            gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)),
            "ui-sans-serif",
            "system-ui",
            "sans-serif",
        ),
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_600",
    )
