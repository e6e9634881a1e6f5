from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor

from models.flows.flow import Bijection
from tests.laws.table import BIJECTIONS, BijectionCase

EXACT = {"rtol": 1e-9, "atol": 1e-9}

cases = pytest.mark.parametrize("case", BIJECTIONS.values(), ids=BIJECTIONS.keys())


def jacobian_log_det(f: Bijection, x: Tensor, context: Tensor | None) -> Tensor:
    """log|det| row by row, by differentiation."""
    values = []
    for row in range(x.shape[0]):
        given = None if context is None else context[row : row + 1]
        matrix = torch.autograd.functional.jacobian(lambda event, given=given: f(event[None], given)[0][0], x[row])
        values.append(torch.linalg.slogdet(matrix.reshape(x[row].numel(), -1))[1])
    return torch.stack(values)


@cases
def test_inverse_undoes_forward(case: BijectionCase) -> None:
    f = case.build()
    y, _ = f(case.x, case.context)
    torch.testing.assert_close(f.inverse(y, case.context)[0], case.x, **EXACT)


@cases
def test_forward_undoes_inverse(case: BijectionCase) -> None:
    f = case.build()
    y = f(case.x, case.context)[0]
    x = f.inverse(y, case.context)[0]
    torch.testing.assert_close(f(x, case.context)[0], y, **EXACT)


@cases
def test_log_determinant_is_that_of_the_jacobian(case: BijectionCase) -> None:
    f = case.build()
    _, ladj = f(case.x, case.context)
    assert ladj.shape == (case.x.shape[0],)
    torch.testing.assert_close(ladj, jacobian_log_det(f, case.x, case.context), **EXACT)


@cases
def test_log_determinant_of_the_inverse_is_minus_that_of_forward(case: BijectionCase) -> None:
    f = case.build()
    y, ladj = f(case.x, case.context)
    torch.testing.assert_close(f.inverse(y, case.context)[1], -ladj, **EXACT)


@cases
def test_rows_do_not_touch_each_other(case: BijectionCase) -> None:
    f = case.build()
    y, ladj = f(case.x, case.context)
    for row in range(case.x.shape[0]):
        given = None if case.context is None else case.context[row : row + 1]
        alone = f(case.x[row : row + 1], given)
        torch.testing.assert_close(alone, (y[row : row + 1], ladj[row : row + 1]), **EXACT)


@cases
def test_training_and_evaluation_agree(case: BijectionCase) -> None:
    f = case.build()
    torch.testing.assert_close(f.train()(case.x, case.context), f.eval()(case.x, case.context), rtol=0, atol=0)


@cases
def test_saved_and_loaded_it_is_the_same(case: BijectionCase) -> None:
    f = case.build()
    file = io.BytesIO()
    torch.save(f.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(f)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(case.x, case.context), f(case.x, case.context), rtol=0, atol=0)


@cases
def test_it_is_not_the_identity_by_accident(case: BijectionCase) -> None:
    """Random weights move something: a law that only the identity satisfies would show nothing."""
    f = case.build()
    y, ladj = f(case.x, case.context)
    assert y.shape != case.x.shape or not torch.equal(y, case.x) or bool(ladj.any())


@cases
def test_folded_it_is_the_same_map(case: BijectionCase) -> None:
    """As a graph holds it: constants are rounded to float32, and so a little is lost."""
    f = case.build()
    folded = copy.deepcopy(f).folded().double()
    y, ladj = f(case.x, case.context)
    torch.testing.assert_close(folded(case.x, case.context), (y, ladj), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(folded.inverse(y, case.context), f.inverse(y, case.context), rtol=1e-4, atol=1e-4)
