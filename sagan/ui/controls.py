"""The controls that describe the current face, shared by all tabs, and the column that holds it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from sagan import heatmaps, latents
from sagan.ui import texts
from sagan.ui.components import view
from sagan.ui.current import CurrentFace, describe, first_class, from_link
from sagan.ui.lab import view_from_link
from sagan.ui.work import CHOICE, INTERACTIVE, failed, in_worker, within

if TYPE_CHECKING:
    from sagan.sampler import Sampler

MAX_SEED = latents.SEEDS - 1
START_SEED, START_SEED_B = 1, 7
START_QUERY = heatmaps.EYE


def any_seed() -> int:
    """A seed drawn anew."""
    return random.randrange(latents.SEEDS)


def seed_slider(value: int, label: str, elem_id: str, **options: Any) -> gr.Slider:
    """A slider over all seeds: drag it to browse, type into it for a certain one."""
    return gr.Slider(
        0,
        MAX_SEED,
        value,
        step=1,
        precision=0,
        label=label,
        elem_id=elem_id,
        elem_classes="seed",
        min_width=120,
        **options,
    )


def inline_button(label: str, elem_id: str, min_width: int = 120) -> gr.Button:
    """A button that stands beside sliders in a row."""
    return gr.Button(
        label, elem_id=elem_id, size="md", elem_classes="inline-button", min_width=min_width, scale=0
    )


@dataclass(frozen=True)
class Controls:
    """The five values of the current face, in the order of `inputs`, and the component that receives it.

    Seed B and t are placed by the Walk tab. In `asked`, never on screen, the browser numbers its requests.
    """

    sampler: "Sampler"
    seed: gr.Slider
    seed_b: gr.Slider
    t: gr.Slider
    psi: gr.Slider
    label: gr.Dropdown
    face: gr.HTML
    asked: gr.Number

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.seed, self.seed_b, self.t, self.psi, self.label]

    def new_face(
        self,
        listen: Callable,
        function: Callable,
        inputs: Sequence[gr.components.Component] = (),
        outputs: Sequence[gr.components.Component] = (),
        teller: gr.HTML | None = None,
        number: str = "numbered",
        **how: Any,
    ) -> None:
        """Let an event make another face the current one.

        `function` gets the number of the request and then `inputs`; it answers `outputs` and then the face. A
        request that failed is told by `teller`, or else where the face stands. `number` names what numbers
        requests in the page's script.
        """
        inputs = (self.asked, *inputs)
        js = f"(...values) => sagan.{number}(({within(inputs)})(...values))"
        asked = listen(function, inputs, [*outputs, self.face], js=js, **how)
        asked.failure(None, js=failed(teller or self.face))

    def about_face(self, listen: Callable, function: Callable, view: gr.HTML, **how: Any) -> None:
        """Let an event of a view ask about the face on screen, even while a control is elsewhere.

        `function` gets the event and the face; what it answers goes to the view.
        """

        async def answer(event: gr.EventData, *values: Any) -> Any:
            return await function(event, CurrentFace(*values))

        listen(answer, self.inputs, view, js="() => sagan.values()", **how).failure(None, js=failed(view))

    async def describe(self, asked: float, face: CurrentFace, **extra: Any) -> str:
        """A face as the browser wants it, which keeps the one that it asked for last."""
        return await in_worker(lambda: describe(self.sampler, face, asked=asked, **extra))

    async def show(
        self, asked: float, seed: int, seed_b: int, t: float, psi: float, label: int | None
    ) -> str:
        """The face of these five values, as the browser wants it."""
        return await self.describe(asked, CurrentFace(seed, seed_b, t, psi, label))

    async def show_seed(
        self, asked: float, seed: int, seed_b: int, psi: float, label: int | None
    ) -> tuple[float, str]:
        """The face of a seed that was just chosen: the walk returns to its start. Goes to t and the face."""
        return 0, await self.show(asked, seed, seed_b, 0, psi, label)


def start(sampler: "Sampler") -> CurrentFace:
    """The face of a first visit: the first curated one, if there are any. A walk goes to the second one."""
    seed = sampler.curated[0].seed if sampler.curated else START_SEED
    seed_b = sampler.curated[1].seed if len(sampler.curated) > 1 else START_SEED_B
    return CurrentFace(seed, seed_b, label=first_class(sampler))


def other_end(sampler: "Sampler", seed: int, seed_b: int) -> int:
    """A seed B to go with a face that was chosen for the visitor: theirs, or where that is it another one."""
    others = (face.seed for face in sampler.curated)
    return next((other for other in (seed_b, *others, START_SEED_B, START_SEED) if other != seed), seed_b)


def classes(sampler: "Sampler") -> list[tuple[str, int]]:
    """The classes to choose from, by what they are called; of those that were not learned it says so."""
    learned = sampler.classes.learned
    return [
        (name if label in learned else texts.NOT_LEARNED.format(name=name), label)
        for label, name in enumerate(sampler.classes.names)
    ]


def to_light(sampler: "Sampler", face: CurrentFace) -> dict:
    """What a page lights in the face that it opens with: of a curated one its query and its sentence."""
    for seed, query, text in sampler.curated:
        if (seed, 0, 1, first_class(sampler)) == (face.seed_a, face.t, face.psi, face.label):
            return {"query": query, "text": text}
    return {"query": START_QUERY, "text": ""}


def current_face(sampler: "Sampler") -> Controls:
    """Build the column of the current face with its controls, and their events."""
    first = start(sampler)
    with gr.Column(scale=0, min_width=272, elem_id="current"):
        starts = dict(zip(("seed", "seed-b", "t", "psi"), first.values, strict=False))
        face = view("face", texts=texts.FACE, starts=starts)
        with gr.Column(elem_id="current-controls", min_width=120):
            seed = seed_slider(first.seed_a, texts.SEED, "seed")
            dice = gr.Button(texts.DICE, elem_id="dice", size="md", min_width=80)
            psi = gr.Slider(0, 1, 1, step=0.01, label=texts.TRUNCATION, elem_id="psi", min_width=120)
            label = gr.Dropdown(
                classes(sampler),
                value=first.label,
                label=texts.CLASS,
                elem_id="label",
                visible=bool(sampler.config.num_classes),
            )
    seed_b = seed_slider(first.seed_b, texts.SEED_B, "seed-b", render=False)
    t = gr.Slider(0, 1, 0, step=0.01, label=texts.WAY, elem_id="t", render=False)
    asked = gr.Number(0, visible=False)
    controls = Controls(sampler, seed, seed_b, t, psi, label, face, asked)

    async def roll(asked: float, seed_b: int, psi: float, label: int | None) -> tuple[int, float, str]:
        chosen = any_seed()
        return chosen, *await controls.show_seed(asked, chosen, seed_b, psi, label)

    # Not `release`, which Gradio also sends where a slider is touched or left as it was.
    edits = {"number": "numberedIfEdited", **INTERACTIVE}
    controls.new_face(seed.input, controls.show_seed, [seed, seed_b, psi, label], [t], **edits)
    others = partial(gr.on, [psi.input, t.input, seed_b.input])
    controls.new_face(others, controls.show, controls.inputs, **edits)
    controls.new_face(label.input, controls.show, controls.inputs, **CHOICE)
    controls.new_face(dice.click, roll, [seed_b, psi, label], [seed, t], **CHOICE)
    face.late(None, controls.inputs, controls.inputs, js="(...now) => sagan.returned(now)")
    return controls


def open_link(controls: Controls, tabs: gr.Tabs, app: gr.Blocks) -> None:
    """When the page opens, show the face and the tab of its link, or the first ones.

    The browser is told which tab is on screen, "" for the first one, so that its links can say so.
    """
    names = [tab.id for tab in tabs.children]
    for tab in tabs.children:
        name = "" if tab.id == tabs.selected else tab.id
        tab.select(None, js=f"() => sagan.emit('tab', '{name}')")

    async def opened(request: gr.Request) -> tuple:
        sampler = controls.sampler
        query = request.query_params
        view, ignored = view_from_link(query, sampler)
        tab = query.get("tab")
        if tab not in (None, *names):
            ignored.append(f"tab={tab}")
        face, notice = from_link(query, start(sampler), sampler.config.num_classes, ignored)
        lit = {} if "pins" in view else to_light(sampler, face)
        if view.keys() & {"network", "direction"}:  # the sentence speaks of neither
            lit = {**lit, "text": ""}
        description = await controls.describe(0, face, notice=notice, view=view, **lit)
        shown = gr.Tabs(selected=tab) if tab in names else gr.skip()
        return *face.values, description, shown

    shown = [*controls.inputs, controls.face, tabs]
    app.load(opened, None, shown, **INTERACTIVE).failure(None, js=failed(controls.face))
