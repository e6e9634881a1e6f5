from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zuko
from safetensors.torch import save_file
from torch import Tensor, nn

from models.export.exported_graph import GraphFails
from models.importing.adapted import Unsupported
from models.importing.fault_location import locate_fault
from models.importing.load import HeldOutRows, draw_rows, export_imported, load_weights, parse_event_shape
from models.importing.take import take
from models.importing.user_code import load_user_flow
from service.bundle.store import Repository, read_bundle
from service.errors import DataError, ParityFailed

CODE = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([0.5, -0.25]))
    def forward(self, x, context=None):
        return x * self.log_scale.exp(), self.log_scale.sum()
    def inverse(self, z, context=None):
        return z * torch.exp(-self.log_scale), -self.log_scale.sum()

made = Scale()
number = 3

def make():
    return Scale()

def none():
    pass

def fails():
    raise RuntimeError("no weights here\\nand more")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with a module of flows; each test imports it anew."""
    (tmp_path / "some_flows.py").write_text(CODE)
    (tmp_path / "broken_flows.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "wrong_flows.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("some_flows", "broken_flows", "wrong_flows"):
        sys.modules.pop(name, None)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_callable_of_the_current_directory() -> None:
    assert type(load_user_flow("some_flows:make")).__name__ == "Scale"
    assert type(load_user_flow("some_flows:made")).__name__ == "Scale"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("some_flows", "expected MODULE:FUNCTION, such as my_flows:make_flow, and found 'some_flows'"),
        ("some_flows:", "expected MODULE:FUNCTION"),
        (":make", "expected MODULE:FUNCTION"),
        ("some_flows.py:make()", "expected MODULE:FUNCTION"),
        ("../some_flows:make", "expected MODULE:FUNCTION"),
        ("no_such_flows:make", "there is no module 'no_such_flows'"),
        ("some_flows.deeper:make", "importing some_flows.deeper failed|there is no module"),
        ("broken_flows:make", "importing broken_flows failed: ModuleNotFoundError: No module named 'a_module_that"),
        ("wrong_flows:make", "importing wrong_flows failed: ZeroDivisionError: division by zero"),
        ("some_flows:nothing", "the module some_flows has no 'nothing'"),
        ("some_flows:number", "some_flows:number is a int; expected a function that returns a flow"),
        ("some_flows:none", "some_flows:none returned a NoneType. Accepted are a zuko Flow, an nflows Flow"),
        ("some_flows:fails", "some_flows:fails failed: RuntimeError: no weights here$"),
    ],
)
def test_a_spec_that_gives_no_flow(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_user_flow(spec)


def test_weights_come_from_safetensors(tmp_path: Path) -> None:
    trained, fresh = (zuko.flows.MAF(2, transforms=1, hidden_features=(8,)) for _ in range(2))
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))


def test_weights_that_are_not_the_flow_s(tmp_path: Path) -> None:
    flow = zuko.flows.MAF(2, transforms=1, hidden_features=(8,))
    with pytest.raises(DataError, match=r"w.safetensors cannot be read"):
        load_weights(flow, tmp_path / "w.safetensors")
    torch.save(flow.state_dict(), tmp_path / "w.pt")
    with pytest.raises(
        DataError, match=r"w\.pt is not a safetensors file; other formats may hold code and are not load"
    ):
        load_weights(flow, tmp_path / "w.pt")
    save_file(zuko.flows.MAF(2, transforms=1, hidden_features=(9,)).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"the weights of other\.safetensors are not this flow's: size mismatch for"):
        load_weights(flow, tmp_path / "other.safetensors")
    save_file({"one": torch.zeros(1)}, tmp_path / "less.safetensors")
    with pytest.raises(DataError, match="not this flow's: Missing key"):
        load_weights(flow, tmp_path / "less.safetensors")


@pytest.mark.usefixtures("here")
def test_drawn_rows_are_the_flow_s_own_and_say_so() -> None:
    imported = take(load_user_flow("some_flows:make"), event_shape=(2,))
    rows, again = (draw_rows(imported, 500, seed=3) for _ in range(2))
    np.testing.assert_array_equal(rows.x, again.x)
    np.testing.assert_allclose(rows.x.std(axis=0), np.exp([-0.5, 0.25]), rtol=0.2)
    assert rows.origin == "no held-out rows were given: 500 rows drawn from the flow itself, seed 3"


def test_drawn_rows_of_a_conditional_flow_have_drawn_contexts() -> None:
    rows = draw_rows(take(zuko.flows.MAF(2, 3, transforms=1, hidden_features=(8,))), 50)
    assert rows.context is not None
    assert rows.context.shape == (50, 3)
    assert rows.origin.endswith("for contexts drawn from a standard normal")


class Explodes(nn.Module):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x[:, 0] * 0

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z / 0, z[:, 0] * 0


def test_a_flow_that_generates_nothing_finite() -> None:
    with pytest.raises(DataError, match="the rows that the flow generates are not finite"):
        draw_rows(take(Explodes(), event_shape=(2,)), 50)


@pytest.mark.usefixtures("here")
def test_a_bundle_says_where_it_is_from(tmp_path: Path) -> None:
    imported = take(load_user_flow("some_flows:make"), event_shape=(2,))
    said: list[str] = []
    folder = export_imported(
        imported,
        draw_rows(imported, 60),
        repository=Repository(tmp_path / "flows"),
        name="scale",
        source="some_flows:make",
        progress=said.append,
    )
    manifest = read_bundle(folder).manifest
    assert manifest.name == "scale"
    assert manifest.event_shape == [2]
    assert manifest.calibration.mean == pytest.approx(-np.log(2 * np.pi) - 1 + 0.25, abs=0.5)
    told = manifest.provenance.recipe["import"]
    assert told["source"] == "some_flows:make"
    assert told["library"].startswith("torch ")
    assert told["library_error"] < 1e-12
    assert told["notes"] == ["the module has no base: a standard normal was taken"]
    assert "60 rows drawn from the flow itself" in manifest.provenance.data
    assert said[0] == "comparing the flow with torch's own log_prob in float64"


class Masks(nn.Module):
    """Doubles what is above zero, through a boolean mask: right, and in no graph."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, ladj = x.clone(), torch.zeros_like(x)
        z[x > 0] = 2 * x[x > 0]
        ladj[x > 0] = float(np.log(2))
        return z, ladj.sum(dim=1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.where(z > 0, z / 2, z), -torch.where(z > 0, float(np.log(2)), 0.0).sum(dim=1)


def test_a_layer_that_no_graph_can_hold_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    imported = take(Masks(), event_shape=(2,))
    with pytest.raises(
        Unsupported, match=r"Masks, step 1 of 1 from data to latent, cannot be exported: .*NonZero"
    ) as raised:
        export_imported(
            imported, draw_rows(imported, 60), repository=Repository(tmp_path / "flows"), name="masks", source="test"
        )
    assert "choose by torch.where instead of a boolean mask" in raised.value.detail
    assert not list(tmp_path.rglob("*.onnx"))
    assert {p.dtype for p in imported.flow.buffers()} <= {torch.float64}


class Asks(Masks):
    """The same, and asks whether any row is large: torch's exporter itself gives up, and prints how far it came."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(-x if (x > 1e9).any() else x, context)


def test_a_layer_that_the_exporter_gives_up_on_is_told_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    imported = take(Asks(), event_shape=(2,))
    with pytest.raises(Unsupported, match=r"Asks, step 1 of 1 .* It looks at the values of its rows") as raised:
        export_imported(
            imported, draw_rows(imported, 60), repository=Repository(tmp_path / "flows"), name="asks", source="test"
        )
    assert "\n" not in raised.value.detail
    assert capfd.readouterr() == ("", "")


class Wrong(Masks):
    def log_prob(self, x: Tensor) -> Tensor:
        return -(x**2).sum(dim=1)


def test_a_flow_that_is_not_its_library_s_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    imported = take(Wrong(), event_shape=(2,))
    rows = HeldOutRows(np.ones((3, 2), np.float32), None, "three rows")
    with pytest.raises(ParityFailed, match="this project's reading of the torch flow is wrong"):
        export_imported(imported, rows, repository=Repository(tmp_path / "flows"), name="wrong", source="test")
    assert not (tmp_path / "flows").exists()


def test_event_shapes() -> None:
    assert parse_event_shape("4") == (4,)
    assert parse_event_shape("28, 28,1") == (28, 28, 1)
    for text in ("", "4,", "-1", "0", "2x2"):
        with pytest.raises(DataError, match="--event-shape: expected numbers with commas"):
            parse_event_shape(text)


@pytest.mark.usefixtures("here")
def test_a_graph_that_does_not_run_is_told_by_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = take(load_user_flow("some_flows:make"), event_shape=(2,)).flow.float()
    sound = locate_fault(flow, GraphFails("forward.onnx fails on a batch of 1. at the node Add_3: no"))
    assert sound.detail.startswith("the flow cannot be exported: forward.onnx fails on a batch of 1. at the node Add_3")

    def refuse(*_: object) -> None:
        raise GraphFails("ONNX Runtime cannot load forward.onnx: at the node Mul_0: no")

    monkeypatch.setattr("models.importing.fault_location.ExportedGraph", refuse)
    found = locate_fault(flow, GraphFails("forward.onnx fails"))
    assert "Scale, step 1 of 1 from data to latent, cannot be exported: ONNX Runtime cannot load" in found.detail
    assert "batch" not in found.detail
