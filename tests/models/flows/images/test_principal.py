from __future__ import annotations

from typing import Any

import pytest
import torch

from models.architectures import build_flow
from models.export.graph import export_graph
from models.flows.flow import Flow
from models.flows.images.principal import HalfLinear, PrincipalAxes, ResidualAxes
from service.errors import DataError
from tests.laws.table import normal, randomize

OPTIONS: dict[str, Any] = {"leading": 3, "encoder": [8], "decoder": [8], "residual": 2, "transforms": 2, "hidden": [8]}
STRETCH = torch.tensor([9.0, 1.0, 0.5, 5.0, 0.2, 3.0, 0.1])
ROWS = (normal(400, 7) * STRETCH + 2.0) @ torch.linalg.qr(normal(7, 7, seed=5)).Q


PICTURES = ROWS.float().reshape(-1, 7, 1, 1)


def build(**options: Any) -> Flow:
    return build_flow("image_principal", {**OPTIONS, **options}, rows=PICTURES)


def axes() -> PrincipalAxes:
    step = PrincipalAxes(7, 3).double()
    step.initialize(ROWS)
    return step


def test_the_leading_coordinates_are_those_of_the_greatest_variance_standardized() -> None:
    step = axes()
    y, _ = step(ROWS)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(7, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(y.std(dim=0, correction=0), torch.ones(7, dtype=torch.float64))
    variances = torch.linalg.eigvalsh(torch.cov(ROWS.T, correction=0)).flip(0)
    torch.testing.assert_close(step.deviation[:3].square(), variances[:3], rtol=1e-2, atol=0)
    correlated = torch.corrcoef(y.T) - torch.eye(7)
    torch.testing.assert_close(correlated[:3], torch.zeros(3, 7, dtype=torch.float64), atol=0.02, rtol=0)


def test_the_turn_is_orthogonal_though_its_vectors_are_in_half_precision() -> None:
    step = axes()
    matrix = step(torch.eye(7, dtype=torch.float64))[0] - step(torch.zeros(1, 7, dtype=torch.float64))[0]
    turn = matrix * step.deviation
    torch.testing.assert_close(turn.T @ turn, torch.eye(7, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.equal(step.vectors, step.vectors.half().double())


def test_a_layer_of_half_precision_is_served_as_it_is_fitted_and_learns_below_its_precision() -> None:
    layer = HalfLinear(5, 3)
    x = normal(4, 5).float()
    fitted = layer.train()(x)
    served = layer.eval()(x)
    torch.testing.assert_close(fitted, served)
    torch.testing.assert_close(served, x @ layer.weight.half().float().T + layer.bias)
    layer.train()(x).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=0).expand(3, 5))


def test_the_large_matrices_of_a_graph_take_two_bytes_a_number() -> None:
    rows = normal(60, 24, 24, 1).float()
    flow = build_flow(
        "image_principal", {**OPTIONS, "leading": 8, "encoder": [32], "decoder": [32], "residual": 8}, rows=rows
    )
    randomize(flow, scale=0.2)
    data = export_graph(flow.float().eval().fold(), "forward")
    matrices = (576 * 8, (576 - 8) * 32, (576 - 8) * 32, (576 - 8) * 8)
    assert len(data) < 2 * sum(matrices) + 60_000


def test_as_built_the_encoder_and_the_decoder_change_nothing() -> None:
    flow = build()
    values, terms = flow.trace(PICTURES)
    at = flow.steps.index("principal axes")
    assert torch.equal(values[at], values[at + 1])
    torch.testing.assert_close(values[at], values[at + 2])
    assert not terms[at + 1].any()
    assert not terms[at + 2].any()
    left = values[at + 3][:, 3:]
    torch.testing.assert_close(left.std(dim=0, correction=0), torch.ones(4), rtol=1e-3, atol=0)


def test_the_axes_of_what_is_left_over_are_folded_to_constants() -> None:
    step = ResidualAxes(7, 3).double().eval().requires_grad_(requires_grad=False)
    step.initialize(ROWS)
    folded = step.folded()
    assert isinstance(folded, PrincipalAxes)
    for one, other in zip(folded(ROWS), step(ROWS), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"leading": 1}, "leading must be a number from 2 to 5"),
        ({"leading": 7}, "leading must be a number from 2 to 5"),
        ({"encoder": []}, "encoder must be 1 to 8 layer widths"),
        ({"decoder": [0]}, "decoder must be 1 to 8 layer widths"),
        ({"residual": 0}, "residual must be a number from 1 to 3"),
        ({"residual": 4}, "residual must be a number from 1 to 3"),
        ({"transforms": 0}, "transforms must be a number from 1"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"bins": 1}, "bins"),
        ({"encodr": [8]}, "did you mean 'encoder'"),
    ],
)
def test_an_option_that_does_not_fit_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        build(**options)
