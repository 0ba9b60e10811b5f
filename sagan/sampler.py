"""A loaded checkpoint, ready to answer: faces, attention, scores. Numpy in, numpy out."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sagan import average_maps, checkpoint, inside, spectra
from sagan.classes import Classes
from sagan.data import to_batch, to_uint8
from sagan.film import Film
from sagan.inside import Computation
from sagan.latents import check_seed, from_seed
from sagan.layers import Override
from sagan.networks import (
    Discriminator,
    Generator,
    Network,
    NetworkExtras,
    discriminator_key,
    layer_name,
    learned_gammas,
    side_of,
)
from sagan.seeds import Labels
from sagan.spectra import Spectrum
from sagan.workers import each

QueriesKeys = dict[str, tuple[np.ndarray, np.ndarray]]  # by layer; both float32 (n*n, d)


class CuratedFace(NamedTuple):
    """A face worth a look: its seed, a query (x, y) in shares of the image's width and height, and why."""

    seed: int
    query: tuple[float, float]
    text: str


class Sampler:
    """The networks of one checkpoint, read-only and safe to share between threads.

    Every forward is float32, one face, one thread, so that a face has the same bytes alone, in a sheet and
    after a restart. Latents are finite numbers, (z_dim,) or (N, z_dim); labels are integers from 0 on, needed
    wherever the model has classes; gammas is {layer: value} and stands in for the learned ones in that call,
    maps {layer: (n*n, n*n)} for the attention of all its faces, n being the layer's side: row i is how query
    position i spreads over the keys; values {layer: {position: (C,)}} for what single positions, row * n +
    column, tell those that look at them.
    What cannot be answered raises ValueError, in a sentence that says what was given and what is allowed.

    config         what the networks are
    classes        the names of the classes, and which of them were learned
    layers         names of the generator's attention layers, for example ("16x16", "32x32")
    gammas         the learned gamma of each of them
    source         the checkpoint folder, None if there is none
    history, card  the training run as rows of numbers, and the model card in Markdown
    curated        faces worth a look, () where nobody chose any
    film           the film of the training, None where there is none
    average_maps   the path of the file of `sagan.average_maps`, None where there is none that fits
    files          the bytes of both files by name, where there are any: a run may replace those on disk
    sha256         that of generator.safetensors, None without a checkpoint
    discriminator_layers, discriminator_gammas
                   as layers and gammas, in the order in which an image meets them: ("8x8", "4x4")
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        classes: Classes | None = None,
    ) -> None:
        """A sampler over copies of two plain (`spectral=False`) networks, with nothing beside them.

        Unless classes are given, those of the networks are called by their numbers, and all were learned.
        """
        self._generator, self._discriminator = _copied(generator), _copied(discriminator)
        self.config = generator.config
        self.classes = classes or Classes(tuple(map(str, range(self.config.num_classes))))
        self.layers = tuple(generator.attention)
        self.gammas = {layer: gamma.item() for layer, gamma in learned_gammas(self._generator).items()}
        self.discriminator_layers = tuple(layer_name(side) for side in reversed(self.config.d_attention))
        learned = learned_gammas(self._discriminator)
        self.discriminator_gammas = {layer: learned[layer].item() for layer in self.discriminator_layers}
        self._first_vectors: dict[str, np.ndarray] = {}  # of layers whose power iteration was asked for
        # What `load` finds beside them:
        self.source: Path | None = None
        self.history: list[dict[str, float]] = []
        self.card = ""
        self.curated: tuple[CuratedFace, ...] = ()
        self._before: dict[str, np.ndarray] = {}  # singular values before normalisation
        self.film: Film | None = None
        self.average_maps: Path | None = None
        self.files: dict[str, bytes] = {}
        self.sha256: str | None = None

    @classmethod
    def load(cls, source: str | Path) -> "Sampler":
        """Open a checkpoint folder, a run folder or a Hub id "owner/name".

        Raises CheckpointError, which is a ValueError, also where a run saves another one meanwhile.
        """
        folder = checkpoint.find(source)
        sha256 = checkpoint.generator_hash(folder)
        _, classes = checkpoint.load_config(folder)
        networks = checkpoint.load_generator(folder), checkpoint.load_discriminator(folder)
        anew = f"'{folder}' was saved anew while it was read: open it again."
        try:
            sampler = cls(*networks, classes)
            sampler._take_along(folder)
        except FileNotFoundError as error:
            raise checkpoint.CheckpointError(anew) from error
        if sampler.sha256 != sha256:  # it is read last
            raise checkpoint.CheckpointError(anew)
        try:
            sampler.faces([from_seed(0, sampler.config.z_dim)], sampler.classes.in_turn([0]))
        except ValueError as error:
            sentence = f"'{folder}' makes no pictures: its weights are too large to compute with."
            raise checkpoint.CheckpointError(sentence) from error
        return sampler

    def _take_along(self, folder: Path) -> None:
        """What lies beside the weights."""
        self.source = folder
        self.history = checkpoint.read_history(folder)
        self.card = checkpoint.read_card(folder)
        self.curated = _read_curated(folder)
        self._before = spectra.before_normalisation(folder, self.config)
        self.film = Film.load(folder, self.config)
        self.average_maps = average_maps.find(folder, self.config)
        paths = (folder / checkpoint.FILM if self.film else None, self.average_maps)
        self.files = {path.name: path.read_bytes() for path in paths if path}
        self.sha256 = checkpoint.generator_hash(folder)

    def faces(
        self,
        latents: np.ndarray | Sequence[np.ndarray],
        labels: Labels | None = None,
        gammas: Mapping[str, float] | None = None,
        maps: Mapping[str, np.ndarray] | None = None,
        values: Mapping[str, Mapping[int, np.ndarray]] | None = None,
    ) -> np.ndarray:
        """Latents (N, z_dim), and integer labels (N,) where there are classes -> uint8 (N, S, S, 3)."""
        overrides = self._overrides(gammas, maps, values)
        faces = [face for face, _ in self._generate(latents, labels, overrides)]
        size = self.config.image_size
        return np.array(faces, np.uint8).reshape(-1, size, size, 3)

    def face_and_queries_keys(
        self, latent: np.ndarray, label: int | None = None, gammas: Mapping[str, float] | None = None
    ) -> tuple[np.ndarray, QueriesKeys]:
        """The face of one latent, uint8 (S, S, 3), and its `queries_keys`, from one forward."""
        return self._generate_one(latent, label, gammas, "queries_keys")

    def queries_keys(
        self, latent: np.ndarray, label: int | None = None, gammas: Mapping[str, float] | None = None
    ) -> QueriesKeys:
        """{layer: (q, k)}, float32 (n*n, d) each; the rows of softmax(q @ k.T) are that layer's attention."""
        return self.face_and_queries_keys(latent, label, gammas)[1]

    def attention(
        self,
        latent: np.ndarray,
        layer: str,
        label: int | None = None,
        gammas: Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """The map of one layer, float32 (n*n, n*n): row i is how query position i spreads over the keys."""
        self._check_layer(layer)
        return self._generate_one(latent, label, gammas, "maps")[1][layer]

    def values(
        self, latent: np.ndarray, label: int | None = None, gammas: Mapping[str, float] | None = None
    ) -> dict[str, np.ndarray]:
        """{layer: float32 (n*n, C)}: what each position tells those that look at it."""
        parts = self._generate_one(latent, label, gammas, "parts")[1]
        return {layer: values for layer, (_, _, _, values) in parts.items()}

    def computation(
        self,
        latent: np.ndarray,
        layer: str,
        query: int,
        label: int | None = None,
        gammas: Mapping[str, float] | None = None,
    ) -> Computation:
        """How one query position of a layer, row * side + column, arrives at its output, in numbers."""
        self._check_layer(layer)
        _, parts = self._generate_one(latent, label, gammas, "parts")
        gamma = float((gammas or {}).get(layer, self.gammas[layer]))
        return inside.compute(*parts[layer], gamma, query)

    def activations(
        self, latent: np.ndarray, label: int | None = None, gammas: Mapping[str, float] | None = None
    ) -> dict[str, np.ndarray]:
        """What every block of the generator puts out for one latent, float32 (min(16, C), H, W) in order.

        Of C channels these are the first. "16x16" is that feature map after its convolution and residual
        blocks, "attention 16x16" what its attention makes of it, and "image", the last, is in [-1, 1].
        """
        return _first_maps(self._generate_one(latent, label, gammas, "activations")[1])

    def score(self, images: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """The discriminator's scores of images uint8 (N, S, S, 3): float32 (N,), higher is more real."""
        return np.array([score for score, _ in self._discriminate(images, labels)], np.float32)

    def discriminator_queries_keys(self, image: np.ndarray, label: int | None = None) -> QueriesKeys:
        """`queries_keys` of the discriminator's attention layers for one image uint8 (S, S, 3)."""
        return self.score_and_queries_keys(image, label)[1]

    def score_and_queries_keys(
        self, image: np.ndarray, label: int | None = None
    ) -> tuple[float, QueriesKeys]:
        """The discriminator's score of one image and its `discriminator_queries_keys`, from one forward."""
        return self._discriminate_one(image, label, "queries_keys")

    def discriminator_activations(self, image: np.ndarray, label: int | None = None) -> dict[str, np.ndarray]:
        """`activations` of the discriminator for one image uint8 (S, S, 3); "score" is the last."""
        return _first_maps(self._discriminate_one(image, label, "activations")[1])

    @cached_property
    def spectra(self) -> dict[str, Spectrum]:
        """What `sagan.spectra.describe` says of every normalised layer of both networks, by its name.

        That is {"generator/blocks.0.conv": {"shape", "matrix", "before", "after"}, ...}; worked out when it
        is first asked for (by two threads at once: twice, with one result).
        """
        return spectra.describe(self._generator, self._discriminator, self._before)

    def power_iteration(self, layer: str, seed: int, steps: int = 30) -> tuple[np.ndarray, np.ndarray]:
        """`sagan.spectra.power_iteration` on the shipped weight of a layer of `spectra`, steps from 0 to 100.

        Before normalisation all its estimates were larger by one factor, before[0] / after[0].
        """
        layers = spectra.layers(self._generator, self._discriminator)
        if layer not in layers:
            raise ValueError(f"There is no normalised layer {layer!r}; this model has {', '.join(layers)}.")
        matrix = spectra.matrix(layers[layer]).numpy()

        def first_vectors() -> np.ndarray:
            if layer not in self._first_vectors:
                self._first_vectors[layer] = spectra.first_left_vectors(matrix)
            return self._first_vectors[layer]

        return spectra.power_iteration(matrix, steps, seed, first_vectors)

    def raw_maps(
        self,
        latent: np.ndarray,
        label: int | None = None,
        gammas: Mapping[str, float] | None = None,
        about: Mapping[str, int | float | str] | None = None,
    ) -> dict[str, np.ndarray]:
        """All attention of one face as named arrays, for `np.savez_compressed(path, **raw_maps)`.

        face              uint8 (S, S, 3)
        score             float32 (), the discriminator's of that face
        latent            float32 (z_dim,), and label, int64 (), where there are classes
        LAYER/q, LAYER/k  float32 (n*n, d) of each layer: "16x16" and so on, and of the discriminator as it
                          sees that face, "discriminator 8x8" and so on
        LAYER/attention   float32 (n*n, n*n): row i is how query position i spreads over the keys
        LAYER/gamma       float32 (), learned or dialled
        about/NAME        what `about` says of the face, for example its seeds: numbers and words
        """
        added = {f"about/{name}": np.asarray(value) for name, value in (about or {}).items()}
        for name, value in added.items():
            if value.ndim or value.dtype.kind not in "biufU":
                raise ValueError(f"{name} must be a number or a word, but was {value.tolist()!r}.")
        face, queries_keys = self.face_and_queries_keys(latent, label, gammas)
        score, of_discriminator = self.score_and_queries_keys(face, label)
        arrays = {
            "face": face,
            "score": np.asarray(score, np.float32),
            "latent": np.asarray(latent, np.float32),
        }
        if label is not None:
            arrays["label"] = np.asarray(label, np.int64)
        gammas = {**self.gammas, **(gammas or {})}
        for key, layers, factors in (
            (str, queries_keys, gammas),
            (discriminator_key, of_discriminator, self.discriminator_gammas),
        ):
            for layer, (q, k) in layers.items():
                parts = {"q": q, "k": k, "attention": inside.attention(q, k), "gamma": factors[layer]}
                arrays |= {f"{key(layer)}/{name}": np.asarray(p, np.float32) for name, p in parts.items()}
        return arrays | added

    def _generate(
        self,
        latents: np.ndarray | Sequence[np.ndarray],
        labels: Labels | None,
        overrides: Mapping[str, Override],
        extras: NetworkExtras | None = None,
    ) -> Iterator[tuple[np.ndarray, dict]]:
        """Yield (face, {layer: extra}) for every latent."""
        latents = self._checked_latents(latents)
        of_each = self._checked_labels(labels, len(latents))

        def generate(latent: np.ndarray, label: Tensor | None) -> tuple[np.ndarray, dict]:
            answer = self._generator(torch.tensor(latent)[None], label, overrides, extras)
            images, collected = (answer, {}) if extras is None else answer
            return _pixels(images[0]), _arrays(collected)

        return each(generate, latents, of_each)

    def _generate_one(
        self,
        latent: np.ndarray,
        label: int | None,
        gammas: Mapping[str, float] | None,
        extras: NetworkExtras,
    ) -> tuple[np.ndarray, dict]:
        latents = _alone("latent", latent, (self.config.z_dim,))
        return next(self._generate(latents, _one(label), self._overrides(gammas), extras))

    def _discriminate(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        labels: Labels | None,
        extras: NetworkExtras | None = None,
    ) -> Iterator[tuple[float, dict]]:
        """Yield (score, {layer: extra}) for every image."""
        images = self._checked_images(images)
        of_each = self._checked_labels(labels, len(images))

        def discriminate(image: np.ndarray, label: Tensor | None) -> tuple[float, dict]:
            answer = self._discriminator(to_batch(image[None]), label, extras)
            scores, collected = (answer, {}) if extras is None else answer
            if not isfinite(score := scores.item()):
                raise ValueError("This model's discriminator gives this image a score that is not finite.")
            return score, _arrays(collected)

        return each(discriminate, images, of_each)

    def _discriminate_one(
        self, image: np.ndarray, label: int | None, extras: NetworkExtras
    ) -> tuple[float, dict]:
        size = self.config.image_size
        images = _alone("image", image, (size, size, 3))
        return next(self._discriminate(images, _one(label), extras))

    def _checked_latents(self, latents: object) -> np.ndarray:
        size = self.config.z_dim
        wanted = f"Latents must be an array of numbers of shape (N, {size})."
        latents = _as_array(latents, wanted, np.float32)
        if latents.ndim != 2 or latents.shape[1] != size:
            raise ValueError(f"Latents must have the shape (N, {size}), but have {latents.shape}.")
        if not np.isfinite(latents).all():
            raise ValueError("Latents must be finite numbers, but hold NaN or infinity.")
        return latents

    def _checked_images(self, images: object) -> np.ndarray:
        size = self.config.image_size
        images = _as_array(images, f"Images must be a uint8 array of shape (N, {size}, {size}, 3).")
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"Images must be uint8 of shape (N, {size}, {size}, 3), but are {images.dtype} of shape "
                f"{images.shape}."
            )
        return images

    def _checked_labels(self, labels: object, count: int) -> list[int | None]:
        classes = self.config.num_classes
        if labels is None:
            if classes:
                raise ValueError(f"This model has classes: give every image a label from 0 to {classes - 1}.")
            return [None] * count
        if not classes:
            raise ValueError("This model has no classes, so it takes no labels.")
        labels = _as_array(labels, f"Labels must be an array of integers of shape ({count},).")
        if labels.shape != (count,):
            raise ValueError(f"{count} images need labels of shape ({count},), but got {labels.shape}.")
        if labels.size and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"Labels must be integers from 0 to {classes - 1}, but were {labels.tolist()}.")
        return labels.tolist()

    def _overrides(
        self,
        gammas: Mapping[str, float] | None,
        maps: Mapping[str, np.ndarray] | None = None,
        values: Mapping[str, Mapping[int, np.ndarray]] | None = None,
    ) -> dict[str, Override]:
        """What takes the place of each layer's own, checked: {layer: override}."""
        overrides = dict.fromkeys(self.layers, Override())
        for part, given, wanted, checked in (
            ("gamma", gammas, "gammas must be numbers by layer, {layer: number}", _checked_gamma),
            ("maps", maps, "maps must be arrays by layer, {layer: array}", _checked_map),
            ("values", values, "values must be given as {layer: {position: array}}", self._checked_values),
        ):
            if not isinstance(given, Mapping | None):
                was = repr(given) if part == "gamma" else type(given).__name__  # arrays are long
                raise ValueError(f"{wanted}, but were {was}.")
            for layer, one in (given or {}).items():
                self._check_layer(layer)
                overrides[layer] = overrides[layer]._replace(**{part: checked(layer, one)})
        return overrides

    def _checked_values(self, layer: str, told: object) -> tuple[Tensor, Tensor]:
        side = side_of(layer)
        channels = self.config.channels(self.config.g_width, side)
        if not isinstance(told, Mapping) or any(position not in range(side**2) for position in told):
            raise ValueError(
                f"The values of {layer} must be {{position: array}}, positions from 0 to {side**2 - 1}."
            )
        refusal = f"The values of {layer} must be {channels} finite numbers for each position."
        vectors = _as_array([*told.values()], refusal, np.float32)
        if told and (vectors.shape != (len(told), channels) or not np.isfinite(vectors).all()):
            raise ValueError(refusal)
        positions = torch.tensor([*told], dtype=torch.long)
        return positions, torch.tensor(vectors.reshape(-1, channels))

    def _check_layer(self, layer: str) -> None:
        if layer not in self.layers:
            there = " and ".join(self.layers) or "none"
            raise ValueError(f"There is no attention layer {layer!r}; this model has {there}.")


def _copied(network: Network) -> Network:
    """A copy for the sampler alone: float32 on the CPU, in eval mode, without gradients."""
    return copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)


def _as_array(given: object, wanted: str, dtype: type | None = None) -> np.ndarray:
    """What was given as an array; where it is none, such as a ragged list, ValueError says what is wanted."""
    try:
        return np.asarray(given, dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(wanted) from error


def _checked_gamma(layer: str, gamma: object) -> float:
    if not isinstance(gamma, Real) or not isfinite(gamma):
        raise ValueError(f"gamma of {layer} must be a finite number, but was {gamma!r}.")
    return float(gamma)


def _checked_map(layer: str, weights: object) -> Tensor:
    places = side_of(layer) ** 2
    weights = _as_array(weights, f"The map of {layer} must be an array of numbers.", np.float32)
    if weights.shape != (places, places):
        wanted = f"({places}, {places})"
        raise ValueError(f"The map of {layer} must have the shape {wanted}, but has {weights.shape}.")
    if not np.isfinite(weights).all():
        raise ValueError(f"The map of {layer} must hold finite numbers, but holds NaN or infinity.")
    return torch.tensor(weights)[None]


def _one(label: int | None) -> list[int] | None:
    return None if label is None else [label]


def _alone(kind: str, array: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """A batch of one; ValueError for an array of another shape. What is no array is checked as a batch is."""
    given = tuple(getattr(array, "shape", shape))
    if given != shape:
        raise ValueError(f"One {kind} must have the shape {shape}, but has {given}.")
    return [array]


def _pixels(image: Tensor) -> np.ndarray:
    """(3, S, S) in [-1, 1] -> uint8 (S, S, 3)."""
    if not image.isfinite().all():
        raise ValueError(
            "These latents, gammas, maps or values are so large that the image is not finite: take smaller "
            "ones."
        )
    return to_uint8(image[None])[0]


def _arrays(extras: dict[str, Tensor | tuple[Tensor, ...]]) -> dict:
    """What the layers hand out for a batch of one, without the batch axis, as contiguous arrays."""

    def array(tensor: Tensor) -> np.ndarray:
        return tensor[0].contiguous().numpy()

    return {k: array(v) if isinstance(v, Tensor) else tuple(map(array, v)) for k, v in extras.items()}


def _first_maps(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As copies, which do not keep the rest in memory."""
    return {name: output[: inside.SHOWN].copy() for name, output in outputs.items()}


def _read_curated(folder: Path) -> tuple[CuratedFace, ...]:
    path = checkpoint.companion(folder, checkpoint.CURATED)
    if path is None:
        return ()
    try:
        faces = checkpoint.read_json(path)["faces"]
        return tuple(_curated_face(face["seed"], *face["query"], face["text"]) for face in faces)
    except (KeyError, TypeError, ValueError) as error:
        warnings.warn(f"'{path}' is left out, because it is damaged: {error}.", stacklevel=2)
        return ()


def _curated_face(seed: int, x: float, y: float, text: str) -> CuratedFace:
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(f"the query ({x}, {y}) is outside the image")
    return CuratedFace(check_seed(seed), (float(x), float(y)), str(text))
