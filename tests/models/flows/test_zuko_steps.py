from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import zuko
from torch import Tensor, nn

from models.flows.conditional import Coupling
from models.flows.flow import Bijection
from models.flows.zuko_steps import Univariate, ZukoAutoregressive, from_zuko
from tests.laws.table import SPLINE, normal, randomize


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """How often each conditioner of a module runs."""
    calls: list[int] = []
    hooks = [
        part.register_forward_hook(lambda *_: calls.append(1))
        for name, part in module.named_modules()
        if name.split(".")[-1] == "hyper"
    ]
    yield calls
    for hook in hooks:
        hook.remove()


def chain(transform: zuko.lazy.LazyTransform) -> list[Bijection]:
    randomize(transform)
    return from_zuko(transform)


def through(steps: list[Bijection], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    total = torch.zeros(x.shape[0], dtype=x.dtype)
    for step in steps:
        x, ladj = step(x, context)
        total = total + ladj
    return x, total


FLOWS = {
    "real_nvp": (lambda: zuko.flows.RealNVP(5, 0, transforms=3, hidden_features=(8,)), 0),
    "real_nvp, conditional": (lambda: zuko.flows.RealNVP(5, 2, transforms=3, hidden_features=(8,)), 2),
    "spline coupling": (lambda: zuko.flows.RealNVP(5, 2, transforms=2, hidden_features=(8,), **SPLINE), 2),
    "maf": (lambda: zuko.flows.MAF(5, 2, transforms=2, hidden_features=(16,)), 2),
}


@pytest.mark.parametrize("name", FLOWS)
def test_it_is_zuko_s_own_transform(name: str) -> None:
    make, context_width = FLOWS[name]
    transform = make().transform
    steps = chain(transform)
    x, context = normal(7, 5), normal(7, context_width) if context_width else None
    y, ladj = transform(context).call_and_ladj(x)
    torch.testing.assert_close(through(steps, x, context), (y, ladj))
    back = y
    for step in reversed(steps):
        back, _ = step.inverse(back, context)
    torch.testing.assert_close(back, transform(context).inv(y))


def test_a_composition_becomes_its_steps() -> None:
    flow = zuko.flows.RealNVP(4, transforms=3, hidden_features=(8,))
    assert [type(step) for step in from_zuko(flow.transform)] == [Coupling] * 3
    assert [type(step) for step in from_zuko(zuko.flows.MAF(4, transforms=2).transform)] == [ZukoAutoregressive] * 2
    assert [type(step) for step in from_zuko(zuko.flows.RealNVP(1, transforms=2).transform)] == [Univariate] * 2


@pytest.mark.parametrize("name", ["real_nvp", "real_nvp, conditional", "spline coupling"])
def test_a_coupling_runs_its_conditioner_once_in_either_direction(name: str) -> None:
    """zuko's own inverse runs it twice or more, for the value and for the log-determinant."""
    make, context_width = FLOWS[name]
    transform = make().transform
    context = normal(7, context_width) if context_width else None
    for step in chain(transform):
        with counted(step) as calls:
            step(normal(7, 5), context)
            assert len(calls) == 1
            step.inverse(normal(7, 5), context)
            assert len(calls) == 2
    with counted(transform) as calls:
        y = transform(context).inv(normal(7, 5))
        transform(context).inv.log_abs_det_jacobian(normal(7, 5), y)
        assert len(calls) > len(list(transform.transforms)), "zuko has changed: is the adapter still needed?"


def test_an_autoregressive_inverse_takes_no_more_passes_than_columns() -> None:
    step = chain(zuko.flows.MAF(5, transforms=1, hidden_features=(16,)).transform)[0]
    with counted(step) as calls:
        step.inverse(normal(7, 5))
    assert len(calls) == 5


def test_its_parameters_are_shared_so_that_either_can_be_trained() -> None:
    transform = zuko.flows.RealNVP(4, transforms=2, hidden_features=(8,)).transform
    shared = {id(p) for step in from_zuko(transform) for p in step.parameters()}
    assert shared == {id(p) for p in transform.parameters()}
