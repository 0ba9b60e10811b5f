"""The page's own components. Each folder holds one: template.html, style.css and script.js.

A template stays the same while its component lives: `script.js` reads `props.value` and draws. Only texts of
the project enter a template; whatever a visitor or a checkpoint wrote is set as `textContent`.
"""

from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent


def view(name: str, **props: Any) -> gr.HTML:
    """The component in the folder `name`; `props` reach its template and its script."""
    template, style, script = (
        (FOLDER / name / file).read_text(encoding="utf-8")
        for file in ("template.html", "style.css", "script.js")
    )
    return gr.HTML(
        None,
        html_template=template,
        css_template=style,
        js_on_load=script,
        apply_default_css=False,
        elem_id=f"{name}-view",
        elem_classes="view",
        **props,
    )
