"""The manifest of a bundle, flow.json: one definition for the exporter and for the server.

Must not import onnxruntime, torch or anything of HTTP.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import (
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from service.bundle.bases import AnyBase, ManifestPart
from service.bundle.constraints import Constraint, check_constraints
from service.bundle.context_scale import ContextScale
from service.bundle.precision import DTYPES, FloatType, Precision
from service.bundle.priors import Prior
from service.bundle.variational import Variational
from service.errors import DigestMismatch, ManifestInvalid, Reason

__all__ = [
    "FORMAT",
    "MAX_MANIFEST_BYTES",
    "MAX_NAME",
    "MAX_QUANTILES",
    "MAX_TEXT",
    "NAME_PATTERN",
    "OLDER_FORMATS",
    "Calibration",
    "ContextFeature",
    "Feature",
    "Manifest",
    "Parity",
    "Provenance",
    "Quantization",
    "Recalibration",
    "Step",
    "Support",
    "content_digest",
    "is_flow_name",
    "seal_older",
    "shorten_texts",
]

FORMAT: Final[Literal[3]] = 3
"""The number of the format that is written and read. It is the first that is under a digest of its own."""

OLDER_FORMATS: Final = (1, 2)
"""The formats that `seal_older` brings up to date. Format 1 kept at most 1,001 quantiles."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""The pattern of a flow's name, which is a folder's name and a part of a URL."""

MAX_QUANTILES = 1 << 15
"""The most order statistics of the held-out log_prob that a manifest keeps."""

MAX_MANIFEST_BYTES: Final = 16 << 20
"""The size of the largest flow.json: a base or a direction of 2^18 coordinates fits."""

MAX_TEXT: Final = 4000
"""The most characters of a text, such as the description."""

MAX_NAME: Final = 200
"""The most characters of a name, such as that of a column, and of a unit."""

_DIGEST_PATTERN = r"^[0-9a-f]{64}$"
_MAX_WIDTH = 1 << 20

_Count = Annotated[int, Field(ge=1, lt=1 << 53)]
"""A number of rows: every double below holds it."""

_Version = Annotated[int, Field(ge=1, lt=10**9)]
"""A version: a folder's name of at most nine digits."""

_Text = Annotated[str, Field(max_length=MAX_TEXT)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]
_FilledName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


def is_flow_name(name: str) -> bool:
    r"""Say whether `name` may name a flow.

    Example:
        >>> is_flow_name("two-moons"), is_flow_name("../etc")
        (True, False)
    """
    return re.fullmatch(NAME_PATTERN[1:-1], name) is not None


class Feature(ManifestPart):
    """One column of a table.

    Args:
        name: the column's name, as in the data's header.
        unit: its unit, such as ``"g/l"``; null where it has none or it is unknown.
    """

    name: _FilledName
    unit: _Name | None = None


class ContextFeature(Feature):
    """One column of the context.

    A column of classes is given as one column for each class, which is 1 in that class's rows and 0 in all others:
    a ``label`` of 0 to 9 as ``label=0`` to ``label=9``.

    Args:
        column: of such a column, the column of the data that holds the classes; else null.
        category: of such a column, the class that it stands for, as text; else null.
    """

    column: _Name | None = None
    category: _Name | None = None

    @model_validator(mode="after")
    def _check_class(self) -> Self:
        if (self.column is None) != (self.category is None):
            raise ValueError(f"{self.name!r} needs both a column and a category, or neither")
        return self


class Support(ManifestPart):
    """The support of the density: every coordinate of x lies between low and high.

    Args:
        low: the lower end, in the units of x; null where there is none.
        high: the upper end; null where there is none.
        low_closed: whether the lower end itself belongs to the support.
        high_closed: whether the upper end itself belongs to the support.
    """

    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    low_closed: bool = False
    high_closed: bool = False


class Quantization(ManifestPart):
    """The dequantization of integer-valued data, by which an integer row is read.

    Args:
        low: the least integer of the data.
        high: the greatest integer of the data.
        step: the width of one bin, in the units of x.
        reading: one sentence for the user.
    """

    low: FiniteFloat
    high: FiniteFloat
    step: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    reading: _Text


class Calibration(ManifestPart):
    """The distribution of log_prob over held-out rows, in nats.

    Args:
        rows: how many held-out rows it was measured on.
        mean: their mean log_prob.
        standard_deviation: the standard deviation of log_prob over the rows (divisor rows - 1).
        quantiles: log_prob of the held-out rows, sorted, each as its shortest text in the flow's precision. At most
            `MAX_QUANTILES` of them are kept. Format 1 kept at most 1,001, interpolated at evenly spaced levels from 0
            to 1.
        ranks: the place of each quantile among all sorted values, from 0 to rows - 1; null where every value is kept,
            and in format 1.
        gaussian_mean: mean log_prob of the same rows under a full-covariance Gaussian fitted to the training
            rows, whose mean is a linear function of the context where there is one: the least a flow should beat.
        warning: what whoever uses the flow must know of this: that it is no better than that Gaussian; else null.
    """

    rows: Annotated[_Count, Field(ge=2)]
    mean: FiniteFloat
    standard_deviation: Annotated[FiniteFloat, Field(ge=0)]
    quantiles: Annotated[list[FiniteFloat], Field(min_length=2, max_length=MAX_QUANTILES)]
    ranks: list[Annotated[int, Field(ge=0)]] | None = None  # the last of them is below rows
    gaussian_mean: FiniteFloat | None = None
    warning: _Text | None = None

    @property
    def standard_error(self) -> float:
        """The standard error of `mean`, in nats."""
        return self.standard_deviation / math.sqrt(self.rows)

    @model_validator(mode="after")
    def _check_quantiles(self) -> Self:
        if any(a > b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
            raise ValueError("quantiles must ascend")
        if self.ranks is not None:
            ascending = all(a < b for a, b in zip(self.ranks, self.ranks[1:], strict=False))
            ends = (self.ranks[:1], self.ranks[-1:]) == ([0], [self.rows - 1])
            if len(self.ranks) != len(self.quantiles) or not (ascending and ends):
                raise ValueError(f"ranks must ascend from 0 to {self.rows - 1}, one for each quantile")
        return self


class Parity(ManifestPart):
    """The errors of the exported graphs against the float64 flow they came from: maxima over all rows tried.

    Args:
        tolerance: the bound that the gate held log_prob to.
        batches: the batch sizes tried.
        log_prob: max of abs(error) / (1 + abs(log_prob)).
        log_abs_det_jacobian: the same for the log-determinant.
        z: the same for the latent of the forward graph.
        x: the same for the data of the inverse graph.
        round_trip: max of abs(g(f(x)) - x) / (1 + abs(x)) over held-out rows.
        batch_multiple: the number of rows such that in batches of its multiples each row gave the same bits at every
            position; null where that was not tried.
        rows: how many held-out rows were tried; null where that was not kept.
        rows_beyond: of these, how many have a log_prob that is off by more than `tolerance`, where torch's own float32
            is off by at least half as much.
        log_prob_beyond: the greatest error of log_prob over `rows_beyond`; null where there are none.
        rows_left_out: of those tried, how many lie so near an edge of a uniform base's box that float32 cannot tell on
            which side.
        torch_log_prob: the greatest error of log_prob by torch in float32 over `rows_beyond`, the rounding of the rows
            included; null where there are none.
        warning: what whoever uses the flow must know of this; null where every row tried is within the tolerance.
    """

    tolerance: Annotated[FiniteFloat, Field(gt=0)]
    batches: list[_Count]
    log_prob: FiniteFloat
    log_abs_det_jacobian: FiniteFloat
    z: FiniteFloat
    x: FiniteFloat
    round_trip: FiniteFloat
    batch_multiple: _Count | None = None
    rows: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    rows_beyond: Annotated[int, Field(ge=0, lt=1 << 53)] = 0
    log_prob_beyond: FiniteFloat | None = None
    rows_left_out: Annotated[int, Field(ge=0, lt=1 << 53)] = 0
    torch_log_prob: FiniteFloat | None = None
    warning: _Text | None = None


class Recalibration(ManifestPart):
    """The origin of the calibration of a bundle that was calibrated anew.

    Args:
        data: the held-out rows, in words; no path of anyone's machine.
        sha256: of the rows in the flow's precision, in C order, little-endian, those of the context after them.
        version: the version whose graphs and golden rows these are.
        created: the moment, ISO 8601 in UTC.
    """

    data: _Text
    sha256: Annotated[str, Field(pattern=_DIGEST_PATTERN)]
    version: _Version
    created: _Name


class Provenance(ManifestPart):
    """The origin of a flow.

    Args:
        data: the training data, in words; no path of anyone's machine.
        recipe: the whole recipe of the fit.
        seed: the seed of the fit; null where nothing was random.
        libraries: name -> version of the libraries that made it.
        created: the moment of export, ISO 8601 in UTC.
        recalibration: the origin of the calibration, where it is not the export.
    """

    data: _Text
    recipe: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = None
    libraries: dict[_Name, _Name] = Field(default_factory=dict)
    created: _Name
    recalibration: Recalibration | None = None

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        longest = max(map(len, _texts(self.recipe)), default=0)
        if longest > MAX_TEXT:
            raise ValueError(f"a text of the recipe has {longest} characters; at most {MAX_TEXT} are kept")
        return self


def _texts(value: object) -> Iterator[str]:
    """Every text in a value of JSON, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def shorten_texts(value: Any) -> Any:  # noqa: ANN401  any value of JSON
    """A value of JSON with every text cut to `MAX_TEXT` characters, the last of them an ellipsis.

    Example:
        >>> len(shorten_texts({"columns": ["x" * 5000]})["columns"][0])
        4000
    """
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[: MAX_TEXT - 1]}…"
    if isinstance(value, dict):
        return {shorten_texts(key): shorten_texts(item) for key, item in value.items()}
    return [shorten_texts(item) for item in value] if isinstance(value, (list, tuple)) else value


class Step(ManifestPart):
    """One step of the chain from x to z, as trace.onnx shows it.

    Args:
        name: of the step, such as ``"standardize"`` or ``"coupling 2"``.
        shape: of the event after it.
    """

    name: _FilledName
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=4)]


_LATER: Final = frozenset({"constraints", "context_scale", "prior", "variational"})
"""Keys that format 3 was given after its first bundles. They are left out where they say nothing."""


class Manifest(ManifestPart):
    """The content of flow.json.

    Args:
        format: the number of the format, `FORMAT`.
        name: of the flow, of `NAME_PATTERN`.
        version: a positive integer.
        description: one or two sentences for a list of flows.
        event_shape: the shape of one row of x: ``[D]`` for a table, ``[H, W, C]`` for an image.
        latent_width: the number of coordinates of z.
        context_width: the number of columns of context; 0 for a flow without.
        features: one entry a column, for a table that names its columns; else empty.
        context_features: one entry a column of context, where those have names; else empty.
        base: the distribution of z (`service.bundle.bases`).
        support: the support of the density; null for all of space.
        quantization: for integer-valued data; else null.
        inverse: "closed form" where x follows from z by formulas, be it column after column; "numeric" where some step
            searches for it in a fixed number of steps.
        opset: the ONNX opset of the graphs.
        precision: what the graphs take, compute in and give.
        files: file name -> SHA-256, for every other file of the bundle.
        calibration: log_prob on held-out rows.
        directions: name -> direction in latent space, ``[D]``.
        trace: the steps of the chain, where the bundle holds trace.onnx; else empty.
        parity: the errors that the exporter's gate measured.
        provenance: the origin of the flow.
        prior: outside of which what the flow stands for has no mass, though the flow has some; absent for none.
        constraints: the support of a density whose columns do not all have the same ends; absent for any other.
        variational: the evidence for a flow that was fitted to a density; absent for any other.
        context_scale: how far the held-out contexts lie from their mean; absent for none.

    Raises:
        ManifestInvalid: from `from_json`, naming each wrong key.
    """

    format: Literal[3] = FORMAT
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: _Version
    description: _Text = ""
    event_shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=4)]
    latent_width: Annotated[int, Field(ge=1, le=_MAX_WIDTH)]
    context_width: Annotated[int, Field(ge=0, le=_MAX_WIDTH)] = 0
    features: list[Feature] = Field(default_factory=list)
    context_features: list[ContextFeature] = Field(default_factory=list)
    base: AnyBase
    support: Support | None = None
    quantization: Quantization | None = None
    inverse: Literal["closed form", "numeric"] = "closed form"
    opset: Annotated[int, Field(ge=1, lt=1 << 31)]
    precision: Precision = "float32"
    files: dict[_Name, Annotated[str, Field(pattern=_DIGEST_PATTERN)]]
    calibration: Calibration
    directions: dict[_FilledName, list[FiniteFloat]] = Field(default_factory=dict)
    trace: list[Step] = Field(default_factory=list)
    parity: Parity
    provenance: Provenance
    prior: Prior | None = None
    constraints: list[Constraint] = Field(default_factory=list)
    variational: Variational | None = None
    context_scale: ContextScale | None = None

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A bundle that has no such key keeps its bytes."""
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if key not in _LATER or value}

    @property
    def event_width(self) -> int:
        """The number of values in one row of x: the product of `event_shape`."""
        return math.prod(self.event_shape)

    @property
    def dtype(self) -> FloatType:
        """The dtype of the flow's rows and answers."""
        return DTYPES[self.precision]

    @model_validator(mode="after")
    def _check_widths_and_names(self) -> Self:
        if self.event_width > _MAX_WIDTH:
            raise ValueError(f"an event may hold at most {_MAX_WIDTH} values, not {self.event_width}")
        check_constraints(self.constraints, self.event_shape)
        follow = sum(constraint.kind == "simplex" for constraint in self.constraints)
        if self.latent_width != self.event_width - follow:
            raise ValueError(
                f"a bijection keeps the width: latent_width is {self.latent_width}, "
                f"and an event holds {self.event_width} values"
                + (f", of which {follow} follow from the others" if follow else "")
            )
        if self.base.width not in (None, self.latent_width):
            raise ValueError(f"the base is of {self.base.width} coordinates, and latent_width is {self.latent_width}")
        if self.features and (len(self.event_shape) != 1 or len(self.features) != self.event_width):
            raise ValueError(f"{len(self.features)} features for an event of shape {self.event_shape}")
        if self.context_features and len(self.context_features) != self.context_width:
            raise ValueError(f"{len(self.context_features)} context_features for a context of {self.context_width}")
        names = [feature.name for feature in self.context_features]
        columns = [feature.column for feature in self.context_features]
        twice = next((name for at, name in enumerate(names) if name in names[:at] or name in columns), None)
        if twice is not None:
            raise ValueError(f"two columns of context are called {twice!r}")
        both = next((feature.name for feature in self.features if feature.name in names), None)
        if both is not None:
            raise ValueError(f"{both!r} names both a column of the event and one of the context")
        greatest = float(np.finfo(self.dtype).max)
        if max(map(abs, self.calibration.quantiles)) > greatest:
            raise ValueError(f"a quantile of log_prob is beyond {greatest:.3g}, the greatest {self.precision}")
        if self.prior is not None and self.prior.width != self.event_width:
            raise ValueError(f"the prior is of {self.prior.width} coordinates, and an event holds {self.event_width}")
        if self.context_scale is not None and self.context_scale.width != self.context_width:
            raise ValueError(f"context_scale is of {self.context_scale.width} columns, not {self.context_width}")
        for step in self.trace:
            if math.prod(step.shape) != self.latent_width:
                raise ValueError(f"a bijection keeps the width: step {step.name!r} has shape {step.shape}")
        for name, direction in self.directions.items():
            if len(direction) != self.latent_width:
                raise ValueError(f"direction {name!r} has {len(direction)} values, not {self.latent_width}")
            if max(map(abs, direction)) > greatest:
                raise ValueError(f"direction {name!r} has a value beyond {greatest:.3g}, the greatest {self.precision}")
        return self

    def to_json(self) -> bytes:
        """Write the manifest as indented UTF-8 JSON with a final newline, under a digest of what it says now."""
        return _seal(self.model_dump())

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            ManifestInvalid: where `data` is too large, is not JSON, is of another format, or any key is missing,
                unknown or of the wrong type; every such key is named.
            DigestMismatch: where its digest is of another content.
        """
        content = _parse(data)
        if content.get("format") in OLDER_FORMATS:
            raise ManifestInvalid(
                f"flow.json is of format {content['format']}, which is under no digest; format {FORMAT} is expected. "
                "`pushforward reseal BUNDLE` checks the bundle and brings it up to date"
            )
        sealed = content.pop("digest", None)
        try:
            manifest = cls.model_validate_json(json.dumps(content))
        except ValidationError as error:
            reasons = [Reason(("flow.json", *e["loc"]), e["msg"]) for e in error.errors()]
            raise ManifestInvalid("flow.json is not a manifest of this format", tuple(reasons)) from error
        if sealed is None:
            missing = Reason(("flow.json", "digest"), "Field required")
            raise ManifestInvalid("flow.json is not a manifest of this format", (missing,))
        if sealed != content_digest(content):
            raise DigestMismatch(
                "flow.json is not the one that was written: its digest is of another content. Fetch the bundle again; "
                "where you changed flow.json yourself, `pushforward reseal --edited BUNDLE` renews its digest"
            )
        return manifest


def content_digest(content: dict[str, Any]) -> str:
    """The digest of a manifest: SHA-256 of its content without the key `digest`, as canonical JSON.

    Canonical JSON has its keys in order, no space, ASCII only, and each number as Python's `json` writes it. Blanks and
    line ends of the file therefore do not count.

    Args:
        content: of flow.json, without `digest`.

    Returns:
        64 hexadecimal digits.
    """
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def seal_older(data: bytes, *, edited: bool = False) -> bytes:
    """Bring a manifest of an older format up to date: the same content under a digest.

    Args:
        data: the content of flow.json.
        edited: whether the digest of a manifest of `FORMAT` is to be renewed too.

    Returns:
        The new content of flow.json; `data` itself where it is sealed already.

    Raises:
        ManifestInvalid: as `Manifest.from_json`.
        DigestMismatch: as `Manifest.from_json`, unless `edited`.
    """
    content = _parse(data)
    if content.get("format") in OLDER_FORMATS or (edited and content.get("format") == FORMAT):
        rest = {key: value for key, value in content.items() if key != "digest"}
        data = _seal({**rest, "format": FORMAT})
    Manifest.from_json(data)
    return data


def _seal(content: dict[str, Any]) -> bytes:
    """Write a manifest's content with its digest, which follows the format."""
    sealed = {"format": content["format"], "digest": content_digest(content), **content}
    text = json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="surrogatepass")  # what is no Unicode is refused where it is read


def _parse(data: bytes) -> dict[str, Any]:
    """The content of flow.json, in which no key stands twice and every number is finite.

    Raises:
        ManifestInvalid: `data` is something else.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"flow.json has {len(data)} bytes; the cap is {MAX_MANIFEST_BYTES}")
    try:
        content = json.loads(data.decode(), object_pairs_hook=_distinct, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"flow.json is not a manifest: it is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ManifestInvalid("flow.json is not a manifest: it is no JSON object")
    return content


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value
