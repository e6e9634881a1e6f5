"""From a recipe to a bundle and a report; what stands in the way, and what is left behind when it fails."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import models.training.fit_start
import models.training.train
from models.data.split import split
from models.recipe import Recipe
from models.training.checkpoint import CHECKPOINT_FILE, Checkpoint, EpochRecord
from models.training.search import LEAST_EPOCHS, Trial
from models.training.train import ExportOptions, export_kept, train
from service.bundle.manifest import Provenance
from service.errors import DataError, ForbiddenGraph, ParityFailed
from tests.service import bundles
from tests.unwritable import readable_folder, unwritable


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 2)) @ [[2.0, 0.3], [0.0, 0.5]]
    np.savez(tmp_path / "rows.npz", X=x, y=generator.integers(0, 2, 200))
    return Recipe.parse(
        {
            "name": "rows",
            "out": str(tmp_path / "flows"),
            "data": {"source": str(tmp_path / "rows.npz")},
            "flow": {"transforms": 2, "hidden": [8]},
            "fit": {"epochs": 4, "batch_size": 32},
        }
    )


class Exported(list):
    """Stands in for the export, which has tests of its own: keeps what it was given, and makes the folder."""

    def __call__(self, flow, *, repository, name, **rest):
        self.append({"flow": {k: v.clone() for k, v in flow.state_dict().items()}, "name": name, **rest})
        folder = repository.root / name / str(rest["version"] or repository.next_version(name))
        folder.mkdir(parents=True)
        (folder / "flow.json").write_bytes(bundles.affine().manifest.to_json())
        return folder


@pytest.fixture
def exported(monkeypatch) -> Exported:
    stand_in = Exported()
    monkeypatch.setattr(models.training.train, "export_flow", stand_in)
    return stand_in


def weights_equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Cut(Exception):
    pass


def cut_after(epoch: int):
    def observe(record: EpochRecord) -> None:
        if record.epoch > epoch:
            raise Cut

    return observe


def test_the_next_version_never_overwrites_and_nothing_is_left_over(recipe, exported, tmp_path):
    out = tmp_path / "flows"
    first, second = train(recipe), train(recipe.override({"seed": 5}))
    assert (first.version, second.version) == (1, 2)
    assert {path.name for path in out.iterdir()} == {"rows"}
    assert {path.name for path in (out / "rows").iterdir()} == {"1", "2", "report-1", "report-2"}
    assert first.report == out / "rows" / "report-1"
    assert {path.name for path in first.report.iterdir()} >= {"index.html", "report.json", "held_out.npy", "loss.png"}


def test_the_same_recipe_gives_the_same_weights(recipe, exported):
    train(recipe)
    train(recipe)
    train(recipe.override({"seed": 1}))
    assert weights_equal(exported[0]["flow"], exported[1]["flow"])
    assert not weights_equal(exported[0]["flow"], exported[2]["flow"])


def test_the_export_is_told_what_it_needs(recipe, exported, tmp_path):
    result = train(recipe.override({"data": {"where": ["y=0"], "units": {"1": "m"}}, "description": "Words."}))
    (told,) = exported
    with np.load(tmp_path / "rows.npz") as arrays:
        kept = int((arrays["y"] == 0).sum())
    assert told["data"] == f"rows.npz where y=0: {kept} rows of 2 columns"
    assert len(told["held_out"]) == round(0.1 * kept)
    assert told["description"] == "Words."
    assert [f.unit for f in told["features"]] == [None, "m"]
    assert told["gaussian_mean"] == result.evaluation.gaussian.mean
    assert told["recipe"]["flow"]["transforms"] == 2
    assert str(tmp_path) not in repr(told["recipe"])
    assert np.array_equal(np.load(result.report / "held_out.npy"), told["held_out"].numpy())


def test_groups_stay_together_and_recipe_and_report_say_so(recipe, exported, tmp_path):
    with np.load(tmp_path / "rows.npz") as arrays:
        x = arrays["X"]
    np.savez(tmp_path / "groups.npz", X=x, visit=np.arange(200) // 4)
    grouped = recipe.override({"data": {"source": str(tmp_path / "groups.npz"), "group": "visit"}})
    result = train(grouped)
    (told,) = exported
    assert told["recipe"]["data"]["group"] == "visit"
    held_out = {tuple(row) for row in told["held_out"].tolist()}
    places = [at for at, row in enumerate(x.astype(np.float32).tolist()) if tuple(row) in held_out]
    assert len(places) == len(held_out) == 20
    assert all(at in places for place in places for at in range(place // 4 * 4, place // 4 * 4 + 4))
    report = json.loads((result.report / "report.json").read_text())
    assert report["split"] == "by the 50 groups of 'visit'"
    assert "split by the 50 groups of &#x27;visit&#x27;" in (result.report / "index.html").read_text()


def test_standardization_is_of_training_rows_only(recipe, exported):
    train(recipe.override({"fit": {"epochs": 1}, "data": {"test": 0.3}}))
    table = models.training.train.load_data(recipe)
    parts = split(table, recipe.override({"data": {"test": 0.3}}).data, 0)
    (mean,) = (value for key, value in exported[0]["flow"].items() if key.endswith("mean"))
    torch.testing.assert_close(mean, parts.train.double().mean(dim=0).float())
    assert not torch.allclose(mean, torch.from_numpy(table.rows).mean(dim=0).float(), atol=1e-5)


@pytest.mark.parametrize(("whiten", "starts"), [(None, 1), (True, 1), (False, 0)])
def test_a_table_is_whitened_unless_it_is_said_otherwise(recipe, exported, whiten, starts):
    said = {} if whiten is None else {"flow": {"whiten": whiten}}
    train(recipe.override({**said, "fit": {"epochs": 1}}))
    found = [key for key in exported[0]["flow"] if key.endswith("inverse_matrix")]
    assert len(found) == starts


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_broken_fit_resumes_to_the_same_weights(recipe, exported, tmp_path, epoch):
    train(recipe.override({"out": str(tmp_path / "whole")}))
    with pytest.raises(Cut):
        train(recipe, observe=cut_after(epoch), seconds_between=0.0)
    work = tmp_path / "flows" / ".training" / "rows"
    assert Checkpoint.load(work).epoch == epoch
    said: list[str] = []
    seen: list[int] = []
    result = train(recipe, resume=True, say=said.append, observe=lambda record: seen.append(record.epoch))
    assert f"Going on after epoch {epoch}." in said
    assert seen == list(range(epoch + 1, 5))
    assert len(result.history) == 4
    assert weights_equal(exported[0]["flow"], exported[1]["flow"])
    assert not work.exists()


def searched(recipe: Recipe) -> Recipe:
    """A fit that is long enough for a search; its flow's options are open."""
    values = {**recipe.model_dump(exclude_unset=True), "flow": {"transforms": 1, "bins": 4}}
    return Recipe.parse({**values, "fit": {"epochs": LEAST_EPOCHS, "batch_size": 100, "patience": 20}})


def test_what_the_search_chose_is_told_and_gives_the_same_fit_when_it_is_stated(recipe, exported):
    said: list[str] = []
    seen: list[int] = []
    trials: list[Trial] = []
    result = train(
        searched(recipe), say=said.append, observe=lambda record: seen.append(record.epoch), watch=trials.append
    )
    (line,) = [line for line in said if line.startswith("Chosen by validation rows: ")]
    assert seen == list(range(1, len(result.history) + 1))
    assert trials[-1].done == trials[-1].planned
    stated = exported[0]["recipe"]
    assert None not in (stated["flow"]["whiten"], stated["flow"].get("hidden"), stated["fit"]["noise"])
    figures = json.loads((result.report / "report.json").read_text())
    assert figures["recipe"] == stated
    assert line == f"Chosen by validation rows: {figures['fit']['chosen']}."
    assert figures["fit"]["chosen"] in (result.report / "index.html").read_text()
    again = Recipe.parse(stated).override({"out": recipe.out, "data": {"source": recipe.data.source}})
    for repeated in (again, again.override({"fit": {"search": False}})):
        train(repeated)
        assert weights_equal(exported[0]["flow"], exported[-1]["flow"])


def test_a_fit_broken_after_its_search_resumes_to_the_same_weights(recipe, exported, tmp_path):
    recipe = searched(recipe)
    train(recipe.override({"out": str(tmp_path / "whole")}))
    with pytest.raises(Cut):
        train(recipe, observe=cut_after(14), seconds_between=0.0)
    trials: list[Trial] = []
    train(recipe, resume=True, watch=trials.append)
    assert trials == []  # the choice is in the checkpoint
    assert weights_equal(exported[0]["flow"], exported[1]["flow"])
    assert exported[0]["recipe"] == exported[1]["recipe"]


@pytest.mark.parametrize("why", ["no search", "repeated values", "images"])
def test_a_plain_fit_chooses_nothing(recipe, exported, tmp_path, why):
    recipe = searched(recipe)
    if why == "no search":
        recipe = recipe.override({"fit": {"search": False}})
    elif why == "repeated values":
        np.save(tmp_path / "grid.npy", np.random.default_rng(0).normal(size=(200, 2)).round(1))
        recipe = recipe.override({"data": {"source": str(tmp_path / "grid.npy")}})
    else:
        np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(200, 2, 2, 1)))
        recipe = recipe.override({"data": {"source": str(tmp_path / "images.npy")}})
    trials: list[Trial] = []
    said: list[str] = []
    train(recipe, watch=trials.append, say=said.append)
    assert trials == []
    assert exported[0]["recipe"]["flow"]["whiten"] is None
    assert any("Most values repeat" in line for line in said) is (why == "repeated values")


def three_columns(folder: Path) -> None:
    generator = np.random.default_rng(1)
    np.savez(folder / "rows.npz", X=generator.normal(size=(200, 3)), y=generator.integers(0, 2, 200))


def test_a_context_goes_through_to_the_export(recipe, exported, tmp_path):
    three_columns(tmp_path)
    result = train(recipe.override({"data": {"context": ["y", "1"], "one_hot": ["y"], "units": {"1": "m"}}}))
    (told,) = exported
    assert told["held_out"].shape == (20, 2)
    assert told["context"].shape == (20, 3)
    assert [(f.name, f.unit) for f in told["context_features"]] == [("y=0", None), ("y=1", None), ("column 1", "m")]
    assert told["features"] == ()
    assert told["data"] == "rows.npz: 200 rows of 2 columns, given 3 columns of context"
    assert told["gaussian_mean"] == result.evaluation.gaussian.mean
    assert told["recipe"]["data"]["context"] == ["y", "1"]
    assert np.array_equal(np.load(result.report / "held_out_context.npy"), told["context"].numpy())
    figures = json.loads((result.report / "report.json").read_text())
    assert figures["context"] == ["y=0", "y=1", "column 1, m"]


def test_a_broken_conditional_fit_resumes_to_the_same_weights(recipe, exported, tmp_path):
    three_columns(tmp_path)
    recipe = recipe.override({"data": {"context": ["y"]}})
    train(recipe.override({"out": str(tmp_path / "whole")}))
    with pytest.raises(Cut):
        train(recipe, observe=cut_after(2), seconds_between=0.0)
    with pytest.raises(DataError, match="another recipe and another data set"):
        train(recipe.override({"data": {"context": ["y", "1"]}}), resume=True)
    with np.load(tmp_path / "rows.npz") as arrays:
        x, y = arrays["X"], arrays["y"]
    np.savez(tmp_path / "rows.npz", X=x, y=1 - y)
    with pytest.raises(DataError, match="another data set"):
        train(recipe, resume=True)
    np.savez(tmp_path / "rows.npz", X=x, y=y)
    train(recipe, resume=True)
    assert weights_equal(exported[0]["flow"], exported[1]["flow"])


def test_an_unfinished_fit_is_not_thrown_away_unasked(recipe, exported):
    with pytest.raises(Cut):
        train(recipe, observe=cut_after(2), seconds_between=0.0)
    with pytest.raises(DataError, match="after epoch 2: --resume goes on with it, and --restart throws it away"):
        train(recipe)
    with pytest.raises(DataError, match="give one of them"):
        train(recipe, resume=True, restart=True)
    assert len(train(recipe, restart=True).history) == 4


def test_resume_without_an_unfinished_fit_begins_one(recipe, exported):
    assert len(train(recipe, resume=True).history) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fit": {"clip": 1.0}}, "another recipe"),
        ({"seed": 1}, "another recipe"),
        ({"data": {"where": ["0<100"]}}, "another recipe"),
        ({}, "another data set"),
    ],
)
def test_a_fit_is_not_resumed_with_another_recipe_or_other_data(recipe, exported, tmp_path, change, words):
    with pytest.raises(Cut):
        train(recipe, observe=cut_after(1), seconds_between=0.0)
    if not change:
        with np.load(tmp_path / "rows.npz") as arrays:
            x = arrays["X"]
        x[3, 1] += 1e-3
        np.savez(tmp_path / "rows.npz", X=x)
    with pytest.raises(DataError, match=f"it began with {words};"):
        train(recipe.override(change), resume=True)


@pytest.fixture
def refuse(monkeypatch) -> Callable[[Exception], None]:
    """Let the export end in an error; None lets it through again."""
    true = models.training.train.export_flow

    def switch(error: Exception | None) -> None:
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(models.training.train, "export_flow", true if error is None else fail)

    return switch


FAILURES = [
    ParityFailed("the graphs differ"),
    ForbiddenGraph("no such operator"),
    RuntimeError("a library's own fault"),
]


@pytest.mark.parametrize("error", FAILURES, ids=["parity", "operator", "any other"])
def test_nothing_that_was_fitted_is_lost_where_the_export_fails(recipe, exported, refuse, tmp_path, error):
    refuse(error)
    said: list[str] = []
    with pytest.raises(type(error)) as raised:
        train(recipe, say=said.append)
    run = tmp_path / "flows" / ".training" / "rows"
    told = said[-1] if isinstance(error, RuntimeError) else str(raised.value)
    assert f"the checkpoint and the rows are in {run}" in told
    assert f"pushforward export {run}" in told
    assert f"Report: {run}/kept-report/index.html" in told
    assert isinstance(error, RuntimeError) or told.startswith(error.detail)
    assert Checkpoint.load(run).finished
    report = json.loads((run / "kept-report" / "report.json").read_text())
    assert report["version"] is None
    assert any(str(error) in warning for warning in report["warnings"])
    page = (run / "kept-report" / "index.html").read_text()
    assert f"pushforward export {run}" in page
    assert str(error) in html.unescape(page)
    assert len(np.load(run / "kept-report" / "held_out.npy")) == 20
    assert not (tmp_path / "flows" / "rows").exists()


def test_what_was_kept_is_exported_by_other_options_without_its_data(recipe, exported, refuse, tmp_path):
    train(recipe.override({"out": str(tmp_path / "whole")}))
    refuse(ParityFailed("the graphs differ"))
    with pytest.raises(ParityFailed):
        train(recipe)
    refuse(None)
    (tmp_path / "rows.npz").unlink()
    run, said = tmp_path / "flows" / ".training" / "rows", []
    result = export_kept(
        run,
        changes={"name": "other", "out": str(tmp_path / "elsewhere"), "description": "Words."},
        options=ExportOptions(version=7, far_rows="resolvable"),
        say=said.append,
    )
    assert weights_equal(exported[0]["flow"], exported[1]["flow"])
    assert torch.equal(exported[0]["held_out"], exported[1]["held_out"])
    told = exported[1]
    assert (told["name"], told["version"], told["far_rows"]) == ("other", 7, "resolvable")
    assert (told["description"], told["gaussian_mean"]) == ("Words.", exported[0]["gaussian_mean"])
    assert (result.bundle, result.version) == (tmp_path / "elsewhere" / "other" / "7", 7)
    assert result.report == tmp_path / "elsewhere" / "other" / "report-7"
    assert json.loads((result.report / "report.json").read_text())["version"] == 7
    assert result.recipe.name == "other"
    assert len(result.history) == 4
    assert list((tmp_path / "flows").iterdir()) == []


def test_what_was_kept_stays_until_an_export_succeeds_or_it_is_thrown_away(recipe, exported, refuse, tmp_path):
    run = tmp_path / "flows" / ".training" / "rows"
    refuse(ParityFailed("the graphs differ"))
    for again in (lambda: train(recipe), lambda: export_kept(run), lambda: export_kept(run)):
        with pytest.raises(ParityFailed, match=re.escape(f"pushforward export {run}")):
            again()
    with pytest.raises(
        DataError, match=f"whose export failed: pushforward export {run} goes on with it, and --restart"
    ):
        train(recipe)
    refuse(None)
    assert len(train(recipe, resume=True).history) == 4
    assert list((tmp_path / "flows").iterdir()) == [tmp_path / "flows" / "rows"]
    refuse(ParityFailed("the graphs differ"))
    with pytest.raises(ParityFailed):
        train(recipe, restart=True)
    refuse(None)
    train(recipe, restart=True)
    assert not run.exists()


def test_a_folder_of_ones_own_keeps_the_fit_and_what_is_the_users(recipe, exported, refuse, tmp_path):
    work, report = tmp_path / "work", tmp_path / "report"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    refuse(ParityFailed("the graphs differ"))
    with pytest.raises(ParityFailed, match=f"Report: {report}/index.html"):
        train(recipe, work=work, report=report)
    assert (report / "held_out.npy").is_file()
    refuse(None)
    assert export_kept(work).version == 1
    assert [path.name for path in work.iterdir()] == ["thesis.txt"]


def test_a_fit_that_cannot_be_scored_is_kept_too(recipe, exported, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise DataError("no finite log_prob")

    with monkeypatch.context() as patch:
        patch.setattr(models.training.train, "evaluate", fail)
        with pytest.raises(DataError, match=r"no finite log_prob\n(.*\n)*.*pushforward export"):
            train(recipe)
    assert export_kept(tmp_path / "flows" / ".training" / "rows").version == 1


def test_a_report_that_cannot_be_written_leaves_the_bundle_and_the_fit(recipe, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(models.training.train, "export_flow", installing)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(models.training.train, "write_report", fail)
        with pytest.raises(OSError, match="full"):
            train(recipe, say=said.append)
    assert "pushforward export" in said[-1]
    result = export_kept(tmp_path / "flows" / ".training" / "rows", say=said.append)
    assert "Version 1 holds this fit already: what is left is its report." in said
    assert (result.report / "index.html").is_file()


def installing(flow, *, repository, name, created, recipe, data, **_):
    """Stands in for the export, and installs a bundle of another flow under this one's name and origin."""
    parts = bundles.affine()
    origin = Provenance(data=data, recipe=recipe, created=created.isoformat(timespec="seconds"))
    changes = {"name": name, "version": repository.next_version(name), "provenance": origin}
    return repository.install(parts.manifest.model_copy(update=changes), parts.files)


@pytest.mark.parametrize("kept", ["nothing", "unfinished", "damaged"])
def test_a_folder_that_holds_no_such_fit(recipe, exported, refuse, tmp_path, kept):
    run = tmp_path / "flows" / ".training" / "rows"
    words = {
        "nothing": "holds no fit",
        "unfinished": "was cut off after epoch 1.*--resume",
        "damaged": "cannot be read",
    }
    if kept == "unfinished":
        with pytest.raises(Cut):
            train(recipe, observe=cut_after(1), seconds_between=0.0)
    if kept == "damaged":
        refuse(ParityFailed("the graphs differ"))
        with pytest.raises(ParityFailed):
            train(recipe)
        (run / "kept-rows.npz").write_bytes(b"PK but no more")
    with pytest.raises(DataError, match=words[kept]):
        export_kept(run)


def test_a_version_that_is_there_is_told_before_the_export(recipe, exported, refuse, tmp_path):
    train(recipe)
    refuse(ParityFailed("the graphs differ"))
    with pytest.raises(ParityFailed):
        train(recipe)
    (tmp_path / "flows" / "rows" / "1" / "flow.json").write_bytes(bundles.affine().manifest.to_json())
    with pytest.raises(DataError, match="rows has a version 1 already"):
        export_kept(tmp_path / "flows" / ".training" / "rows", options=ExportOptions(version=1))


def test_folders_of_ones_own(recipe, exported, tmp_path):
    work, report = tmp_path / "work", tmp_path / "report"
    with pytest.raises(Cut):
        train(recipe, observe=cut_after(1), seconds_between=0.0, work=work)
    assert [path.name for path in work.iterdir()] == [CHECKPOINT_FILE]
    assert train(recipe, resume=True, work=work, report=report).report == report
    assert (report / "index.html").is_file()
    assert list(work.iterdir()) == []


def test_a_work_folder_keeps_what_is_the_users(recipe, exported, tmp_path):
    work = tmp_path / "home"
    (work / "photos").mkdir(parents=True)
    (work / "thesis.txt").write_text("mine")
    for options in ({"resume": True}, {"restart": True}):
        with pytest.raises(Cut):
            train(recipe, observe=cut_after(1), seconds_between=0.0, work=work)
        (work / ".checkpoint-abc123").write_bytes(b"of a run that was killed while it wrote")
        train(recipe, work=work, **options)
        assert sorted(path.name for path in work.iterdir()) == ["photos", "thesis.txt"]


def test_an_unfinished_fit_of_another_name_stays(recipe, exported, tmp_path):
    with pytest.raises(Cut):
        train(recipe.override({"name": "other"}), observe=cut_after(1), seconds_between=0.0)
    train(recipe)
    assert [path.name for path in (tmp_path / "flows" / ".training").iterdir()] == ["other"]


def test_a_checkpoint_that_cannot_be_removed_is_told_with_what_is_done(recipe, exported, monkeypatch):
    def refuse(folder: Path) -> None:
        raise DataError("the checkpoint cannot be removed")

    monkeypatch.setattr(Checkpoint, "remove", refuse)
    with pytest.raises(DataError, match="rows is installed as version 1, with its report; the checkpoint cannot"):
        train(recipe)


@pytest.mark.parametrize("place", ["out", "work", "report"])
@pytest.mark.parametrize("why", ["Permission denied", "is not a folder"])
def test_where_nothing_can_be_written_nothing_is_begun(recipe, monkeypatch, place, why):
    monkeypatch.setattr(models.training.train, "load_data", None)  # not reached
    with readable_folder() as folder:
        (folder / "good").mkdir(mode=0o777)
        (folder / "good").chmod(0o777)
        (folder / "bad").mkdir() if why == "Permission denied" else (folder / "bad").touch()
        places = dict.fromkeys(("out", "work", "report"), folder / "good") | {place: folder / "bad" / "here"}
        with unwritable(folder), pytest.raises(DataError, match=rf"^{place}: \S+/bad/here\S* cannot be used: .*{why}"):
            train(recipe.override({"out": str(places["out"])}), work=places["work"], report=places["report"])
        assert list((folder / "good").iterdir()) == []


@pytest.fixture
def killed(monkeypatch) -> Callable[[Recipe], None]:
    """Train until the bundle is installed, and stop before the report."""

    def run(recipe: Recipe) -> None:
        def die(*_: object) -> None:
            raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(models.training.train, "write_report", die)
            with pytest.raises(Cut):
                train(recipe)

    return run


def test_what_a_killed_run_installed_is_not_installed_again(recipe, killed, tmp_path):
    flow = tmp_path / "flows" / "rows"
    killed(recipe)
    (flow / "2").mkdir()
    (flow / "2" / "flow.json").write_text("another's, and no bundle")
    assert {path.name for path in flow.iterdir()} == {"1", "2"}
    said: list[str] = []
    result = train(recipe, resume=True, say=said.append)
    assert "Version 1 holds this fit already: what is left is its report." in said
    assert (result.version, result.bundle, result.report) == (1, flow / "1", flow / "report-1")
    assert {path.name for path in flow.iterdir()} == {"1", "2", "report-1"}
    assert json.loads((result.report / "report.json").read_text())["version"] == 1
    assert not (tmp_path / "flows" / ".training").exists()


def test_a_bundle_of_another_export_is_not_taken_for_that_of_a_killed_run(recipe, killed, monkeypatch, tmp_path):
    killed(recipe)
    work = tmp_path / "flows" / ".training" / "rows"
    monkeypatch.setattr(models.training.train, "export_flow", Exported())
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda _: None)  # to resume it again
        assert train(recipe.override({"description": "Other words."}), resume=True).version == 2
    Checkpoint.note_export(work, "2001-02-03T04:05:06+00:00")
    assert train(recipe, resume=True).version == 3


def test_integers_are_fitted_spread_and_exported_as_they_are(recipe, exported, tmp_path):
    generator = np.random.default_rng(0)
    x = np.column_stack([generator.integers(0, 5, 200), 10 * generator.integers(0, 9, 200)])
    np.save(tmp_path / "counts.npy", x)
    counts = recipe.override({"data": {"source": str(tmp_path / "counts.npy")}})
    notes: list[str] = []
    train(counts, say=notes.append)
    assert "Note: each of the columns 0, 1 holds integers only" in notes[0]
    result = train(counts.override({"data": {"dequantize": True}}))
    told = exported[1]
    assert result.notes == ()
    assert np.array_equal(told["held_out"].numpy(), np.round(told["held_out"].numpy()))
    assert "0 (1), 1 (10)" in told["description"]  # two steps: one reading in the manifest cannot say it
    assert told["quantization"] is None
    assert told["gaussian_mean"] == result.evaluation.centres_gaussian.mean
    assert result.evaluation.bits_per_dim(result.evaluation.flow) is not None


def test_bounded_integers_get_a_logit_and_half_a_bin_around(recipe, exported, tmp_path):
    np.save(tmp_path / "counts.npy", np.random.default_rng(0).integers(0, 5, (200, 2)))
    data = {"source": str(tmp_path / "counts.npy"), "dequantize": True, "low": 0.0, "high": 4.0}
    built = []
    true = models.training.fit_start.build_flow

    def build(*args, **options):
        built.append(options["support"])
        return true(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.training.fit_start, "build_flow", build)
        train(recipe.override({"data": data}))
    assert (built[0].low, built[0].high) == (-0.5, 4.5)
    assert (exported[0]["quantization"].low, exported[0]["quantization"].high) == (0, 4)


def test_name_and_out_are_needed(recipe):
    with pytest.raises(DataError, match="a flow needs name and out"):
        train(recipe.override({"name": None, "out": None}))
