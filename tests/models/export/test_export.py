from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from models.architectures import build_flow
from models.export.advice import advise
from models.export.export import export_flow, golden_rows, without_edges
from models.export.exported_graph import ExportedGraph
from models.export.gate import RowFails, reference
from models.flows.flow import Bijection, Flow
from models.flows.linear import LULinear, Scaling
from models.flows.preprocess import quantized_support
from service.bundle.bases import NormalBase, UniformBase
from service.bundle.manifest import Feature, Manifest, Quantization, Support
from service.bundle.store import Bundle, Golden, Repository, read_bundle
from service.errors import DataError, ParityFailed
from tests.laws.table import randomize
from tests.models.export.steep import Thirds

IMAGES = torch.randint(0, 17, (40, 2, 2, 1), generator=torch.Generator().manual_seed(0)).float()
QUANTIZATION = Quantization(low=0.0, high=16.0, reading="an integer is the centre of its bin")
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def flow() -> Flow:
    options = {"transforms": 1, "hidden": [8], "dropout": 0.5}
    built = build_flow("real_nvp", options, rows=IMAGES, support=quantized_support(0, 16))
    for bijection in built.bijections:
        randomize(bijection, scale=0.2)
    return built.float().train()


@pytest.fixture(scope="module")
def exported(flow: Flow, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    said: list[str] = []
    path = export_flow(
        flow,
        repository=Repository(tmp_path_factory.mktemp("repository")),
        name="squares",
        held_out=IMAGES,
        data="random squares",
        description="Four pixels.",
        quantization=QUANTIZATION,
        gaussian_mean=-9.5,
        recipe={"flow": {"transforms": 2}},
        seed=7,
        created=CREATED,
        progress=said.append,
    )
    return path, said


@pytest.fixture(scope="module")
def bundle(exported: tuple[Path, list[str]]) -> Bundle:
    return read_bundle(exported[0])


def test_the_manifest_says_what_was_given(bundle: Bundle, flow: Flow) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("squares", 1)
    assert (manifest.event_shape, manifest.latent_width, manifest.context_width) == ([2, 2, 1], 4, 0)
    assert manifest.base == NormalBase()
    assert manifest.support == Support(low=-0.5, high=16.5)
    assert manifest.quantization == QUANTIZATION
    provenance = manifest.provenance
    assert (provenance.data, provenance.seed, provenance.recipe) == ("random squares", 7, {"flow": {"transforms": 2}})
    assert provenance.created == "2026-01-02T03:04:05+00:00"
    assert provenance.libraries["torch"] == torch.__version__
    assert {"python", "pushforward", "zuko", "onnx", "onnxscript", "numpy"} <= set(provenance.libraries)


def test_the_flow_itself_is_not_touched(exported: tuple[Path, list[str]], flow: Flow) -> None:
    assert flow.training
    assert all(p.requires_grad for p in flow.parameters())


def test_calibration_is_of_the_held_out_rows_through_the_served_graph(bundle: Bundle) -> None:
    served = ExportedGraph(bundle.graphs["forward.onnx"], "forward")(IMAGES.numpy(), None, 40).log_prob
    calibration = bundle.manifest.calibration
    assert calibration.rows == 40
    assert calibration.mean == pytest.approx(served.mean(), abs=1e-9)
    assert calibration.standard_deviation == pytest.approx(served.std(ddof=1), abs=1e-9)
    assert np.float32(calibration.quantiles).tolist() == sorted(served.tolist())
    assert calibration.gaussian_mean == -9.5


def test_golden_rows_are_the_float64_flow_s_and_one_lies_outside(bundle: Bundle, flow: Flow) -> None:
    golden, exact = bundle.golden, reference(flow)
    assert golden.x.shape == (9, 2, 2, 1)
    expected = exact.log_prob(torch.from_numpy(golden.x).double()).numpy()
    assert np.array_equal(golden.log_prob, expected)
    assert np.isneginf(golden.log_prob).tolist() == [False] * 8 + [True]
    assert np.isfinite(golden.z).all()
    assert np.isfinite(golden.log_abs_det_jacobian).all()


def test_parity_is_written_down(bundle: Bundle) -> None:
    parity = bundle.manifest.parity
    assert 0 < parity.log_prob < parity.tolerance == 1e-4
    assert parity.round_trip < 1e-3


def test_progress_is_told(exported: tuple[Path, list[str]]) -> None:
    assert exported[1] == [
        "exporting forward.onnx",
        "exporting inverse.onnx",
        "comparing the graphs with the flow in float64",
        "comparing trace.onnx with the flow in float64",
    ]


class WrongSign(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return 2 * x, torch.full_like(x[:, 0], -2 * math.log(2))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y / 2, torch.full_like(y[:, 0], 2 * math.log(2))


class Frozen(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_tensor([0.0] * len(x))

    inverse = forward


@pytest.mark.parametrize("fault", [WrongSign(), Frozen()], ids=["wrong sign", "frozen batch"])
def test_nothing_is_written_where_the_gate_refuses(fault: Bijection, tmp_path: Path) -> None:
    flow = Flow((2,), [fault], NormalBase())
    with pytest.raises(ParityFailed):
        export_flow(flow, repository=Repository(tmp_path), name="bad", held_out=torch.randn(20, 2), data="none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (torch.zeros(40, 4), r"held_out must have shape \[at least 2, 2, 2, 1\], and has \[40, 4\]"),
        (torch.zeros(1, 2, 2, 1), "at least 2"),
        (np.full((3, 2, 2, 1), np.nan), "not finite"),
        (np.full((3, 2, 2, 1), 1e300), "not finite"),
        (torch.full((3, 2, 2, 1), 17.0), "3 of 3 held-out rows lie outside the flow's support"),
    ],
)
def test_held_out_rows_that_do_not_fit(flow: Flow, held_out: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        export_flow(flow, repository=Repository(tmp_path), name="bad", held_out=held_out, data="none")
    assert list(tmp_path.iterdir()) == []


def test_context_comes_with_a_flow_that_takes_it_and_only_then(flow: Flow, tmp_path: Path) -> None:
    rows, context = torch.randn(20, 2), torch.randn(20, 3)
    conditional = build_flow("real_nvp", {"transforms": 2, "hidden": [8]}, rows=rows, context=context)
    wrong: list[tuple[Flow, dict[str, Any], str]] = [
        (conditional, {"held_out": rows}, "3 columns of context"),
        (conditional, {"held_out": rows, "context": context[:, :2]}, r"context must have shape \[20, 3\]"),
        (conditional, {"held_out": rows, "context": context[:5]}, r"context must have shape \[20, 3\]"),
        (flow, {"held_out": IMAGES, "context": torch.zeros(40, 1)}, "context"),
    ]
    for which, arguments, message in wrong:
        with pytest.raises(DataError, match=message):
            export_flow(which, repository=Repository(tmp_path), name="bad", data="none", **arguments)


def test_golden_rows_cover_the_range_of_log_prob(flow: Flow) -> None:
    exact, rows = reference(flow), IMAGES.numpy()
    log_prob = exact.log_prob(IMAGES.double()).numpy()
    golden = golden_rows(exact, rows, None, log_prob, outside=True)
    assert golden.log_prob[0] == log_prob.min()
    assert golden.log_prob[7] == log_prob.max()
    assert np.all(np.diff(golden.log_prob[:8]) >= 0)
    assert golden_rows(exact, rows[:3], None, log_prob[:3], outside=True).x.shape[0] == 4


def test_features_and_a_version_of_one_s_choice_go_into_the_manifest(tmp_path: Path) -> None:
    path = export_flow(
        Flow((2,), [Doubled()], NormalBase()), repository=Repository(tmp_path), name="two", version=5,
        held_out=torch.randn(20, 2), data="none", features=[Feature(name="a"), Feature(name="b", unit="g/l")],
    )  # fmt: skip
    assert path == tmp_path / "two" / "5"
    assert [f.unit for f in read_bundle(path).manifest.features] == [None, "g/l"]


class Raced(Repository):
    """A repository in which another export takes the version first: before the look at it, or before the rename."""

    late = False
    taken = False

    def install(self, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
        if not self.taken:
            self.taken = True
            super().install(manifest.model_copy(update={"description": "the other one"}), files)
            (self.root / manifest.name / "7").mkdir()
            (self.root / manifest.name / "8").write_text("no bundle, and so no version, but in the way")
            if self.late:
                raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return super().install(manifest, files)


def export_doubled(repository: Repository, version: int | None = None) -> Path:
    return export_flow(
        Flow((2,), [Doubled()], NormalBase()), repository=repository, name="two", version=version,
        held_out=torch.randn(20, 2), data="none",
    )  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
def test_a_version_that_is_taken_meanwhile_is_left_to_the_other(tmp_path: Path, late: bool) -> None:
    repository = Raced(tmp_path)
    repository.late = late
    path = export_doubled(repository)
    assert path == tmp_path / "two" / "9"
    assert read_bundle(path).manifest.version == 9
    assert read_bundle(tmp_path / "two" / "1").manifest.description == "the other one"


def test_a_version_of_ones_choice_that_is_taken_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two has a version 5 already"):
        export_doubled(Raced(tmp_path), version=5)


def test_a_failure_to_install_for_another_reason_is_not_taken_for_a_race(tmp_path: Path) -> None:
    (tmp_path / "two").write_text("where the flow's folder should be")
    with pytest.raises(OSError, match="two"):
        export_doubled(Repository(tmp_path))


class Doubled(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return 2 * x, torch.full_like(x[:, 0], 2 * math.log(2))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y / 2, torch.full_like(y[:, 0], -2 * math.log(2))


def test_a_copy_is_folded_and_a_search_for_the_inverse_is_said(tmp_path: Path) -> None:
    """A graph has no operator that solves a triangular system: unfolded, the matrix could not be exported."""
    matrix, scaling = LULinear(2), Scaling(2)
    randomize(matrix)
    scaling.numeric_inverse = True
    flow = Flow((2,), [matrix, scaling], NormalBase()).float()
    path = export_flow(flow, repository=Repository(tmp_path), name="mixed", held_out=torch.randn(20, 2), data="none")
    assert read_bundle(path).manifest.inverse == "numeric"
    assert flow.bijections[0] is matrix


def keeping(share: float, most: float = 0.4) -> Any:
    """Stands in for the graphs: rows whose log_prob is in the upper `share` need `most` of a bound."""

    def needed(golden: Golden) -> npt.NDArray[np.float64]:
        rank = np.searchsorted(np.sort(LOG_PROB), golden.log_prob) / len(LOG_PROB)
        return np.where(np.isneginf(golden.log_prob) | (rank >= 1 - share), most, 3.0)

    return needed


LOG_PROB = np.array([])


@pytest.fixture
def judged(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> tuple[Flow, npt.NDArray[np.float64]]:
    exact = reference(flow)
    log_prob = exact.log_prob(IMAGES.double()).numpy()
    monkeypatch.setattr("tests.models.export.test_export.LOG_PROB", log_prob)
    return exact, log_prob


@pytest.mark.parametrize("most", [0.4, 0.9])
def test_golden_rows_are_among_those_that_the_server_will_pass(judged: Any, most: float) -> None:
    exact, log_prob = judged
    golden = golden_rows(exact, IMAGES.numpy(), None, log_prob, keeping(0.5, most), outside=True)
    assert golden.x.shape[0] == 9
    assert golden.log_prob[0] == np.sort(log_prob)[20]
    assert golden.log_prob[7] == log_prob.max()
    assert len(np.unique(golden.log_prob[:8])) == 8
    assert np.isneginf(golden.log_prob[8])


def test_golden_rows_that_all_pass_are_those_that_are_chosen_without_a_look(judged: Any) -> None:
    exact, log_prob = judged
    found = golden_rows(exact, IMAGES.numpy(), None, log_prob, keeping(1.0, 1.0))
    assert np.array_equal(found.x, golden_rows(exact, IMAGES.numpy(), None, log_prob).x)


def test_too_few_rows_that_would_pass_are_refused_with_a_way_out(judged: Any) -> None:
    exact, log_prob = judged
    message = (
        "float32 answers 6 of 40 held-out rows within 0.0001 of float64, and a bundle needs 8 .*--precision float64"
    )
    with pytest.raises(ParityFailed, match=message):
        golden_rows(exact, IMAGES.numpy(), None, log_prob, keeping(0.15))


def test_a_row_that_is_refused_is_told_with_its_worst_column_and_what_to_try(tmp_path: Path) -> None:
    """The rows' second column alone is what float32 loses."""
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))

    class Wavy(Bijection):
        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            scale = torch.sin(3e6 * x[:, 1])
            return torch.stack((x[:, 0] * scale.exp(), x[:, 1]), dim=1), scale

        inverse = forward

    exact = reference(Flow((2,), [Wavy()], NormalBase()))
    failed = RowFails("log_prob is off", row=4, drawn=False, own=True)
    told = advise(failed, exact, rows[4:5].numpy(), None, columns=["height", "price"], far=False)
    value = float(rows[4, 1])
    assert f"Of column 'price' it loses most: {value:.9g} is known to {np.spacing(np.float32(abs(value))):.2g}" in told
    for words in (f"The row is height = {float(rows[4, 0]):.9g}, price = {value:.9g}. ", "a filter", "a transform"):
        assert words in told
    assert "--precision float64" in told
    assert "--far-rows" not in told
    assert "--far-rows resolvable" in advise(failed, exact, rows[4:5].numpy(), None, columns=[], far=True)
    fault = RowFails("log_prob is off", row=4, drawn=False, own=False)
    told = advise(fault, exact, rows[4:5].numpy(), None, columns=["height", "price"], far=False)
    assert "not one of the data" in told
    assert "float64, which" not in told


def test_held_out_rows_without_a_density_are_named(tmp_path: Path) -> None:
    flow = Flow((2,), [Thirds()], UniformBase(low=-1.0, high=1.0))
    rows = np.array([[0.5, 0.5], [3.0, 0.1], [0.2, 2.0]], np.float32)
    exact = reference(flow)
    log_prob = flow.log_prob(torch.from_numpy(rows)).double().numpy()
    assert np.array_equal(without_edges(exact, rows, None, log_prob), log_prob)
    log_prob[1] = -np.inf  # as another processor may round it; in float64 it has a density of its own
    with pytest.raises(DataError, match="1 of 3 held-out rows have no density") as raised:
        without_edges(exact, rows, None, log_prob)
    assert [reason.row for reason in raised.value.errors] == [1]
    rows[1, 0] = np.nextafter(np.float32(3), np.float32(0))
    assert without_edges(exact, rows, None, log_prob).tolist() == log_prob[[0, 2]].tolist()
