"""Drawn faces: a generator of grey pencil portraits, 32 x 32 pixels, from named parameters.

A face is a function of its parameters, and of the grain of the paper: `draw` gives the picture, `draw_parameters` the
parameters of faces at random. All of it is NumPy over many faces at once. Nothing is traced from a picture of anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr

__all__ = ["GRAIN", "PARAMETERS", "SIZE", "Parameter", "draw", "draw_faces", "draw_parameters"]

SIZE: Final = 32
"""The pixels of a side."""
GRAIN: Final = 0.07
"""The standard deviation of the paper's grain, in the logit of the tone: 4.5 of 255 at a middle grey, 1 on paper."""

_BATCH: Final = 1000
_PIXEL: Final = 2.0 / SIZE

Array = npt.NDArray[np.floating[Any]]
Tone = Array | np.floating[Any] | float
Float64 = npt.NDArray[np.float64]


class Parameter(NamedTuple):
    """One property of a face.

    Args:
        low: its least value.
        high: its greatest.
        contrast: how far its values crowd at both ends; 1 spreads them evenly between the ends.
        meaning: from what to what it goes.
    """

    low: float
    high: float
    contrast: float
    meaning: str


PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        "width": Parameter(-1.0, 1.0, 1.0, "the face, from narrow to wide"),
        "length": Parameter(-1.0, 1.0, 1.0, "the face, from short to long"),
        "jaw": Parameter(-1.0, 1.0, 1.0, "the chin, from pointed to square"),
        "skin": Parameter(0.0, 1.0, 1.0, "the face, from light to dark"),
        "hair": Parameter(0.0, 1.0, 1.3, "the hair, from cropped to long"),
        "volume": Parameter(0.0, 1.0, 1.0, "the hair, from flat to full"),
        "hair_tone": Parameter(0.0, 1.0, 1.3, "the hair, from fair to black"),
        "fringe": Parameter(0.0, 1.0, 1.0, "the hairline, from high to down on the brows"),
        "parting": Parameter(-1.0, 1.0, 1.0, "the parting, from left to right"),
        "brow_height": Parameter(-1.0, 1.0, 1.0, "the brows, from low to raised"),
        "brow_tilt": Parameter(-1.0, 1.0, 1.0, "the brows, from worried to stern"),
        "brow_weight": Parameter(0.0, 1.0, 1.0, "the brows, from thin to bushy"),
        "eyes": Parameter(0.0, 1.0, 1.0, "the eyes, from narrowed to wide open"),
        "spacing": Parameter(-1.0, 1.0, 1.0, "the eyes, from close to far apart"),
        "gaze": Parameter(-1.0, 1.0, 1.0, "the look, from left to right"),
        "nose": Parameter(0.0, 1.0, 1.0, "the nose, from short to long"),
        "nostrils": Parameter(0.0, 1.0, 1.0, "the nose, from narrow to broad"),
        "mouth": Parameter(0.0, 1.0, 1.0, "the mouth, from small to wide"),
        "lips": Parameter(0.0, 1.0, 1.0, "the lips, from thin to full"),
        "smile": Parameter(-1.0, 1.0, 1.0, "the mouth, from a frown to a smile"),
        "glasses": Parameter(0.0, 1.0, 2.0, "glasses, from none to dark rims"),
        "beard": Parameter(0.0, 1.0, 2.0, "a beard, from none to full"),
        "turn": Parameter(-1.0, 1.0, 1.0, "the head, from turned left to turned right"),
        "light": Parameter(-1.0, 1.0, 1.0, "the light, from the left to from the right"),
        "line": Parameter(0.0, 1.0, 1.0, "the pencil, from fine to heavy"),
    }
)
"""Name -> property. They are independent of one another."""


def draw_parameters(count: int, seed: int = 0) -> Float64:
    """Parameters of faces at random: each an increasing function of a standard normal of its own.

    Args:
        count: N.
        seed: of the normals.

    Returns:
        ``[N, P]``, a column for each of `PARAMETERS`, in their order.
    """
    normals = np.random.default_rng(seed).standard_normal((count, len(PARAMETERS)))
    low, high, contrast = (np.array([p[at] for p in PARAMETERS.values()], np.float64) for at in range(3))
    parameters: Float64 = low + (high - low) * ndtr(normals * contrast)
    return parameters


def draw_faces(count: int, seed: int = 0) -> tuple[Float64, Float64]:
    """Faces at random.

    Args:
        count: N.
        seed: of the parameters and of the grain.

    Returns:
        The pictures ``[N, 32, 32, 1]``, whole numbers from 0 (black) to 255 (white), and their parameters ``[N, P]``.
    """
    parameters = draw_parameters(count, seed)
    return draw(parameters, grain_seed=seed + 1), parameters


def draw(parameters: npt.ArrayLike, *, grain_seed: int | None = None) -> Float64:
    """The pictures of faces.

    Args:
        parameters: ``[N, P]``, as `PARAMETERS` orders them; each is clipped into its range.
        grain_seed: of the paper's grain; None for smooth paper, whose tones are not rounded.

    Returns:
        ``[N, 32, 32, 1]``, from 0 (black) to 255 (white).
    """
    every = np.atleast_2d(np.asarray(parameters, np.float64))
    low, high = (np.array([p[at] for p in PARAMETERS.values()], np.float64) for at in range(2))
    every = np.clip(every, low, high)
    grain = None if grain_seed is None else np.random.default_rng(grain_seed)
    pictures = np.empty((len(every), SIZE, SIZE, 1))
    for start in range(0, len(every), _BATCH):
        part = every[start : start + _BATCH]
        tone = _Portrait(part).drawn()
        if grain is not None:
            tone = expit(logit(tone) + GRAIN * grain.standard_normal(tone.shape, np.float32))
        pictures[start : start + _BATCH, ..., 0] = 255.0 * tone
    return pictures if grain is None else np.clip(np.round(pictures), 0.0, 255.0)


class _Portrait:
    """A sheet for N faces: the tone ``[N, 32, 32]`` of each pixel, from 0 to 1, painted over from back to front.

    Coordinates run from -1 (left, top) to 1 (right, bottom).

    Args:
        parameters: ``[N, P]``.
    """

    def __init__(self, parameters: Float64) -> None:
        columns = np.asarray(parameters, np.float32)[:, :, None, None]
        self.p = {name: columns[:, at] for at, name in enumerate(PARAMETERS)}
        places = ((np.arange(SIZE) + 0.5) * _PIXEL - 1.0).astype(np.float32)
        self.x, self.y = places[None, None, :], places[None, :, None]
        p = self.p
        self.angle = 0.36 * p["turn"]
        self.half_width = 0.57 + 0.065 * p["width"]
        self.half_height = 0.7 + 0.055 * p["length"]
        self.middle = np.float32(0.08)
        self.weight = 0.6 + 0.7 * p["line"]
        self.ink = 0.62 + 0.3 * p["line"]
        self.hair_tone = 0.66 - 0.54 * p["hair_tone"]
        self.tone = np.ones((len(columns), SIZE, SIZE), np.float32) * 0.93

    def drawn(self) -> Array:
        """All strokes, from back to front."""
        self._background()
        self._hair_behind()
        self._neck()
        self._face()
        self._beard()
        self._nose()
        self._mouth()
        self._eyes()
        self._brows()
        self._hair_in_front()
        self._glasses()
        return np.asarray(np.clip(self.tone, 0.03, 0.965))

    # What things are put onto the sheet by.

    def _paint(self, mask: Array, tone: Tone) -> None:
        """Lay a tone over the sheet, as much as the mask says."""
        self.tone += mask * (tone - self.tone)

    def _shade(self, mask: Array) -> None:
        """Darken by the mask: graphite takes a share of the light."""
        self.tone *= 1.0 - np.clip(mask, 0.0, 0.96)

    def _around(self, u: Tone) -> tuple[Array, Array]:
        """The place of a point on the turned head: u in half widths, -1 to 1 -> its x, and how much it is narrowed."""
        at = np.arcsin(np.clip(np.float32(0.86) * u, -1.0, 1.0))
        x = self.half_width * np.sin(at + self.angle) / np.float32(0.86)
        return x.astype(np.float32), np.clip(np.cos(at + self.angle), 0.25, None).astype(np.float32)

    @staticmethod
    def _step(distance: Array, softness: Tone) -> Array:
        """0 where distance is below minus the softness, 1 above it, smooth between."""
        t = np.clip(0.5 + distance / (2 * softness), 0.0, 1.0)
        return np.asarray(t * t * (3 - 2 * t), np.float32)

    @staticmethod
    def _bell(distance: Array, width: Tone) -> Array:
        return np.asarray(np.exp(-np.square(distance / width)), np.float32)

    def _outline(self) -> tuple[Array, Array]:
        """How far inside the face each pixel lies, about in units of the sheet, and the face's own middle by rows."""
        p = self.p
        dy = (self.y - self.middle) / self.half_height
        below = np.clip(dy, 0.0, None)
        axis = 0.1 * self.angle * (1.0 + 1.2 * below)
        taper = 1.0 - (0.2 - 0.13 * p["jaw"]) * below**1.6
        dx = (self.x - axis) / (self.half_width * taper)
        power = 2.15 + 0.45 * p["jaw"] * below
        radius = (np.abs(dx) ** power + np.abs(dy) ** power + 1e-6) ** (1.0 / power)
        return ((1.0 - radius) * 0.5 * (self.half_width + self.half_height)).astype(np.float32), axis

    # What is drawn.

    def _background(self) -> None:
        shadow = 0.5 - 0.5 * self.p["light"] * self.x
        hatch = 0.5 + 0.5 * np.cos(np.float32(np.pi * 0.62 / _PIXEL) * (self.x + 0.8 * self.y))
        near = self._bell(np.hypot(self.x, self.y - 0.1), 0.95)
        self._shade(near * shadow * (0.1 + 0.06 * hatch))

    def _hair_shape(self) -> tuple[Array, Array, Array]:
        """How far inside the hair each pixel lies, its place across the hair, and the top of the hair."""
        p = self.p
        top = self.middle - self.half_height - 0.03 - 0.13 * p["volume"]
        side = self.half_width + 0.03 + 0.11 * p["volume"] + 0.05 * p["hair"]
        across = (self.x + 0.12 * self.angle) / side
        up = np.clip(self.y / -top, -2.0, 0.0)
        return np.asarray((1.0 - np.hypot(across, up)) * 0.6, np.float32), across, top

    def _strands(self, across: Array, top: Array) -> Array:
        """The tone of the hair: strands that fall from the parting, and a sheen towards the light."""
        p = self.p
        part = 0.55 * p["parting"]
        fall = np.arctan2(across - part, 0.35 + self.y - top)
        strands = 0.6 * np.cos(11.0 * fall + 2.0 * self.y) + 0.4 * np.cos(23.0 * fall - 3.0 * across)
        sheen = self._bell(across - 0.4 * p["light"], 0.4) * self._bell(self.y - top - 0.3, 0.2)
        parted = self._bell(across - part, 0.07) * self._bell(self.y - top - 0.1, 0.16)
        tone = self.hair_tone * (1.0 + 0.17 * strands) + 0.13 * sheen - 0.1 * parted * self.hair_tone
        return np.asarray(np.clip(tone, 0.05, 1.0))

    def _hair_behind(self) -> None:
        p = self.p
        inside, across, top = self._hair_shape()
        wave = 0.05 * np.cos(5.0 * across + 2.0 * p["parting"])
        bottom = -0.05 + 1.0 * p["hair"] - 0.22 * across * across + wave
        inwards = np.float32(0.09) * self._step(self.y - bottom + 0.25, 0.3)
        mask = self._step(inside - inwards, 0.07) * self._step(bottom - self.y, 0.13)
        shadow = 0.8 + 0.2 * np.clip(np.abs(across), 0.0, 1.0)
        self._paint(mask, self._strands(across, top) * shadow)
        edge = self._bell(inside - inwards, 0.05 * self.weight) * self._step(bottom - self.y, 0.13)
        self._shade(0.22 * self.ink * edge)

    def _skin_tone(self) -> Array:
        return np.asarray(0.9 - 0.33 * self.p["skin"], np.float32)

    def _neck(self) -> None:
        p = self.p
        skin = self._skin_tone()
        start = self.middle + 0.75 * self.half_height
        neck = self._step(0.24 + 0.03 * p["width"] - np.abs(self.x), 0.05) * self._step(self.y - start, 0.05)
        self._paint(neck, skin * 0.78)
        rise = 0.8 + 0.2 * np.abs(self.x) ** 1.5 + 0.16 * self._bell(self.x, 0.2)
        self._paint(self._step(self.y - rise, 0.06), np.float32(0.6))
        self._shade(0.45 * self.ink * self._bell(self.y - rise, 0.05 * self.weight))

    def _face(self) -> None:
        p = self.p
        skin = self._skin_tone()
        inside, axis = self._outline()
        for side in (-1.0, 1.0):  # the ear that a turned head shows
            shown = self._step(0.25 + np.float32(-side) * self.angle * 1.6, 0.5)
            ear_x = side * (self.half_width + 0.02) * np.cos(self.angle) + 0.02 * self.angle
            ear = self._step(0.13 - np.hypot((self.x - ear_x) * 1.5, self.y - 0.12), 0.05) * shown
            self._paint(ear, skin * 0.88)
            rim = self._bell(np.hypot((self.x - ear_x) * 1.5, self.y - 0.12) - 0.12, 0.04 * self.weight)
            self._shade(0.35 * self.ink * rim * shown)
        mask = self._step(inside, 0.045)
        across = np.clip((self.x - axis) / self.half_width, -1.2, 1.2)
        down = (self.y - self.middle) / self.half_height
        lit = p["light"] * (across - 0.5 * self.angle)  # above zero on the side of the light
        hatch = np.cos(np.float32(np.pi * 0.66 / _PIXEL) * (self.x - 0.9 * self.y))
        shadow = 0.24 * self._step(-lit - 0.15, 0.75) * (1.0 + 0.2 * hatch)
        round_off = 0.13 * across**2 + 0.08 * np.clip(down, 0.0, 1.0)
        tone = skin * (1.0 - shadow - round_off) + 0.06 * self._bell(lit - 0.45, 0.35)
        self._paint(mask, tone)
        for side in (-1.0, 1.0):  # cheeks
            x, narrow = self._around(np.float32(side * 0.55))
            cheek = self._bell((self.x - x) / narrow, 0.17) * self._bell(self.y - self.middle - 0.28, 0.13)
            self._shade(mask * cheek * 0.07)
        self._shade(self.ink * 0.75 * self._bell(inside, 0.042 * self.weight))
        self._inside = mask

    def _beard(self) -> None:
        p = self.p
        mouth_y = self._mouth_place()[1]
        x, narrow = self._around(np.float32(0.0))
        below = self._step(self.y - (mouth_y - 0.02), 0.14)
        along = self._step(np.abs((self.x - 0.6 * x) / self.half_width) - 0.72, 0.18) * self._step(self.y - 0.2, 0.15)
        bare = self._bell((self.x - x) / narrow, 0.17) * self._bell(self.y - mouth_y, 0.085)
        moustache = self._bell((self.x - x) / narrow, 0.24) * self._bell(self.y - (mouth_y - 0.1), 0.055)
        cover = np.maximum(np.maximum(below, along) * (1.0 - 0.9 * bare), moustache * 0.9)
        grain = 0.85 + 0.15 * np.cos(np.float32(30.0) * self.x + 9.0 * self.y)
        self._paint(self._inside * cover * p["beard"] * grain, 0.8 * self.hair_tone)

    def _eye_places(self) -> list[tuple[float, Array, Array]]:
        spacing = 0.43 + 0.06 * self.p["spacing"]
        return [(side, *self._around(np.float32(side) * spacing)) for side in (-1.0, 1.0)]

    def _eye_height(self) -> Array:
        return np.asarray(self.middle - 0.06)

    def _eyes(self) -> None:
        p = self.p
        y = self._eye_height()
        opening = 0.055 + 0.075 * p["eyes"]
        for side, x, narrow in self._eye_places():
            half = 0.155 * narrow
            u = (self.x - x) / half
            v = self.y - y
            lid = opening * (1.0 - np.clip(u * u, 0.0, 1.0)) + np.float32(0.004)
            tilt = -0.015 * side * u
            white = self._step(lid - np.abs(v + tilt), 0.035) * self._step(1.08 - np.abs(u), 0.25)
            socket = self._bell(u, 1.25) * self._bell(v + 0.04, 0.13)
            self._shade(0.16 * socket)
            self._paint(white, np.float32(0.95))
            iris_x = x + 0.075 * narrow * p["gaze"]
            reach = np.hypot((self.x - iris_x) / np.clip(narrow, 0.5, 1.0), v)
            iris = self._step(0.088 - reach, 0.035) * white
            self._paint(iris, np.float32(0.1))
            glint = self._bell(np.hypot(self.x - iris_x - 0.025 * p["light"], v + 0.03), 0.026)
            self._paint(0.45 * glint * iris, np.float32(0.95))
            upper = self._bell(v + tilt + lid, 0.036 * self.weight) * self._step(1.12 - np.abs(u), 0.2)
            lower = self._bell(v + tilt - lid, 0.028 * self.weight) * self._step(1.0 - np.abs(u), 0.3)
            self._shade(0.95 * self.ink * upper)
            self._shade(0.35 * self.ink * lower)

    def _brows(self) -> None:
        p = self.p
        y = self._eye_height() - 0.2 - 0.05 * p["brow_height"]
        for side, x, narrow in self._eye_places():
            half = 0.19 * narrow
            u = np.float32(side) * (self.x - x) / half  # outwards
            v = self.y - (y + 0.05 * (u * u - 0.4) - 0.055 * p["brow_tilt"] * u)
            thick = (0.026 + 0.032 * p["brow_weight"]) * (1.0 - 0.3 * np.clip(u, -1.0, 1.0))
            brow = self._bell(v, thick) * self._step(1.05 - np.abs(u), 0.3)
            self._shade(brow * (0.35 + 0.4 * p["brow_weight"]) * (0.6 + 0.4 * p["hair_tone"]))

    def _nose(self) -> None:
        p = self.p
        x, _ = self._around(np.float32(0.0))
        tip_x = x + 0.16 * self.angle
        tip = self.middle + 0.17 + 0.09 * p["nose"]
        top = self._eye_height() + 0.02
        along = np.clip((self.y - top) / (tip - top), 0.0, 1.2)
        middle = 0.75 * x + (tip_x - 0.75 * x) * along
        inside = self._step(self.y - top, 0.08) * self._step(tip - self.y, 0.04)
        lean = np.tanh(1.5 * (p["light"] + 1.2 * p["turn"]))  # the side that is in shade, and drawn
        edge = middle - lean * (0.035 + 0.05 * along)
        self._shade(0.36 * self.ink * inside * self._bell(self.x - edge, 0.04) * (0.35 + 0.65 * along))
        self.tone += 0.05 * inside * self._bell(self.x - middle - 0.02 * lean, 0.035) * along
        wide = 0.055 + 0.085 * p["nostrils"]
        under = self._bell(self.y - tip - 0.02 + 0.25 * (self.x - tip_x) ** 2 / wide, 0.036 * self.weight)
        self._shade(0.5 * self.ink * under * self._step(wide + 0.02 - np.abs(self.x - tip_x), 0.05))
        for side in (-1.0, 1.0):
            hole = self._bell(np.hypot((self.x - tip_x - side * wide * 0.75) * 0.9, self.y - tip - 0.005), 0.036)
            self._shade(0.62 * self.ink * hole)

    def _mouth_place(self) -> tuple[Array, Array, Array]:
        x, narrow = self._around(np.float32(0.0))
        return x + 0.05 * self.angle, self.middle + 0.65 * self.half_height - 0.005, narrow

    def _mouth(self) -> None:
        p = self.p
        x, y, narrow = self._mouth_place()
        half = (0.16 + 0.085 * p["mouth"]) * narrow
        u = (self.x - x) / half
        bend = 0.085 * p["smile"]
        v = self.y - (y - bend * (np.clip(u * u, 0.0, 1.7) - 0.45))
        within = self._step(1.0 - np.abs(u), 0.22) * self._inside
        full = 0.025 + 0.07 * p["lips"]
        body = np.clip(1.0 - u * u, 0.0, 1.0)
        upper = self._step(full * 0.8 * body + v, 0.03) * self._step(-v, 0.03)
        lower = self._step(full * 1.25 * body - v, 0.035) * self._step(v, 0.03)
        self._shade(within * upper * (0.1 + 0.36 * p["lips"]))
        self._shade(within * lower * (0.04 + 0.3 * p["lips"]))
        self._shade(0.95 * self.ink * self._bell(v, 0.035 * self.weight) * within)
        for side in (-1.0, 1.0):
            corner = self._bell(np.hypot(self.x - x - side * half, self.y - (y - bend * 0.55)), 0.045)
            self._shade(0.4 * self.ink * corner * self._inside)
        chin = self._bell((self.x - x) / narrow, 0.12) * self._bell(v - full * 1.3 - 0.05, 0.035)
        self._shade(0.16 * chin)

    def _hair_in_front(self) -> None:
        p = self.p
        inside, across, top = self._hair_shape()
        line = self.middle - self.half_height * (0.9 - 0.38 * p["fringe"])
        away = np.abs(across - 0.55 * p["parting"])
        edge = line + (0.1 + 0.12 * p["fringe"]) * np.clip(away, 0.0, 1.6) ** 1.6
        edge = edge + 0.025 * np.cos(9.0 * across + 4.0 * p["parting"])
        front = self._step(edge - self.y, 0.06) * self._step(inside, 0.06)
        locks = self._step(np.abs(across) - (0.9 - 0.12 * p["hair"]), 0.1) * self._step(inside, 0.06)
        locks = locks * self._step(0.95 * p["hair"] - 0.12 - self.y, 0.14) * self._step(self.y + 0.5, 0.2)
        self._paint(np.maximum(front, locks), self._strands(across, top))
        self._shade(0.22 * self.ink * self._bell(self.y - edge, 0.04 * self.weight) * self._step(inside, 0.06))

    def _glasses(self) -> None:
        p = self.p
        y = self._eye_height() + 0.02
        strength = p["glasses"] * 0.92
        for side, x, narrow in self._eye_places():
            half = 0.24 * narrow
            ring = ((np.abs((self.x - x) / half) ** 2.6 + np.abs((self.y - y) / 0.205) ** 2.6) + 1e-6) ** (1 / 2.6)
            rim = self._bell((ring - 1.0) * 0.21, 0.036)
            self._paint(0.1 * strength * self._step(1.0 - ring, 0.1), np.float32(0.9))
            self._shade(strength * rim * 0.9)
            outer = x + side * half
            ends = np.float32(side) * self.half_width
            arm = self._bell(self.y - y + 0.05, 0.028) * self._step(np.float32(side) * (self.x - outer), 0.03)
            self._shade(strength * 0.6 * arm * self._step(np.float32(side) * (ends - self.x), 0.05))
        places = self._eye_places()
        left = places[0][1] + 0.24 * places[0][2]
        right = places[1][1] - 0.24 * places[1][2]
        bridge = (
            self._bell(self.y - y + 0.05, 0.03) * self._step(self.x - left, 0.03) * self._step(right - self.x, 0.03)
        )
        self._shade(strength * 0.8 * bridge)
