"""The signature of a graph: names and shapes of its inputs and outputs. Does not import onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from service.bundle.precision import DTYPES, FloatType, Precision
from service.errors import BundleError

if TYPE_CHECKING:  # it brings pydantic, which a process of an isolated engine does without
    from service.bundle.manifest import Manifest

__all__ = ["CONTEXT", "TENSORS", "Direction", "Signature", "TensorNames"]

Direction = Literal["forward", "inverse", "trace"]

CONTEXT: Final = "context"
"""The input of every graph of a conditional flow, beside the rows."""


class TensorNames(NamedTuple):
    """The names of a graph's tensors.

    Args:
        rows: the input of the rows.
        outputs: the value, log_abs_det_jacobian and log_prob; of a trace those of each step.
    """

    rows: str
    outputs: tuple[str, str, str]


TENSORS: Final[Mapping[Direction, TensorNames]] = MappingProxyType(
    {
        "forward": TensorNames("x", ("z", "log_abs_det_jacobian", "log_prob")),
        "inverse": TensorNames("z", ("x", "log_abs_det_jacobian", "log_prob")),
        "trace": TensorNames("x", ("values", "log_abs_det_jacobians", "log_prob")),
    }
)
"""Direction -> the names of its graph's inputs and outputs."""


_TYPES: Final[Mapping[Precision, str]] = MappingProxyType({"float32": "tensor(float)", "float64": "tensor(double)"})
"""The precision of a tensor -> its type in the words of ONNX Runtime."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of one direction of a flow, or of its trace, all in its precision.

    Args:
        file: the graph's, in its bundle.
        precision: of every tensor.
        inputs: name -> shape of one row; first that of the rows, then that of the context, if there is one.
        outputs: the same: the value, log_abs_det_jacobian and log_prob; of a trace values and log_abs_det_jacobians,
            those of each step.
    """

    file: str
    precision: Precision
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, manifest: Manifest, direction: Direction) -> Signature:
        """The signature of a direction under a manifest."""
        event, latent, steps = tuple(manifest.event_shape), (manifest.latent_width,), len(manifest.trace)
        shapes: dict[Direction, tuple[tuple[int, ...], ...]] = {
            "forward": (event, latent, (), ()),
            "inverse": (latent, event, (), ()),
            "trace": (event, (steps, *latent), (steps,), ()),
        }
        rows, *outputs = shapes[direction]
        names = TENSORS[direction]
        context = {CONTEXT: (manifest.context_width,)} if manifest.context_width else {}
        return cls(
            file=f"{direction}.onnx",
            precision=manifest.precision,
            inputs={names.rows: rows, **context},
            outputs=dict(zip(names.outputs, outputs, strict=True)),
        )

    @property
    def dtype(self) -> FloatType:
        """The dtype of every tensor."""
        return DTYPES[self.precision]

    def check(self, session: Any) -> None:  # noqa: ANN401  onnxruntime has no types
        """Hold a session against it: names, precision, number of rows left open.

        Raises:
            BundleError: naming what differs.
        """
        for kind, tensors, expected in (
            ("input", session.get_inputs(), self.inputs),
            ("output", session.get_outputs(), self.outputs),
        ):
            if {tensor.name for tensor in tensors} != set(expected) or len(tensors) != len(expected):
                found = [tensor.name[:64] for tensor in tensors]
                raise BundleError(f"{self.file} must have the {kind}s {list(expected)}, and has {found}")
            for tensor in tensors:
                rows, *rest = tensor.shape or [0]
                shape = list(expected[tensor.name])
                fixed = all(isinstance(size, int) for size in rest)
                fits = len(rest) == len(shape) and (rest == shape or not fixed)
                if tensor.type != _TYPES[self.precision] or isinstance(rows, int) or not fits:
                    raise BundleError(
                        f"{self.file}: {kind} {tensor.name} must be {self.precision} of shape {['N', *shape]}, "
                        f"and is {tensor.type} of shape {tensor.shape}"
                    )
