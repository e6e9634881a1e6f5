"""What goes into a graph and comes out of it: names and shapes, held against the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from service.bundle.manifest import Manifest
from service.errors import BundleError

__all__ = ["Direction", "Signature"]

Direction = Literal["forward", "inverse", "trace"]


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of one direction of a flow, or of its trace, all float32.

    Args:
        file: the graph's, in its bundle.
        inputs: name -> shape of one row; first that of the rows, then that of the context, if there is one.
        outputs: the same: the value, log_abs_det_jacobian and log_prob; of a trace values and log_abs_det_jacobians,
            those of each step.
    """

    file: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, manifest: Manifest, direction: Direction) -> Signature:
        """What a manifest says of a direction."""
        x, z = ("x", tuple(manifest.event_shape)), ("z", (manifest.latent_width,))
        given, value = (z, x) if direction == "inverse" else (x, z)
        context = {"context": (manifest.context_width,)} if manifest.context_width else {}
        outputs: dict[str, tuple[int, ...]] = {value[0]: value[1], "log_abs_det_jacobian": (), "log_prob": ()}
        if direction == "trace":
            steps = len(manifest.trace)
            outputs = {"values": (steps, manifest.latent_width), "log_abs_det_jacobians": (steps,), "log_prob": ()}
        return cls(f"{direction}.onnx", {given[0]: given[1], **context}, outputs)

    def check(self, session: Any) -> None:  # noqa: ANN401  onnxruntime has no types
        """Hold a session against it: names, float32, number of rows left open.

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
                if tensor.type != "tensor(float)" or isinstance(rows, int) or not fits:
                    raise BundleError(
                        f"{self.file}: {kind} {tensor.name} must be float32 of shape {['N', *shape]}, "
                        f"and is {tensor.type} of shape {tensor.shape}"
                    )
