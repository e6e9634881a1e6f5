"""The search chooses what is not said, and its choice is the fit that these options give by themselves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.architectures import build_flow
from models.data.split import Split
from models.recipe import Recipe
from models.training.fit import FitResult, Perturbation, Run, finish, kernel_noise, noise_choices, repeats, usual_noise
from models.training.search import AUTOREGRESSIVE, FEW_ROWS, LEAST_EPOCHS, Choice, Trial, search
from service.errors import DataError

ROWS = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.9], [0.0, 0.3]])
SPLIT = Split(ROWS[:200], ROWS[200:250], ROWS[250:])
RECIPE = Recipe.parse({"flow": {"transforms": 1, "bins": 4}, "fit": {"epochs": LEAST_EPOCHS, "batch_size": 100}})


def start(recipe: Recipe) -> Run:
    options = {**recipe.flow.options, "whiten": recipe.flow.whiten is not False}
    flow = build_flow(recipe.flow.architecture, options, rows=SPLIT.train, seed=1)
    perturbation = Perturbation.of(SPLIT.train, step=None, noise=recipe.fit.noise, bounded=False)
    return Run(flow, SPLIT, recipe.fit, seed=0, perturbation=perturbation)


def searched(recipe: Recipe = RECIPE, **options) -> tuple[Choice, Run] | None:
    noises = noise_choices(SPLIT.train, step=None, bounded=False)
    return search(recipe, start, **{"rows": len(SPLIT.train), "width": 2, "noises": noises, **options})


def weights_equal(one: Run, other: Run) -> bool:
    a, b = one.flow.state_dict(), other.flow.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_choice_goes_on_as_the_fit_of_its_options() -> None:
    choice, run = searched()
    assert set(choice.flow) == {"architecture", "whiten", "hidden", "dropout"}
    assert choice.noise is not None
    stated = RECIPE.override(choice.overrides)
    plain = start(stated)
    results: list[FitResult] = [finish(run), finish(plain)]
    assert results[0] == results[1]
    assert weights_equal(run, plain)
    assert searched(stated) is None  # nothing is left to choose


def test_the_same_seed_chooses_the_same() -> None:
    torch.manual_seed(7)
    one = searched()
    torch.manual_seed(8)
    other = searched()
    assert one[0] == other[0]
    assert weights_equal(one[1], other[1])


def test_what_is_stated_stays() -> None:
    stated = {
        "flow": {"architecture": "neural_spline_coupling", "whiten": False, "hidden": [8], "dropout": 0.3},
        "fit": {"noise": 0.25},
    }
    assert searched(RECIPE.override(stated)) is None
    for section, key in (("flow", "whiten"), ("flow", "hidden"), ("flow", "dropout"), ("fit", "noise")):
        tried: list[Recipe] = []

        def begin(recipe: Recipe, tried: list[Recipe] = tried) -> Run:
            tried.append(recipe)
            return start(recipe)

        one = {section: {key: stated[section][key]}}
        search(RECIPE.override(one), begin, rows=200, width=2, noises=(0.02, 0.1))
        of_section = [{**recipe.model_dump()[section]} for recipe in tried]
        assert {str(values[key]) for values in of_section} == {str(stated[section][key])}
        assert len(tried) > 1


def test_a_short_fit_is_not_searched() -> None:
    assert searched(RECIPE.override({"fit": {"epochs": LEAST_EPOCHS - 1}})) is None


@pytest.mark.parametrize("stated", [{}, {"whiten": True}, {"hidden": [8]}, {"hidden": [8], "dropout": 0.1}])
@pytest.mark.parametrize("patience", [10, 40, 1000])
def test_a_search_and_its_fit_take_at_most_half_as_many_steps_again_as_the_fit(patience: int, stated: dict) -> None:
    """However early the fit ends: here validation gains nothing after the first epoch."""
    steps: list[Recipe] = []

    def begin(recipe: Recipe) -> Run:
        run = start(recipe)
        run.optimizer.register_step_post_hook(lambda *_: steps.append(recipe))
        return run

    recipe = RECIPE.override({"flow": stated, "fit": {"patience": patience, "learning_rate": 1e-9}})
    _, run = search(recipe, begin, rows=len(SPLIT.train), width=2, noises=(0.02, 0.1))
    searched_steps = len(steps)
    finish(run)
    alone = 2 * len(run.history)  # 200 rows in batches of 100
    assert len(run.history) == min(LEAST_EPOCHS, patience + 1)
    assert alone < len(steps) <= 1.5 * alone
    assert searched_steps > 0


def test_a_fit_that_may_end_after_a_few_epochs_is_not_searched() -> None:
    assert searched(RECIPE.override({"fit": {"patience": 5}})) is None


def test_every_epoch_is_watched() -> None:
    seen: list[Trial] = []
    _, run = searched(watch=seen.append)
    assert [trial.done for trial in seen] == list(range(1, len(seen) + 1))
    assert {trial.planned for trial in seen} == {len(seen)}
    assert len({trial.words for trial in seen}) == 4
    assert len(run.history) == 8
    assert all(math.isfinite(trial.validation) for trial in seen)


@pytest.mark.parametrize(
    ("stated", "rows", "width", "tried"),
    [
        ({}, 200, 2, True),
        ({"hidden": [8], "whiten": True}, 200, 32, True),
        ({}, FEW_ROWS, 2, False),  # of many rows couplings learn as much
        ({}, 200, 1, False),  # there is no order of one column
        ({}, 200, 33, False),  # a sample would take 33 passes
        ({"architecture": "neural_spline_coupling"}, 200, 2, False),
        ({"architecture": "real_nvp"}, 200, 2, False),
        ({"mask": "half"}, 200, 2, False),  # an option of couplings
    ],
)
def test_an_autoregressive_flow_is_tried_where_rows_are_few(stated: dict, rows: int, width: int, tried: bool) -> None:
    seen: list[Recipe] = []

    def begin(recipe: Recipe) -> Run:
        seen.append(recipe)
        return start(RECIPE)

    open_recipe = Recipe.parse({"flow": {"transforms": 1, **stated}, "fit": RECIPE.fit.model_dump(exclude_unset=True)})
    search(open_recipe, begin, rows=rows, width=width, noises=(0.02, 0.1))
    others = [recipe for recipe in seen if recipe.flow.architecture == AUTOREGRESSIVE]
    assert len(others) == tried
    for other in others:
        assert other.flow.options["transforms"] == 1
        assert other.flow.whiten == next(recipe.flow.whiten for recipe in seen)


class Scored:
    """A fit that reaches a given likelihood at once."""

    def __init__(self, best_validation: float) -> None:
        self.best_validation = best_validation
        self.history: list[int] = []

    def epoch(self) -> None:
        self.history.append(len(self.history))


@pytest.mark.parametrize(("ahead", "expected"), [(0.4, False), (0.6, True)])
def test_an_autoregressive_flow_must_be_ahead_by_what_its_samples_cost(ahead: float, expected: bool) -> None:
    def begin(recipe: Recipe) -> Scored:
        return Scored(ahead if recipe.flow.architecture == AUTOREGRESSIVE else 0.0)

    seen: list[Trial] = []
    choice, run = search(RECIPE, begin, rows=200, width=2, noises=(0.02,), watch=seen.append)
    assert (choice.flow.get("architecture") == AUTOREGRESSIVE) is expected
    assert run.best_validation == (ahead if expected else 0.0)
    assert seen[-1].validation == ahead  # the likelihood itself is told


def diverging(when) -> object:
    def begin(recipe: Recipe) -> Run:
        run = start(recipe)
        if when(recipe):
            true = run.flow.log_prob
            run.flow.log_prob = lambda x, c=None: true(x, c) * math.nan
            run.options = recipe.fit.model_copy(update={"batch_size": 4})
        return run

    return begin


def test_a_candidate_that_diverges_loses() -> None:
    choice, run = search(RECIPE, diverging(lambda recipe: recipe.flow.whiten), rows=200, width=2, noises=(0.02,))
    assert choice.flow["whiten"] is False
    assert math.isfinite(run.best_validation)
    with pytest.raises(DataError, match="diverged"):
        search(RECIPE, diverging(lambda _: True), rows=200, width=2, noises=(0.02,))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (torch.randn(3000, 2), False),
        (torch.randn(3000, 2).round(decimals=2), True),  # a grid
        (torch.cat((torch.randn(2980, 2), torch.zeros(20, 2))), True),  # an atom
        (torch.randn(1500, 2).repeat(2, 1), True),  # every row twice
        (torch.cat((torch.randn(2998, 2), torch.ones(2, 2))), False),  # one pair, as chance gives
        (1 + 0.01 * (torch.rand(3000, 16) - 0.5), False),  # so narrow that float32 gives some pairs
    ],
)
def test_values_repeat_on_grids_in_atoms_and_in_rows_that_stand_twice(rows: Tensor, expected: bool) -> None:
    assert repeats(rows) is expected
    noises = noise_choices(rows, step=None, bounded=False)
    assert (0.0 in noises) is not expected
    assert expected is (noises == (usual_noise(rows),))


def test_noise_is_chosen_for_columns_that_take_any() -> None:
    continuous, grid = torch.randn(3000, 1), torch.randn(3000, 1).round()
    rows = torch.cat((continuous, grid), dim=1)
    assert noise_choices(rows, step=torch.tensor([0.0, 1.0]), bounded=False) == (0.0, kernel_noise(3000, 1))
    assert noise_choices(rows, step=torch.ones(2), bounded=False) == ()
    assert noise_choices(continuous, step=None, bounded=True) == ()
    assert noise_choices(continuous[:100], step=None, bounded=False) == (0.02, kernel_noise(100, 1))


def test_a_choice_in_words() -> None:
    choice = Choice({"whiten": False, "hidden": [64, 64], "dropout": 0.1}, 0.02)
    assert choice.words == "no whitening, noise 0.02, hidden 64 x 64, dropout 0.1"
    assert Choice.of(choice.overrides) == choice
    other = Choice({"architecture": AUTOREGRESSIVE, "whiten": True, "dropout": 0.1}, 0.02)
    assert other.words == "neural_spline_autoregressive, whitening, noise 0.02, dropout 0.1"
    assert (Choice().words, Choice().overrides) == ("", {})
