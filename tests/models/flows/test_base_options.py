from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.flows.base_options import BASES, BaseOptions, Squash
from models.flows.bases import LearntBase
from service.bundle.bases import AnyBase, NormalBase, StudentTBase, UniformBase
from service.errors import DataError


@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_squash_is_finite_in_float32_wherever_it_is_asked(y: float) -> None:
    step = Squash()
    z, ladj = step(torch.tensor([[y]]))
    assert abs(z.item()) <= 1
    assert math.isfinite(ladj.item())
    exact = torch.tensor([[y]], dtype=torch.float64)
    torch.testing.assert_close((z.double(), ladj.double()), step(exact), rtol=1e-5, atol=1e-6)
    back, inverse_ladj = step.inverse(z)
    assert math.isfinite(back.item())
    assert math.isfinite(inverse_ladj.item())
    if abs(y) <= 100:
        assert back.item() == pytest.approx(y, rel=1e-3, abs=1e-6)


def test_a_uniform_number_squashed_back_is_a_student_t_of_two_degrees() -> None:
    y = torch.linspace(-50, 50, 101, dtype=torch.float64)[:, None]
    ladj = Squash()(y)[1]
    expected = stats.t(2, scale=math.sqrt(0.5)).logpdf(y[:, 0].numpy())
    torch.testing.assert_close(ladj - math.log(2), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("z", [-5.0, -1.0, 1.0, 5.0])
def test_an_end_of_the_box_has_a_finite_event(z: float) -> None:
    y, ladj = Squash().inverse(torch.tensor([[z]]))
    assert abs(y.item()) == pytest.approx(2896.3, rel=1e-4)
    assert math.isfinite(ladj.item())


def built(**options: Any) -> Any:
    torch.manual_seed(0)
    return BaseOptions.pop_from(options).build(3)


def test_every_family_of_the_manifest_can_be_asked_for() -> None:
    families = {base.model_fields["family"].default for base in AnyBase.__origin__.__args__}
    assert set(BASES) == families
    for name in BASES:
        base = built(base=name)[1]
        assert (base.stated() if isinstance(base, LearntBase) else base).family == name


def test_what_is_built() -> None:
    assert built() == ([], NormalBase())
    assert built(base="student_t", degrees_of_freedom=2) == ([], StudentTBase(degrees_of_freedom=2))
    steps, base = built(base="uniform")
    assert [type(step) for step in steps] == [Squash]
    assert base == UniformBase(low=-1.0, high=1.0)
    assert len(built(base="mixture", components=4)[1].stated().weights) == 4
    assert not torch.equal(built(base="mixture")[1].means[0], built(base="mixture")[1].means[1])


def test_the_architecture_s_own_options_are_left() -> None:
    options = {"transforms": 2, "base": "mixture", "components": 3}
    BaseOptions.pop_from(options)
    assert options == {"transforms": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "student"}, "no base 'student'; did you mean 'student_t'"),
        ({"base": 3}, "base must be a name, not 3"),
        ({"base": "student_t", "degrees_of_freedom": 0}, "a whole number from 1 to 100, not 0"),
        ({"base": "student_t", "degrees_of_freedom": 2.5}, "a whole number from 1 to 100, not 2.5"),
        ({"base": "student_t", "degrees_of_freedom": True}, "a whole number from 1 to 100, not True"),
        ({"base": "mixture", "components": 1}, "a whole number from 2 to 1024, not 1"),
        ({"base": "mixture", "degrees_of_freedom": 3}, "an option of base = 'student_t', and the base is 'mixture'"),
        ({"components": 3}, "an option of base = 'mixture', and the base is 'normal'"),
    ],
)
def test_an_option_that_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BaseOptions.pop_from(dict(options))
