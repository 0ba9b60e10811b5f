"""What happens inside a forward: the attention of one position in numbers, and that of a whole layer."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from sagan.heatmaps import check_query

STRONGEST = 5  # keys that a computation lists
SHOWN = 16  # feature maps of a block: the first


@dataclass(frozen=True, eq=False)
class Computation:
    """How one query position of an attention layer arrives at its output; arrays are float32.

    Of the n positions of the layer, m = min(5, n) keys are listed, the strongest first.

    q         (d,)    the query vector
    keys      (m,)    integers: the positions of these keys, row * side + column
    k         (m, d)  the key vectors
    logits    (m,)    q . k
    weights   (m,)    their shares of the softmax over all n keys
    values    (m, C)  the value vectors
    attended  (C,)    the sum of weight * value over all n keys
    gamma             the factor of `attended`, learned or dialled
    x         (C,)    what came into the layer at the query
    y         (C,)    what leaves it: x + gamma * attended
    """

    q: np.ndarray
    keys: np.ndarray
    k: np.ndarray
    logits: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    attended: np.ndarray
    gamma: float
    x: np.ndarray
    y: np.ndarray


def compute(
    x: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, gamma: float, query: int
) -> Computation:
    """The computation of one query from x, v (n, C) and q, k (n, d), worked out in float64.

    Raises ValueError where there is no such query.
    """
    check_query(query, len(q))
    x, q, k, v = (part.astype(np.float64) for part in (x, q, k, v))
    logits = k @ q[query]
    weights = _softmax(logits)
    keys = np.argsort(-logits, kind="stable")[:STRONGEST]
    attended = weights @ v
    arrays = {
        "q": q[query],
        "k": k[keys],
        "logits": logits[keys],
        "weights": weights[keys],
        "values": v[keys],
        "attended": attended,
        "x": x[query],
        "y": x[query] + gamma * attended,
    }
    return Computation(
        keys=keys, gamma=gamma, **{name: array.astype(np.float32) for name, array in arrays.items()}
    )


def attention(q: np.ndarray, k: np.ndarray, without: Collection[int] = ()) -> np.ndarray:
    """The map of a layer from its q and k (n, d), float32 (n, n), worked out in float64.

    Keys at the positions `without`, fewer than n, are masked: they get no weight, and the others of each row
    share theirs in proportion.
    """
    logits = q.astype(np.float64) @ k.T.astype(np.float64)
    logits[:, list(without)] = -np.inf
    return _softmax(logits).astype(np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
