"""The current face of the page: where it lies in latent space, its link, and what the browser receives."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sagan import latents
from sagan.ui import pictures, texts

if TYPE_CHECKING:
    from sagan.networks import SaganConfig
    from sagan.sampler import Sampler


@dataclass(frozen=True)
class CurrentFace:
    """The point at share t of the way from seed_a to seed_b, truncated by psi, of class `label` if any."""

    seed_a: int
    seed_b: int
    t: float = 0.0
    psi: float = 1.0
    label: int | None = None

    @property
    def values(self) -> tuple[int, int, float, float, int | None]:
        """What the controls say of it, in the order of `Controls.inputs`."""
        return self.seed_a, self.seed_b, self.t, self.psi, self.label

    @property
    def name(self) -> str:
        """What files call it: its seed or, between two, both and how far along in percent; its class."""
        ends = {0.0: str(self.seed_a), 1.0: str(self.seed_b)}
        name = ends.get(self.t) or f"{self.seed_a}-{self.seed_b}-{int(100 * self.t + 0.5)}"
        return name if self.label is None else f"{name}-class-{self.label}"

    def latent(self, z_dim: int) -> np.ndarray:
        """Its latent, float32 (z_dim,). Raises ValueError for seeds, t or psi out of range."""
        a, b = (latents.from_seed(latents.check_seed(seed), z_dim) for seed in (self.seed_a, self.seed_b))
        # At either end the seed's own latent, to the bit.
        between = {0.0: a, 1.0: b}.get(self.t)
        return latents.truncate(latents.slerp(a, b, self.t) if between is None else between, self.psi)

    def inputs(self, config: "SaganConfig") -> tuple[np.ndarray, int | None]:
        """What a generator makes it from: its latent, and its class or None. Raises ValueError."""
        return self.latent(config.z_dim), check_label(self.label, config.num_classes)


def check_label(label: Any, num_classes: int) -> int | None:
    """`label` as the sampler wants it: None without classes, else an integer. Raises ValueError."""
    if not num_classes:
        return None
    if isinstance(label, bool) or label not in range(num_classes):
        raise ValueError(f"A class must be an integer from 0 to {num_classes - 1}, but was {label!r}.")
    return int(label)


def class_name(sampler: "Sampler", label: int | None) -> str:
    """What a class is called; "" without a class."""
    return "" if label is None else sampler.classes.names[label]


def first_class(sampler: "Sampler") -> int | None:
    """The class to begin with, one that was learned; None without classes."""
    return next(iter(sampler.classes.learned), None)


def labels_of(label: int | None, count: int = 1) -> np.ndarray | None:
    """One class for `count` faces, as `Sampler.faces` takes them: (count,), or None without classes."""
    return None if label is None else np.full(count, label)


def pictures_of(sampler: "Sampler", z: np.ndarray, psi: float, label: int | None) -> np.ndarray:
    """The faces of latents (N, z_dim), truncated by psi, of one class: uint8 (N, S, S, 3), or ValueError."""
    label = check_label(label, sampler.config.num_classes)
    return sampler.faces(latents.truncate(z, psi), labels_of(label, len(z)))


NAMED = 5  # of what is ignored in a link


def from_link(
    query: Mapping[str, str], start: CurrentFace, num_classes: int, also_ignored: Sequence[str] = ()
) -> tuple[CurrentFace, str]:
    """The face a link names, and one sentence on what in it was ignored ("" if nothing was).

    Reads seed, seed_b, t, psi and class; whatever is missing or invalid is taken from `start`. The sentence
    also names what others, who read other parts of the link, ignored in it.
    """
    readers = {
        "seed": ("seed_a", lambda text: latents.check_seed(int(text))),
        "seed_b": ("seed_b", lambda text: latents.check_seed(int(text))),
        "t": ("t", lambda text: latents.check_share("t", float(text))),
        "psi": ("psi", lambda text: latents.check_share("psi", float(text))),
        "class": ("label", lambda text: check_label(int(text), num_classes)),
    }
    face, ignored = start, []
    for name, (field, read) in readers.items():
        if name in query:
            try:
                face = replace(face, **{field: read(query[name])})
            except ValueError:
                ignored.append(f"{name}={query[name]}")
    ignored += also_ignored
    named = [value if len(value) <= 32 else f"{value[:31]}…" for value in ignored[:NAMED]] + ["…"] * (
        len(ignored) > NAMED
    )
    return face, texts.IGNORED.format(values=", ".join(named)) if ignored else ""


def layers_of(
    queries_keys: Mapping[str, tuple[np.ndarray, np.ndarray]], gammas: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Attention layers as the browser takes them."""
    return [
        {"name": name, "gamma": gammas[name], "q": pictures.base64_floats(q), "k": pictures.base64_floats(k)}
        for name, (q, k) in queries_keys.items()
    ]


def describe(sampler: "Sampler", face: CurrentFace, **extra: Any) -> str:
    """Everything the browser needs about a face, as JSON: picture, queries and keys of each layer, gammas.

    `extra` is added as it is: a notice, a query to light. It is one string because the page compares a
    component's value before and after each event, and strings are cheap to compare.
    """
    z, label = face.inputs(sampler.config)
    image, queries_keys = sampler.face_and_queries_keys(z, label)
    about = {
        "class_name": class_name(sampler, label),
        "image": pictures.png_uri(image),
        "layers": layers_of(queries_keys, sampler.gammas),
    }
    return json.dumps({**asdict(face), **about, **extra})


def signed(value: float) -> str:
    """A number in two places, with a true minus."""
    return f"{value:.2f}".replace("-", "−")
