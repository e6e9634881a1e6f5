"""The probes of the parity gate: held-out rows, rows far outside the data, and rows outside the support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Support

__all__ = ["FAR", "OUTSIDE", "Probes", "make_probes", "outside_support"]

FAR: Final = (3.0, 10.0, 30.0)
"""How far outside the data probes lie, in standard deviations of each column."""
MAX_HELD_OUT: Final = 512
OUTSIDE: Final = "a row outside the support"
_INSET: Final = 1e-3  # of the greatest standard deviation: how far from the ends far rows are kept without edges
_DIRECTIONS, _COLUMNS = 8, 8  # probes for each distance: directions of random signs, and single columns

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Rows for the gate.

    Args:
        x: ``[P, *event]``: first the held-out rows, then the others.
        context: ``[P, C]``, or None.
        labels: for each row that is not a held-out one, what it is, in words.
        places: for each held-out one, its place among all held-out rows; empty where they are all of them, in order.
    """

    x: Floats
    context: Floats | None
    labels: tuple[str, ...]
    places: tuple[int, ...] = ()

    @property
    def held_out(self) -> slice:
        """Which rows are held-out ones."""
        return slice(0, self.x.shape[0] - len(self.labels))

    def describe(self, row: int) -> str:
        """Row `row` in words."""
        start = self.x.shape[0] - len(self.labels)
        if row >= start:
            return str(self.labels[row - start])
        return f"held-out row {self.places[row] if self.places else row}"

    def select(self, kept: npt.NDArray[np.bool_]) -> Probes:
        """The probes without some of those that are not held out.

        Args:
            kept: ``[P]``, true for every held-out row.
        """
        labels = tuple(label for label, keep in zip(self.labels, kept[self.held_out.stop :], strict=True) if keep)
        context = None if self.context is None else np.ascontiguousarray(self.context[kept])
        return Probes(np.ascontiguousarray(self.x[kept]), context, labels, self.places)


def make_probes(
    held_out: Floats, context: Floats | None, support: Support | None, seed: int = 0, *, edges: bool = True
) -> Probes:
    """Choose probes: at most `MAX_HELD_OUT` held-out rows, and mean + k * standard deviation for each k of `FAR`.

    Args:
        held_out: ``[M, *event]``, all inside the support.
        context: ``[M, C]``, or None. The other rows borrow the context of held-out ones.
        support: where it bounds the data, far rows are clipped into it, and rows on its ends, next to them and
            outside are added.
        seed: of the directions.
        edges: whether there are rows on the ends of the support and next to them. There float32 may take the latent of
            a flow that was not made for it out of its base's box.

    Returns:
        The held-out rows first, and the others with a label each.
    """
    event, flat = held_out.shape[1:], held_out.reshape(held_out.shape[0], -1).astype(np.float64)
    width = flat.shape[1]
    chosen = np.linspace(0, held_out.shape[0] - 1, min(MAX_HELD_OUT, held_out.shape[0])).round().astype(int)
    mean, deviation = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-6)
    random = np.random.default_rng(seed)
    signs = np.concatenate(
        (
            np.ones((1, width)),
            -np.ones((1, width)),
            random.choice((-1.0, 1.0), (_DIRECTIONS, width)),
            np.eye(width)[random.permutation(width)[:_COLUMNS]],
        )
    )
    rows, labels = [], []
    for distance in FAR:
        for sign in signs:
            rows.append(mean + distance * deviation * sign)
            labels.append(f"a row {distance:g} standard deviations from the mean")
    far = np.stack(rows).astype(held_out.dtype)
    if support is not None:
        inset = 0.0 if edges else _INSET * float(deviation.max())
        low, high = support.low, support.high
        far = np.clip(far, None if low is None else low + inset, None if high is None else high - inset)
        edge, edge_labels = _edges(far[0], support)
        if not edges:
            beyond = [at for at, label in enumerate(edge_labels) if label == OUTSIDE]
            edge, edge_labels = edge[beyond], [OUTSIDE] * len(beyond)
        far, labels = np.concatenate((far, edge)), labels + edge_labels
    borrowed = None
    if context is not None:
        rows_of = np.concatenate((chosen, random.integers(0, held_out.shape[0], far.shape[0])))
        borrowed = np.ascontiguousarray(context[rows_of])
    x = np.concatenate((held_out[chosen], far.reshape(-1, *event).astype(held_out.dtype)))
    return Probes(x=x, context=borrowed, labels=tuple(labels), places=tuple(chosen.tolist()))


def _edges(row: Floats, support: Support) -> tuple[Floats, list[str]]:
    """Rows at each end of the support, one number inside of it, and beyond it; `row` gives the other columns."""
    rows, labels = [], []
    for end, outwards in ((support.low, -np.inf), (support.high, np.inf)):
        if end is None:
            continue
        beyond, kind = outside_support(support), row.dtype.type
        at = kind(end)
        for value, label in (
            (at, "a row on an end of the support"),
            (np.nextafter(at, kind(-outwards)), "a row next to an end of the support"),
            (np.nextafter(at, kind(outwards)), "a row just outside the support"),
            (kind(beyond), OUTSIDE),
        ):
            for columns in (slice(None), slice(0, 1)):
                changed = row.copy()
                changed[columns] = value
                rows.append(changed)
                labels.append(label)
    return np.stack(rows), labels


def outside_support(support: Support) -> float:
    """A number well outside: half the support's width, or 1, beyond one of its ends.

    Raises:
        ValueError: for a support without any end.
    """
    low, high = support.low, support.high
    gap = (high - low) / 2 if low is not None and high is not None else 1.0
    if high is not None:
        return high + gap
    if low is not None:
        return low - gap
    raise ValueError("a support without ends has no outside")
