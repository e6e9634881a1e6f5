from __future__ import annotations

import numpy as np
import pytest

from pushforward.client.errors import InvalidInput
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.engine.verbs.edits import edit
from service.plan import run_now
from tests.service import bundles


@pytest.fixture
def own(tmp_path):
    """A repository that a test may write to."""
    return bundles.install(
        tmp_path / "own",
        bundles.affine(directions={"known": [1.0, 2.0]}),
        bundles.square(),
        bundles.affine("conditional", context_width=2),
    )


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", generator.normal(size=(200, 2)).astype(np.float32) + 1)
    np.save(tmp_path / "b.npy", generator.normal(size=(300, 2)).astype(np.float32) - 1)
    return tmp_path / "a.npy", tmp_path / "b.npy"


def added(run, bundle, files, *more):
    return run("direction", bundle, "--positive", files[0], "--negative", files[1], "--name", "up", *more)


def test_a_new_version_with_the_direction(run, own, files):
    said = added(run, own.root / "affine", files).stdout
    assert said.startswith("affine version 2: 'up' added, of length ")
    assert "from 200 and 300 rows\na positive row lies further along it than a negative one in 9" in said
    old, new = (read_bundle(own.path("affine", version)) for version in (1, 2))
    assert new.graphs == old.graphs
    assert new.manifest.files == old.manifest.files
    assert list(new.manifest.directions) == ["known", "up"]
    flow = load_flow(new)
    a, b = (run_now(flow.encode(np.load(file))).z.astype(np.float64) for file in files)
    np.testing.assert_allclose(new.manifest.directions["up"], a.mean(axis=0) - b.mean(axis=0), rtol=1e-9)
    changed = {"version", "format", "directions"}
    assert new.manifest.model_dump(exclude=changed) == old.manifest.model_dump(exclude=changed)
    walked = run_now(edit(flow, np.load(files[1])[:5], "up", [1.0]))
    assert walked.x.shape == (1, 5, 2)


def test_a_logistic_direction_into_another_repository(run, own, files, tmp_path):
    added(run, own.path("affine"), files, "--method", "logistic", "--out", tmp_path / "new")
    found = read_bundle(Repository(tmp_path / "new").path("affine")).manifest
    assert found.version == 1
    assert len(found.directions["up"]) == 2
    assert own.versions("affine") == [1]


def test_a_direction_that_is_there_already_is_replaced_and_that_is_said(run, own, files):
    added(run, own.root / "affine", files)
    assert "affine version 3: 'up' replaced" in added(run, own.root / "affine", files, "--method", "logistic").stdout


def test_rows_with_a_context(run, own, files):
    added(run, own.root / "conditional", files, "--context", "0.5,1")
    flow = load_flow(read_bundle(own.path("conditional")))
    context = np.array([[0.5, 1.0]], np.float32)
    a, b = (run_now(flow.encode(np.load(file), context)).z.astype(np.float64) for file in files)
    np.testing.assert_allclose(flow.manifest.directions["up"], a.mean(axis=0) - b.mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("name", ["", " ", "a,b", "x" * 65, "a\nb"])
def test_a_name_that_cannot_be_asked_for(run, own, files, name):
    with pytest.raises(InvalidInput, match="--name must be 1 to 64 printable characters without a comma"):
        run("direction", own.path("affine"), "--positive", files[0], "--negative", files[1], "--name", name)
    assert own.versions("affine") == [1]


def test_rows_without_a_latent_and_rows_alike(run, own, files, tmp_path):
    (tmp_path / "out.csv").write_text("1\n2\n-3\n")
    with pytest.raises(
        InvalidInput, match=r"out\.csv, line 3: the density is zero here, so that the row has no latent"
    ):
        added(run, own.path("square"), (tmp_path / "out.csv", tmp_path / "out.csv"))
    with pytest.raises(InvalidInput, match="the two kinds of rows have the same mean latent"):
        added(run, own.path("affine"), (files[0], files[0]))
    assert own.versions("affine") == [1]
