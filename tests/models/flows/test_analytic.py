from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.export.export import export_flow
from models.export.exported_graph import ExportedGraph
from models.flows.analytic import ANALYTIC, Affine, Rotation, affine, chain, exp, rotation, square, tanh_box
from models.flows.bases import sample_base
from models.flows.flow import Flow
from service.bundle.bases import DiagonalNormalBase
from service.bundle.manifest import Support
from service.bundle.store import Repository, read_bundle
from service.errors import DataError

Array = npt.NDArray[np.float64]


@given(st.floats(2.0**-126, 4.0, width=32))
def test_square_has_its_closed_form(x: float) -> None:
    flow = square().double()
    assert flow.log_prob(torch.tensor([[x]], dtype=torch.float64)).item() == pytest.approx(-math.log(4 * math.sqrt(x)))


def test_square_is_a_density() -> None:
    """The integral over (0, 4], in u = sqrt(x), where it has no pole."""
    u = torch.linspace(1e-6, 2.0, 20_001, dtype=torch.float64)
    density = square().double().log_prob((u * u)[:, None]).exp().numpy()
    assert np.trapezoid(density * 2 * u.numpy(), u.numpy()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("x", [0.0, -1.0, 4.000001, 1e30])
def test_square_is_nothing_elsewhere(x: float) -> None:
    z, ladj = square()(torch.tensor([[x]]))
    assert square().log_prob(torch.tensor([[x]])).item() == -math.inf
    assert math.isfinite(z.item())
    assert math.isfinite(ladj.item())


@given(st.floats(0, 2, width=32))
def test_whatever_is_generated_lies_in_the_support(z: float) -> None:
    x, ladj, log_prob = square().inverse_log_prob(torch.tensor([[z]]))
    assert 0 < x.item() <= 4
    assert math.isfinite(ladj.item())
    assert log_prob.item() == pytest.approx(-math.log(4 * math.sqrt(x.item())), rel=1e-5, abs=1e-5)


def rows(low: float, high: float, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(500, width, generator=generator, dtype=torch.float64)


A, B = np.array([[2.0, 0.0], [1.5, 0.5]]), np.array([1.0, -2.0])
TURN = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])


def chained(x: Array) -> Array:
    normal = stats.multivariate_normal(TURN @ B, TURN @ A @ A.T @ TURN.T)
    return normal.logpdf(np.arctanh(x)) - np.log(1 - x * x).sum(axis=1)


FORMULAS: dict[str, tuple[Flow, torch.Tensor, Callable[[Array], Array]]] = {
    "affine": (affine(A.tolist(), B.tolist()), rows(-5, 5, 2), stats.multivariate_normal(B, A @ A.T).logpdf),
    "affine, one column": (affine([[-2.0]], [1.0]), rows(-5, 5, 1), lambda x: stats.norm(1, 2).logpdf(x[:, 0])),
    "exp": (exp(0.4, 0.8), rows(0, 20, 1), lambda x: stats.lognorm(0.8, scale=math.exp(0.4)).logpdf(x[:, 0])),
    "tanh_box": (
        tanh_box(2),
        rows(-1, 1, 2),
        lambda x: (stats.norm.logpdf(np.arctanh(x)) - np.log(1 - x * x)).sum(axis=1),
    ),
    "rotation": (
        rotation(0.7, (2.0, 0.5)),
        rows(-5, 5, 2),
        stats.multivariate_normal([0, 0], TURN @ np.diag([4.0, 0.25]) @ TURN.T).logpdf,
    ),
    "chain": (chain(0.7, A.tolist(), B.tolist()), rows(-1, 1, 2), chained),
}


@pytest.mark.parametrize(("flow", "x", "expected"), FORMULAS.values(), ids=FORMULAS.keys())
def test_the_density_is_the_formula(flow: Flow, x: torch.Tensor, expected: Callable[[Array], Array]) -> None:
    found = flow.double().log_prob(x).numpy()
    np.testing.assert_allclose(found, expected(x.numpy()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ANALYTIC if name != "square"])
def test_the_density_integrates_to_one(name: str) -> None:
    """Over a grid of latents: the sum of p(x) |dx/dz|, taken apart from the density itself."""
    flow = ANALYTIC[name]().double()
    line = torch.linspace(-16, 16, 801, dtype=torch.float64)
    z = line[:, None] if flow.width == 1 else torch.cartesian_prod(line, line)
    x, ladj = flow.inverse(z)
    density = (flow.log_prob(x) + ladj).exp()
    if flow.support is not None:  # where rounding puts x on an end, there is no mass to speak of
        density = density[flow.in_support(x)]
    assert float(density.sum()) * float(line[1] - line[0]) ** flow.width == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("flow", "x"),
    [(exp(), [[0.0]]), (exp(), [[-1.0]]), (tanh_box(), [[1.0]]), (tanh_box(2), [[0.5, -1.5]]), (chain(), [[0.0, 2.0]])],
)
def test_outside_its_support_a_closed_form_is_nothing(flow: Flow, x: list[list[float]]) -> None:
    z, ladj = flow(torch.tensor(x))
    assert flow.log_prob(torch.tensor(x)).item() == -math.inf
    assert bool(torch.isfinite(z).all() and torch.isfinite(ladj).all())


def test_a_turn_is_from_the_first_axis_to_the_second() -> None:
    x, ladj = Rotation(math.pi / 2).inverse(torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(x, torch.tensor([[0.0, 1.0]]))
    assert ladj.item() == 0.0


@pytest.mark.parametrize(
    ("matrix", "shift", "message"),
    [
        ([[1.0, 0.0], [2.0, 0.0]], [0.0, 0.0], "no inverse"),
        ([[1.0, 0.0]], [0.0, 0.0], r"shape \[1, 2\] does not go with 2 columns"),
        ([[1.0]], [0.0, 0.0], "does not go with 2 columns"),
    ],
)
def test_a_matrix_that_is_no_bijection_is_refused(matrix: Any, shift: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Affine(matrix, shift)


@pytest.mark.parametrize(
    "name", ["affine", "chain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rotation", "tanh_box"))]
)  # the chain holds those two
def test_a_closed_form_passes_the_gate(name: str, tmp_path: Path) -> None:
    flow = ANALYTIC[name]()
    held_out = flow.inverse(sample_base(flow.base, 200, flow.width, torch.Generator().manual_seed(0)))[0]
    folder = export_flow(flow, repository=Repository(tmp_path), name=name, held_out=held_out, data="draws")
    manifest = read_bundle(folder).manifest
    assert manifest.base == flow.base
    assert manifest.support == flow.support
    assert manifest.parity.log_prob < 1e-5


def test_a_half_line_works_from_export_to_answers(tmp_path: Path) -> None:
    flow = exp()
    held_out = flow.inverse(sample_base(flow.base, 200, 1, torch.Generator().manual_seed(0)))[0]
    folder = export_flow(flow, repository=Repository(tmp_path), name="exp", held_out=held_out, data="draws")
    bundle = read_bundle(folder)
    assert bundle.manifest.support == Support(low=0.0)
    assert bundle.manifest.base == DiagonalNormalBase(mean=[0.0], standard_deviation=[0.5])
    forward = ExportedGraph(bundle.graphs["forward.onnx"], "forward")
    x = np.array([[1.0], [0.0], [-1.0], [1e30]], np.float32)
    found = forward(x, None, 4).log_prob
    assert found[0] == pytest.approx(-math.log(0.5 * math.sqrt(2 * math.pi)), abs=1e-6)
    assert found[1:3].tolist() == [-math.inf, -math.inf]
    assert math.isfinite(found[3])
