"""The law of graphs of float64: they are the flow in float64, to 1e-12, where graphs of float32 reach 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.architectures import ARCHITECTURES, IMAGES, build_flow
from models.export.export import export_flow
from models.export.exported_graph import ExportedGraph
from models.export.gate import reference
from models.export.graph import export_graph
from models.export.invariance import check_invariance
from models.flows.bases import sample_base
from models.flows.flow import Bijection, Flow
from service.bundle.bases import DiagonalNormalBase, NormalBase
from service.bundle.manifest import Support
from service.bundle.parity import relative_error
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.plan import run_now
from tests.laws.table import normal, randomize

BOUND = 1e-12
BASES = ("normal", "diagonal_normal", "mixture", "student_t", "uniform")


def built(architecture: str, base: str = "normal", context: Tensor | None = None) -> Flow:
    depth = "blocks" if architecture == "neural_spline_mixed" else "transforms"
    options = {depth: 1, "hidden": [8], "base": base}
    flow = build_flow(architecture, options, rows=normal(60, 3), context=context, precision="float64")
    randomize(flow.bijections)
    return flow.double().eval().requires_grad_(requires_grad=False).freeze_base().fold()


def check(flow: Flow, x: Tensor, context: Tensor | None = None) -> None:
    """Hold both graphs against the flow, and their rows against other batches."""
    exact = reference(flow)
    given = None if context is None else context.numpy()
    z = sample_base(flow.base, len(x), flow.width, torch.Generator().manual_seed(1), torch.float64)
    ways = (("forward", x, (*exact(x, context), exact.log_prob(x, context))),
            ("inverse", z, exact.inverse_log_prob(z, context)))  # fmt: skip
    for direction, rows, expected in ways:
        graph = ExportedGraph(export_graph(flow, direction, torch.float64), direction, "float64")
        found = graph(rows.numpy(), given, 7)
        for actual, wanted in zip((found.value, found.log_abs_det_jacobian, found.log_prob), expected, strict=True):
            assert relative_error(actual, wanted.numpy()) < BOUND, direction
        check_invariance(graph, rows.numpy(), given)


def test_the_graphs_are_the_flow() -> None:
    context = normal(60, 2)
    check(built("neural_spline_coupling", "mixture", context), 2 * normal(60, 3), context)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in IMAGES])
def test_the_graphs_of_every_family_are_the_flow(architecture: str) -> None:
    check(built(architecture), 2 * normal(60, 3))


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_the_graphs_on_every_base_are_the_flow(base: str) -> None:
    check(built("real_nvp", base), normal(60, 3))


def test_no_number_of_python_is_rounded_on_its_way_into_a_graph() -> None:
    class Numbers(Bijection):
        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            y = x * 0.1 + torch.full_like(x, 0.2) + torch.where(x > 0.3, x, 0.7) + x.clamp(-0.3, 0.4) / 0.3
            y = y + functional.softplus(x, beta=0.3) + functional.hardtanh(x, -0.11, 0.13) + functional.elu(x, 0.37)
            y = y + (y * 0.1) @ torch.eye(2, dtype=x.dtype) + (x @ torch.ones(2, 2, dtype=x.dtype)) * 0.2
            y = y + x.masked_fill(x > 0.2, 0.6) + torch.ones(2, dtype=x.dtype) * functional.leaky_relu(x, 0.123)
            return y + torch.full((x.shape[0], 2), 0.9, dtype=x.dtype), torch.zeros_like(x[:, 0]) + 0.7

        inverse = forward

    flow = Flow((2,), [Numbers()], NormalBase(), precision="float64").eval()
    x = normal(50, 2)
    found = ExportedGraph(export_graph(flow, "forward", torch.float64), "forward", "float64")(x.numpy(), None, 5)
    assert relative_error(found.value, flow(x)[0].numpy()) < 1e-14
    assert relative_error(found.log_prob, flow.log_prob(x).numpy()) < 1e-14


def test_a_flow_of_float64_keeps_the_numbers_that_one_of_float32_rounds() -> None:
    base = DiagonalNormalBase(mean=[0.1], standard_deviation=[0.3])
    assert Flow((1,), [], base, precision="float64").base == base
    assert Flow((1,), [], base).base != base
    rows = 0.1 + 0.2 * torch.rand(50, 2, dtype=torch.float64)
    bounded = build_flow("real_nvp", {}, rows=rows, support=Support(low=0.1, high=0.3), precision="float64")
    assert bounded.support == Support(low=0.1, high=0.3)
    near = torch.full((1, 2), 0.3 - 1e-12, dtype=torch.float64)
    assert float(bounded.eval().trace(near)[0][0][0, 0]) > 20, "a float32 next to the end is 3e-8 away"


def money(count: int) -> np.ndarray:
    """Amounts up to 3e10, most of which are far smaller, beside a plain column."""
    random = np.random.default_rng(3)
    amounts = np.exp(random.normal(9.0, 3.5, count))
    return np.column_stack((amounts * (2.9e10 / amounts.max()), random.normal(size=count)))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_column_of_money_is_kept_in_float64_and_told_of_in_float32(tmp_path: Path, precision: str) -> None:
    rows = money(400)

    def export(progress: Callable[[str], None] | None = None) -> Path:
        options = {"transforms": 1, "hidden": [8]}
        flow = build_flow("real_nvp", options, rows=torch.from_numpy(rows), precision=precision)  # type: ignore[arg-type]
        return export_flow(
            flow, repository=Repository(tmp_path), name="money", held_out=rows, data="amounts", progress=progress
        )

    if precision == "float32":
        warning = read_bundle(export()).manifest.parity.warning
        assert warning is not None
        assert "do not come back from their latents" in warning
        assert "--precision float64" in warning
        return
    bundle = read_bundle(export())
    assert bundle.manifest.precision == "float64"
    assert bundle.golden.x.dtype == np.float64
    # a digit lost beside 3e10 is one lost of the small amounts, however exact the graphs are
    assert bundle.manifest.parity.log_prob < 1e-9
    assert bundle.manifest.parity.round_trip < 1e-8
    served = load_flow(bundle)
    back = run_now(served.decode(run_now(served.encode(rows)).z))
    np.testing.assert_allclose(back.x, rows, rtol=1e-6)
