"""The page's own components. Each folder holds one: template.html, style.css and script.js.

A template stays the same while its component lives: `script.js` reads `props.value` and draws. Only texts of
the project enter a template; whatever a visitor or a checkpoint wrote is set as `textContent`.
"""

from pathlib import Path
from typing import Any

import gradio as gr

FOLDER = Path(__file__).parent


def view(name: str, *parts: str, **props: Any) -> gr.HTML:
    """The component in the folder `name`; `props` reach its template and its script.

    `parts` are folders that components share: in the template, {{> part}} stands for that of the part, and
    its style and script come before the component's own.
    """

    def read(folder: str, file: str) -> str:
        return (FOLDER / folder / file).read_text(encoding="utf-8")

    template = read(name, "template.html")
    for part in parts:
        template = template.replace(f"{{{{> {part}}}}}", read(part, "template.html"))
    return gr.HTML(
        None,
        html_template=template,
        css_template="".join(read(folder, "style.css") for folder in (*parts, name)),
        js_on_load="".join(read(folder, "script.js") for folder in (*parts, name)),
        apply_default_css=False,
        elem_id=f"{name}-view",
        elem_classes="view",
        **props,
    )
