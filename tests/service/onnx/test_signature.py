from __future__ import annotations

import typing

import pytest

from service.onnx.signature import TENSORS, Direction, Signature
from tests.service.bundles import affine, image, traced


@pytest.mark.parametrize(
    ("direction", "inputs", "outputs"),
    [
        ("forward", {"x": (2,), "context": (3,)}, {"z": (2,), "log_abs_det_jacobian": (), "log_prob": ()}),
        ("inverse", {"z": (2,), "context": (3,)}, {"x": (2,), "log_abs_det_jacobian": (), "log_prob": ()}),
    ],
)
def test_a_conditional_flow_takes_the_rows_first_and_then_the_context(direction, inputs, outputs):
    signature = Signature.of(affine(context_width=3).manifest, direction)
    assert signature.file == f"{direction}.onnx"
    assert list(signature.inputs.items()) == list(inputs.items())
    assert list(signature.outputs.items()) == list(outputs.items())


def test_an_image_is_an_event_on_one_side_and_flat_on_the_other():
    manifest = image().manifest
    event, flat = tuple(manifest.event_shape), (manifest.latent_width,)
    assert len(event) == 3
    forward, inverse = Signature.of(manifest, "forward"), Signature.of(manifest, "inverse")
    assert (forward.inputs["x"], forward.outputs["z"]) == (event, flat)
    assert (inverse.inputs["z"], inverse.outputs["x"]) == (flat, event)


def test_a_trace_has_a_value_and_a_term_for_each_step():
    manifest = traced(affine()).manifest
    steps, width = len(manifest.trace), manifest.latent_width
    assert Signature.of(manifest, "trace").outputs == {
        "values": (steps, width),
        "log_abs_det_jacobians": (steps,),
        "log_prob": (),
    }


def test_every_direction_has_names():
    assert set(TENSORS) == set(typing.get_args(Direction))
