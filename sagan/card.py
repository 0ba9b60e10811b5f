"""What is told of a run in words: before it begins, and on the card of its checkpoint."""

import html
from pathlib import Path

import torch

from sagan.device import describe_device
from sagan.learner import Learner
from sagan.networks import layer_name


def summary(learner: Learner) -> str:
    """What is about to be trained, in two to five lines."""
    config, data, recipe, inherited = learner.config, learner.data, learner.recipe, learner.inherited
    sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in learner.networks.values()]
    precision = "bfloat16" if learner.bf16 else "float32"
    count = learner.processes.count
    together = f" in {count} processes" if count > 1 else ""
    lines = [
        f"{len(data):,} images of {config.image_size} px, {config.num_classes} classes",
        f"{sizes[0]:.1f} M weights in G, {sizes[1]:.1f} M in D; {precision} on {learner.device}{together}",
    ]
    if without := data.class_counts.count(0):
        name = data.class_names[data.class_counts.index(0)]
        lines.append(f"{without} classes have no image and will not be learned, for example '{name}'.")
    if recipe.loss == "wgan-gp":
        lines.append("Spectral norm in the discriminator is off: it fights wgan-gp's gradient penalty.")
    if learner.step > inherited.step:
        lines.append(f"Going on from step {learner.step}.")
    elif inherited.source:
        lines.append(f"Starting from '{inherited.source}', {learner.images:,} images shown before.")
    return "\n".join(lines)


def model_card(learner: Learner, about: dict) -> str:
    """The model card of this moment, in Markdown.

    about: plain data of the run, of which the card tells "data", its sources, and "command".
    """
    config, data, recipe, inherited = learner.config, learner.data, learner.recipe, learner.inherited
    size = config.image_size
    named = (Path(source).absolute().name for source in about.get("data", ()))  # also of "."
    sources = ", ".join(named) or "an unnamed source"
    hardware = f"{describe_device(learner.device)}, PyTorch {torch.__version__}"
    if learner.processes.count > 1:
        hardware = f"{learner.processes.count} processes, each on {hardware}"
    classes = html.escape("; ".join(data.class_names), quote=False) or "none"
    sides = {"generator": config.g_attention, "discriminator": config.d_attention}
    attention = [
        f"{' and '.join(map(layer_name, attending))} of the {network}"
        for network, attending in sides.items()
        if attending
    ]
    updates = ""
    if recipe.d_steps > 1:
        updates = f" with {recipe.d_steps} updates of the discriminator each"
    begun = ""
    if inherited.source:
        begun = f", of which '{inherited.source}' had taken {inherited.step:,} before"
    return "\n".join(
        [
            f"# A {'Self-Attention ' if attention else ''}GAN for {size}x{size} images",
            "",
            f"- Data: {len(data):,} images from {sources}",
            f"- Classes: {classes}",
            f"- Attention: {', '.join(attention) or 'none'}",
            f"- Images shown: {learner.images:,} in {learner.step:,} steps of batch {recipe.batch_size}"
            f"{updates}{begun}",
            f"- Time: {learner.seconds / 3600:.2f} hours on {hardware}",
            f"- Command: `{about.get('command', 'unknown')}`",
            f"- Loss: {recipe.loss}; spectral norm in the discriminator: "
            f"{'on' if config.d_spectral_norm else 'off, because it fights the gradient penalty'}",
            "",
            "Before you share it, say here what the images show, whose they are, under which licence,",
            "and what the model must not be used for.",
            "",
        ]
    )
