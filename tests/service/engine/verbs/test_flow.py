from __future__ import annotations

import math

import numpy as np
import pytest

from service.bundle.bases import MixtureBase, StudentTBase
from service.bundle.context_scale import ContextScale
from service.engine.batching.queues import Limits
from service.engine.loading import load_flow
from service.engine.sampling.sobol import MAX_ROWS, MAX_WIDTH
from service.engine.verbs.flow import RETURNS, ServedFlow
from service.engine.verbs.interpolate import interpolate
from service.errors import EngineFailed, InvalidArgument, NotFinite, WrongShape
from service.plan import Outputs, advance, run_now
from tests.service.bundles import affine, bundle

OF_ROWS = [name for name in RETURNS if name != "context_quantile"]
NORMAL = ["two-moons", "conditional", "image", "coupling"]


def some_rows(parts, count=150, seed=0):
    """Rows of a flow and their context, by the closed form."""
    generator = np.random.default_rng(seed)
    manifest = parts.manifest
    context = generator.normal(size=(count, manifest.context_width)) if manifest.context_width else None
    z = generator.uniform(0.1, 1.9, size=(count, manifest.latent_width))
    x, _ = parts.inverse(z, context)
    return x.astype(np.float32), None if context is None else context.astype(np.float32)


@pytest.mark.parametrize("name", [*NORMAL, "square"])
def test_log_prob_is_the_closed_form(flows, parts, name):
    x, context = some_rows(parts[name])
    found = run_now(flows[name].log_prob(x, context))
    np.testing.assert_allclose(found.log_prob, parts[name].log_prob(x, context), rtol=1e-4, atol=1e-4)
    assert found.extras == {}
    assert found.anomaly is None


@pytest.mark.parametrize("name", [*NORMAL, "square"])
def test_encode_and_decode_undo_each_other(flows, parts, name):
    x, context = some_rows(parts[name])
    there = run_now(flows[name].encode(x, context))
    back = run_now(flows[name].decode(there.z, context))
    np.testing.assert_allclose(back.x, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(back.log_abs_det_jacobian, -there.log_abs_det_jacobian, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(back.log_prob, there.log_prob, rtol=1e-4, atol=1e-4)


def test_everything_that_log_prob_can_return(flows, parts):
    flow, manifest = flows["image"], parts["image"].manifest
    x, _ = some_rows(parts["image"])
    found = run_now(flow.log_prob(x, returns=OF_ROWS, alarm_rate=0.3))
    assert list(found.extras) == OF_ROWS
    assert found.extras["z"].shape == (len(x), 6)
    extras, log_prob = found.extras, found.log_prob.astype(np.float64)
    np.testing.assert_allclose(extras["base_log_prob"] + extras["log_abs_det_jacobian"], log_prob, rtol=1e-6)
    held_out = np.array(manifest.calibration.quantiles)
    lower = (held_out[None, :] < log_prob[:, None]).mean(axis=1)
    np.testing.assert_allclose(extras["quantile"], lower, rtol=1e-6)
    np.testing.assert_array_equal(found.anomaly, lower <= 0.3)
    entropy = -manifest.calibration.mean
    np.testing.assert_allclose(
        extras["typicality"], np.abs(-log_prob - entropy) / manifest.calibration.standard_deviation, rtol=1e-5
    )
    back = parts["image"].inverse(extras["z"].astype(np.float64), None)[0]
    np.testing.assert_allclose(extras["round_trip_error"], np.abs(back - x).max(axis=(1, 2, 3)), atol=1e-6)
    in_bins = -(log_prob + 6 * math.log(0.5)) / (6 * math.log(2))
    np.testing.assert_allclose(extras["bits_per_dim"], in_bins, rtol=1e-5)


class Off:
    """An inverse of its own: g(z) = z + 1 where f(x) = x."""

    width = 2

    def __init__(self, by):
        self.by = by

    def __call__(self, rows, context):
        return Outputs(rows + np.float32(self.by), rows[:, 0] * 0, rows[:, 0] * 0, finite=True)


def test_a_round_trip_is_as_long_as_it_is(flows, workers):
    good, counted = flows["two-moons"], Counted()
    lanes = workers.lane(Off(0), Limits()), workers.lane(Off(0.5), Limits())
    flow = ServedFlow(good.manifest, good.golden, *lanes, round_trips=counted)
    x = np.zeros((3, 2), np.float32)
    assert run_now(flow.encode(x)).round_trip_error is None
    assert run_now(flow.encode(x, round_trip=True)).round_trip_error.tolist() == [0.5] * 3
    assert run_now(flow.decode(x, round_trip=True)).round_trip_error.tolist() == [0.5] * 3
    drawn = run_now(flow.sample(3, 1, round_trip=True))
    assert drawn.round_trip_error.tolist() == pytest.approx([0.5] * 3, abs=1e-6)
    found = run_now(flow.log_prob(x, returns=["round_trip_error"]))
    assert found.extras["round_trip_error"].tolist() == [0.5] * 3
    assert run_now(interpolate(flow, x[:2], 3)).round_trip_error.tolist() == [0.5] * 3
    assert [(direction, len(errors)) for direction, errors in counted.seen] == [
        ("forward", 3),
        ("inverse", 3),
        ("inverse", 3),
        ("forward", 3),
        ("inverse", 3),
    ]


class Counted:
    def __init__(self):
        self.seen = []

    def observe(self, direction, errors):
        self.seen.append((direction, errors))


def test_the_round_trips_of_samples_for_each_context(flows):
    contexts = np.array([[0, 0], [1, 2]], np.float32)
    drawn = run_now(flows["conditional"].sample(70, 3, context=contexts, round_trip=True))
    assert drawn.round_trip_error.shape == (2, 70)
    assert drawn.round_trip_error.max() < 1e-5


def test_only_what_is_asked_for_is_returned(flows, parts):
    x, _ = some_rows(parts["coupling"], 3)
    assert list(run_now(flows["coupling"].log_prob(x, returns=["typicality", "z"])).extras) == ["z", "typicality"]


def test_a_row_of_density_zero(flows):
    x = np.array([[1.0], [-1.0], [5.0]], np.float32)
    found = run_now(flows["square"].log_prob(x, returns=OF_ROWS, alarm_rate=0.01))
    assert found.log_prob.tolist() == [np.float32(-math.log(4)), -np.inf, -np.inf]
    assert found.anomaly.tolist() == [False, True, True]
    assert found.extras["quantile"][1:].tolist() == [0, 0]
    assert np.isposinf(found.extras["typicality"][1:]).all()
    assert np.isposinf(found.extras["bits_per_dim"][1:]).all()
    assert np.isfinite(found.extras["z"]).all()


def test_context_for_each_row_or_one_for_all(flows, parts):
    flow = flows["conditional"]
    x, context = some_rows(parts["conditional"], 100)
    one = run_now(flow.log_prob(x, context[:1])).log_prob
    each = run_now(flow.log_prob(x, np.repeat(context[:1], 100, axis=0))).log_prob
    assert one.tobytes() == each.tobytes()


@pytest.mark.parametrize(
    ("name", "width", "rows", "message"),
    [
        ("conditional", None, 0, "a context of 2 columns is needed, and there is none"),
        ("conditional", 3, 1, "a context of 2 columns is needed, and it has 3"),
        ("conditional", 2, 3, "one row, or one for each of the 5 rows, and has 3"),
        ("coupling", 2, 1, "this flow takes no context"),
    ],
)
def test_a_wrong_context_is_refused(flows, parts, name, width, rows, message):
    x, _ = some_rows(parts[name], 5)
    context = None if width is None else np.zeros((rows, width), np.float32)
    for verb in (flows[name].log_prob, flows[name].encode):
        with pytest.raises(WrongShape, match=message):
            run_now(verb(x, context))


def test_same_seed_same_rows_whatever_n_and_offset(flows):
    flow = flows["coupling"]
    whole = run_now(flow.sample(200, seed=9))
    for offset, n in ((0, 5), (5, 5), (63, 70), (199, 1)):
        part = run_now(flow.sample(n, seed=9, offset=offset))
        assert part.x.tobytes() == whole.x[offset : offset + n].tobytes()
        assert part.log_prob.tobytes() == whole.log_prob[offset : offset + n].tobytes()


@pytest.mark.parametrize("name", ["two-moons", "coupling", "square"])
def test_samples_carry_the_flows_own_density(flows, parts, name):
    drawn = run_now(flows[name].sample(500, seed=1))
    np.testing.assert_allclose(drawn.log_prob, parts[name].log_prob(drawn.x), rtol=1e-4, atol=2e-4)


def test_temperature_moves_the_rows_and_not_the_density(flows, parts):
    cold = run_now(flows["two-moons"].sample(400, seed=1, temperature=0.1))
    warm = run_now(flows["two-moons"].sample(400, seed=1))
    np.testing.assert_allclose(cold.x.std(axis=0), warm.x.std(axis=0) * 0.1, rtol=1e-4)
    np.testing.assert_allclose(cold.log_prob, parts["two-moons"].log_prob(cold.x), rtol=1e-4)
    with pytest.raises(InvalidArgument, match="base is uniform"):
        run_now(flows["square"].sample(1, seed=1, temperature=0.5))


def based(flow, base):
    """The same graphs over another base: the densities are wrong, what is done with z is not."""
    return ServedFlow(
        flow.manifest.model_copy(update={"base": base}), flow.golden, flow.forward, flow.inverse, flow.execution
    )


def test_the_draws_are_the_base_s(flows):
    mixture = MixtureBase(
        weights=[0.5, 0.5], means=[[3.0] * 5, [-3.0] * 5], standard_deviations=[[0.01] * 5, [1.0] * 5]
    )
    flow = based(flows["coupling"], mixture)
    cold = run_now(flow.sample(40, seed=1, temperature=0.0))
    ends = run_now(flow.decode(np.array([[3.0] * 5, [-3.0] * 5], np.float32))).x
    assert {row.tobytes() for row in cold.x} == {row.tobytes() for row in ends}


def test_a_student_t_has_no_temperature_and_a_straight_path(flows):
    flow = based(flows["coupling"], StudentTBase(degrees_of_freedom=3))
    with pytest.raises(InvalidArgument, match="base is Student-t"):
        run_now(flow.sample(1, seed=1, temperature=0.5))
    z = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(run_now(interpolate(flow, z, 3, space="z")).z[1], [0.5, 0.5, 0, 0, 0])


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_truncation_ends_the_base_and_not_the_density(flows, parts, method):
    drawn = run_now(flows["coupling"].sample(300, 1, temperature=0.5, truncation=1.5, method=method))
    z = run_now(flows["coupling"].encode(drawn.x)).z
    assert np.abs(z).max() <= 0.7501
    assert np.abs(z).max() > 0.7
    np.testing.assert_allclose(drawn.log_prob, parts["coupling"].log_prob(drawn.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["coupling", "square"])
def test_sobol_rows_are_the_same_whatever_n_and_offset(flows, name):
    whole = run_now(flows[name].sample(200, seed=9, method="sobol"))
    assert whole.x.tobytes() != run_now(flows[name].sample(200, seed=9)).x.tobytes()
    for offset, n in ((0, 5), (5, 5), (63, 70), (199, 1)):
        part = run_now(flows[name].sample(n, seed=9, offset=offset, method="sobol"))
        assert part.x.tobytes() == whole.x[offset : offset + n].tobytes()


def test_what_noise_a_base_does_not_have(flows):
    with pytest.raises(InvalidArgument, match="truncation cuts off a normal base; this flow's base is uniform"):
        run_now(flows["square"].sample(1, 1, truncation=1.0))
    run_now(flows["square"].sample(1, 1, offset=2**52 - 1, method="sobol"))
    with pytest.raises(InvalidArgument, match="sobol has 2") as caught:
        run_now(flows["square"].sample(2, 1, offset=2**52 - 1, method="sobol"))
    assert [reason.loc for reason in caught.value.errors] == [("offset",)]


def test_sobol_has_so_many_columns_and_no_more(flows, tmp_path):
    flow = load_flow(bundle(tmp_path, affine("wide", 1, (1112,))))
    with pytest.raises(InvalidArgument, match="takes 1112 numbers, and sobol has 1111; use method=random"):
        run_now(flow.sample(1, 1, method="sobol"))


def test_each_context_gets_the_same_noise(flows, parts):
    flow = flows["conditional"]
    contexts = np.array([[0, 0], [1, 2], [0, 0]], np.float32)
    drawn = run_now(flow.sample(70, seed=3, context=contexts))
    assert drawn.x.shape == (3, 70, 3)
    assert drawn.log_prob.shape == (3, 70)
    assert drawn.x[0].tobytes() == drawn.x[2].tobytes()
    assert not np.allclose(drawn.x[0], drawn.x[1])
    for context, x, log_prob in zip(contexts, drawn.x, drawn.log_prob, strict=True):
        alone = run_now(flow.sample(70, seed=3, context=context))
        assert alone.x.shape == (70, 3)
        assert alone.x.tobytes() == x.tobytes()
        assert alone.log_prob.tobytes() == log_prob.tobytes()


class Broken:
    """A runner that gives NaN, or infinity, in one place."""

    width = 2

    def __init__(self, output, value):
        self.output, self.value = output, value

    def __call__(self, rows, context):
        outputs = Outputs(rows.copy(), rows[:, 0].copy(), rows[:, 0].copy())
        outputs[self.output][7:] = self.value
        return outputs


@pytest.mark.parametrize(
    ("output", "value"), [(0, np.nan), (0, np.inf), (1, np.nan), (1, np.inf), (2, np.nan), (2, np.inf)]
)
def test_no_nan_leaves_a_flow_and_the_row_is_named(flows, parts, workers, output, value):
    good = flows["two-moons"]
    lane = workers.lane(Broken(output, value), Limits())
    flow = ServedFlow(good.manifest, good.golden, lane, lane)
    x = np.ones((9, 2), np.float32)
    for plan, error, loc in (
        (flow.log_prob(x), NotFinite, "x"),
        (flow.encode(x), NotFinite, "x"),
        (flow.decode(x), NotFinite, "z"),
        (interpolate(flow, x, 2), NotFinite, "points"),
        (flow.sample(9, seed=1), EngineFailed, "temperature"),
        (flow.sample(9, seed=1, temperature=1e30), NotFinite, "temperature"),
    ):
        with pytest.raises(error, match="row 7: the flow's answer") as caught:
            run_now(plan)
        assert [(reason.loc, reason.row) for reason in caught.value.errors] == [((loc,), 7), ((loc,), 8)]


@pytest.mark.parametrize("chunk_rows", [4, 1024])
def test_a_latent_without_a_float32_is_noticed_also_where_it_is_not_wanted(flows, workers, chunk_rows):
    class Overflows:
        width = 2

        def __call__(self, rows, context):
            value = np.where(rows > 9, np.float32(np.inf), rows)
            return Outputs(value, rows[:, 0] * 0, rows[:, 0] * 0, bool(np.isfinite(value).all()))

    good = flows["two-moons"]
    lane = workers.lane(Overflows(), Limits(chunk_rows))
    x = np.ones((20, 2), np.float32)
    x[[7, 15], 1] = 10
    with pytest.raises(NotFinite, match="row 7") as caught:
        run_now(ServedFlow(good.manifest, good.golden, lane, lane).log_prob(x))
    assert [reason.row for reason in caught.value.errors] == [7, 15]


def test_columns_have_the_names_of_the_manifest_or_else_numbers(flows):
    assert flows["two-moons"].features == ("column 0", "column 1")
    assert flows["coupling"].features == ("x0", "x1", "x2", "x3", "x4")


@pytest.mark.parametrize(
    ("returns", "wanted"), [([], False), (["quantile"], False), (["z"], True), (["round_trip_error"], True)]
)
def test_latents_are_asked_for_only_where_they_are_wanted(flows, returns, wanted):
    assert advance(flows["two-moons"].log_prob(np.zeros((1, 2), np.float32), returns=returns)).value is wanted


@pytest.mark.parametrize(("temperature", "argument", "row"), [(1.0, "context", 1), (1.5, "temperature", 5)])
def test_a_draw_without_a_float32_is_the_fault_of_the_context_or_of_the_temperature(flows, temperature, argument, row):
    flow = flows["conditional"]
    contexts = np.array([[0, 0], [3e38, 3e38]], np.float32)
    with pytest.raises(NotFinite) as caught:
        run_now(flow.sample(5, 1, temperature=temperature, context=contexts))
    assert (caught.value.errors[0].loc, caught.value.errors[0].row) == ((argument,), row)


def test_sobol_has_a_number_for_each_of_its_columns_and_no_more(flows):
    good = flows["coupling"]
    for width, enough in ((MAX_WIDTH, True), (MAX_WIDTH + 1, False)):
        manifest = good.manifest.model_copy(update={"latent_width": width})
        flow = ServedFlow(manifest, good.golden, good.forward, good.inverse)
        if enough:
            flow.check_noise(MAX_ROWS, 1.0, None, "sobol")
            with pytest.raises(InvalidArgument, match="these end at 4503599627370497"):
                flow.check_noise(MAX_ROWS + 1, 1.0, None, "sobol")
        else:
            with pytest.raises(InvalidArgument, match=f"takes {width} numbers, and sobol has {MAX_WIDTH}"):
                flow.check_noise(1, 1.0, None, "sobol")


def test_how_usual_a_context_is(tmp_path, workers):
    simulated = np.float32(np.random.default_rng(0).normal(size=(2000, 2)) @ [[3.0, 1.0], [0.0, 0.2]] + 50)
    parts = affine("scaled", 1, (2,), 2, context_scale=ContextScale.of(simulated))
    flow = load_flow(bundle(tmp_path, parts), workers, Limits())
    contexts = np.float32([[50, 50], *simulated[:3], [50, 53], [80, 60]])
    found = run_now(flow.log_prob(np.zeros((6, 2), np.float32), contexts, returns=["context_quantile"]))
    usual = found.extras["context_quantile"]
    assert usual.dtype == np.float32
    assert usual[0] > 0.99
    assert (usual[1:4] > 0).all()
    assert usual[4:].tolist() == [0, 0]  # each of its numbers is usual, and both together are not
    one = run_now(flow.log_prob(np.zeros((4, 2), np.float32), contexts[:1], returns=["context_quantile"]))
    np.testing.assert_array_equal(one.extras["context_quantile"], np.repeat(usual[:1], 4))


def test_a_flow_that_knows_no_contexts_cannot_say_how_usual_one_is(flows):
    for name, context in (("coupling", None), ("conditional", np.zeros((1, 2), np.float32))):
        x = np.zeros((1, flows[name].width), np.float32)
        with pytest.raises(InvalidArgument, match="no contexts to compare with"):
            run_now(flows[name].log_prob(x, context, returns=["context_quantile"]))
