"""`pushforward import`: what the command adds to `models.importing.load`; its errors are told in one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from models.importing.load import export_imported
from pushforward.cli.group import COMMANDS, cli
from pushforward.client.errors import InvalidInput
from pushforward.commands import import_
from pushforward.commands.import_ import _read as read_rows
from service.bundle.store import read_bundle
from service.errors import DataError
from tests.models.importing.test_load import CODE


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "user_flows.py").write_text(
        CODE
        + """
def conditional():
    import zuko
    torch.manual_seed(0)
    return zuko.flows.MAF(2, 3, transforms=1, hidden_features=(8,))

class Added(nn.Module):
    def forward(self, x, context):
        return x + context, x[:, 0] * 0
    def inverse(self, z, context):
        return z - context, z[:, 0] * 0
"""
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("user_flows", None)
    return tmp_path


def test_an_actnorm_that_has_seen_no_data_takes_its_scale_from_the_rows(run, here, monkeypatch):
    """The rows are read once, before the flow is taken, and only for such a flow; the graphs are for other tests."""
    (here / "unfitted.py").write_text("""
from nflows import distributions, flows, transforms

def make():
    return flows.Flow(transforms.ActNorm(2), distributions.StandardNormal([2]))
""")
    rows = np.random.default_rng(0).normal(size=(50, 2)) * [3.0, 0.2] + [5.0, -1.0]
    np.savetxt("rows.csv", rows, delimiter=",", header="a,b", comments="")
    read, made = [], []
    monkeypatch.setattr(import_, "_read", lambda path, *more: read.append(path) or read_rows(path, *more))

    def export(imported, rows, **more):
        made.append((imported, rows))
        return export_imported(imported, rows, **more)

    monkeypatch.setattr("models.importing.load.export_imported", export)
    with pytest.raises(DataError, match="nflows ActNorm '_transform' cannot be exported: it has seen no data"):
        run("import", "unfitted:make", "--out", "flows", "--name", "flow")
    result = run("import", "unfitted:make", "--out", "flows", "--name", "flow", "--data", "rows.csv")
    assert "Note:   1 layer that had seen no data (nflows ActNorm) took the scale from 50 rows" in result.stdout
    assert read == ["rows.csv"]
    ((imported, held_out),) = made
    with torch.no_grad():
        z, _ = imported.flow(torch.from_numpy(held_out.x).double())
    np.testing.assert_allclose(z.mean(dim=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(z.std(dim=0), 1.0, atol=1e-6)


def test_a_csv_file_says_the_shape_of_a_row_where_the_flow_does_not(run, here):
    (here / "rows.csv").write_text("1,2\n3,4\n5,6\n")
    run("import", "user_flows:make", "--out", "flows", "--name", "flow", "--data", "rows.csv")
    assert read_bundle(here / "flows" / "flow" / "1").manifest.event_shape == [2]


def test_a_keyword_can_be_a_command():
    assert "import" in COMMANDS
    assert cli.get_command(None, "import") is not None
    assert cli.get_command(None, "import_") is None


def test_a_flow_becomes_a_bundle_calibrated_on_the_user_s_rows(run, here):
    np.save("held_out.npy", np.random.default_rng(0).normal(size=(40, 2)))
    result = run("import", "user_flows:make", "--out", "flows", "--name", "scale", "--data", "held_out.npy")
    assert result.exit_code == 0
    manifest = read_bundle(here / "flows" / "scale" / "1").manifest
    assert manifest.event_shape == [2]
    assert manifest.calibration.rows == 40
    assert manifest.provenance.data.endswith("calibrated on the 40 rows of held_out.npy")
    assert "Note:   the module has no base: a standard normal was taken" in result.stdout
    assert "Rows:   calibrated on the 40 rows of held_out.npy" in result.stdout
    assert result.stdout.endswith("Next:   pushforward serve --repository flows\n")
    assert run("check", here / "flows" / "scale" / "1").exit_code == 0


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--name", "No Name"], InvalidInput, "--name must match"),
        (["--out", "user_flows.py"], InvalidInput, "--out must be a folder, and user_flows.py is a file"),
        (["--context-data", "c.npy"], InvalidInput, "--context-data goes with --data"),
        (["--event-shape", "2x"], DataError, "--event-shape: expected numbers with commas"),
        (["--weights", "none.safetensors"], DataError, "none.safetensors cannot be read"),
        (["--data", "none.npy"], InvalidInput, "none.npy cannot be read"),
        (["--data", "wide.npy"], InvalidInput, r"wide.npy must have the shape \['N', 2\], and has \[5, 3\]"),
        (["--data", "nan.npy"], InvalidInput, r"nan.npy, row 3, column 2 \(x1\): nan is not finite"),
        (["--data", "nan.csv"], InvalidInput, r"nan.csv, line 3, column 1"),
        (["--data", "one.npy"], InvalidInput, "one.npy holds one row; at least two are needed"),
        (
            ["--data", "good.npy", "--context-data", "c.npy"],
            InvalidInput,
            "the flow takes 0 columns of context; --data ",
        ),
    ],
)
def test_bad_arguments_are_told_before_anything_is_written(run, here, more, error, message):
    rows = np.ones((5, 2))
    np.save("good.npy", rows)
    np.save("wide.npy", np.ones((5, 3)))
    np.save("one.npy", rows[:1])
    np.save("c.npy", rows)
    rows[3, 1] = np.nan
    np.save("nan.npy", rows)
    (here / "nan.csv").write_text("a,b\n1,2\nnan,3\n")
    given = ["--out", "flows", "--name", "flow", "--event-shape", "2", *more]
    with pytest.raises(error, match=message):
        run("import", "user_flows:make", *given)
    assert not (here / "flows").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "the flow takes 3 columns of context; --data came without --context-data"),
        (["--context-data", "wide.npy"], r"wide.npy must have the shape \['N', 3\]"),
        (["--context-data", "short.npy"], "short.npy has 4 rows, and rows.npy has 5"),
        (["--context-data", "nan.npy"], r"nan.npy, row 1, column 3 \(context2\): nan is not finite"),
    ],
)
def test_context_that_does_not_go_with_the_rows(run, here, more, message):
    np.save("rows.npy", np.ones((5, 2)))
    np.save("wide.npy", np.ones((5, 2)))
    np.save("short.npy", np.ones((4, 3)))
    context = np.ones((5, 3))
    context[1, 2] = np.nan
    np.save("nan.npy", context)
    with pytest.raises(InvalidInput, match=message):
        run("import", "user_flows:conditional", "--out", "flows", "--name", "flow", "--data", "rows.npy", *more)


def test_what_was_taken_is_told_and_kept(run, here):
    result = run("import", "user_flows:conditional", "--out", "flows", "--name", "flow")
    assert result.exit_code == 0
    taken = [
        "Flow:   zuko MAF, rows of 2 columns, 1 steps; base: normal",
        "Scales: no first step inside scales the rows",
        "Given:  a context of 3 columns (no other width runs); no embedding inside",
    ]
    assert result.stdout.splitlines()[:3] == taken
    manifest = read_bundle(here / "flows" / "flow" / "1").manifest
    assert manifest.context_width == 3
    assert manifest.provenance.recipe["import"]["taken"][:3] == taken


def test_a_width_of_context_that_nothing_says_is_asked_for(run, here):
    given = ["user_flows:Added", "--out", "flows", "--name", "flow", "--event-shape", "2"]
    with pytest.raises(DataError, match=r"runs with 1 and 2 columns, .* give --context N"):
        run("import", *given)
    assert not (here / "flows").exists()
    assert run("import", *given, "--context", "2").exit_code == 0
    assert read_bundle(here / "flows" / "flow" / "1").manifest.context_width == 2
