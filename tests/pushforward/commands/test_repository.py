"""`pushforward repository`, on a folder and against a server: the same commands, and the same end."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pushforward.cli.group import cli
from pushforward.client import Client
from pushforward.client.errors import InvalidInput, NotFound
from service.bundle.store import Repository
from service.errors import PushforwardError
from tests.server import Server
from tests.service.bundles import affine, install


@pytest.fixture
def root(tmp_path):
    install(tmp_path / "repository", affine("wine"))
    return tmp_path / "repository"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    return install(tmp_path_factory.mktemp("made"), affine("wine", 2), affine("other"))


@pytest.fixture
def server(root):
    running = Server("--repository", root, "--default-flow", "wine")
    yield running
    running.kill()


def run(*arguments):
    """The output of a command that succeeds."""
    result = CliRunner().invoke(cli, ["repository", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    with pytest.raises(PushforwardError) as caught:
        run(*arguments)
    return caught.value.detail


@pytest.fixture(params=["folder", "server"])
def place(request, root):
    if request.param == "folder":
        return "--repository", root
    return "--url", request.getfixturevalue("server").url


def test_install_list_alias_and_remove(place, root, bundles):
    assert run("install", bundles.path("wine", 2), *place) == "wine version 2 is installed\n"
    assert run("alias", "wine", "stable", 2, *place) == "stable of wine names version 2\n"
    listed = run("list", *place).splitlines()
    assert [line.split()[:2] for line in listed] == [["wine", "1"], ["wine", "2"]]
    assert listed[1].endswith("  stable")
    assert Repository(root).versions("wine") == [1, 2]
    assert "names" in refused("remove", "wine", 2, *place)
    assert run("alias", "wine", "stable", "--delete", *place) == "stable of wine is removed\n"
    assert run("remove", "wine", 2, *place) == "wine version 2 is removed\n"
    assert Repository(root).versions("wine") == [1]


def test_what_is_refused(place, root, bundles, tmp_path):
    again = Repository(tmp_path / "repository").path("wine", 1)
    assert "never changes" in refused("install", again, *place)
    assert "no version 9" in refused("remove", "wine", 9, *place)
    assert "no version 9" in refused("alias", "wine", "stable", 9, *place)
    assert "must match" in refused("alias", "wine", "Stable", 1, *place)
    assert "no alias" in refused("alias", "wine", "none", "--delete", *place)
    assert "give a version" in refused("alias", "wine", "stable", *place)
    assert "flow.json" in refused("install", tmp_path, *place)


def test_one_place_alone(root):
    assert "one of them" in refused("list", "--repository", root, "--url", "http://127.0.0.1:1")


def test_a_folder_that_cannot_be_written_is_told(root, bundles, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.bundle.store.sync", full)
    assert refused("install", bundles.path("wine", 2), "--repository", root).endswith("No space left on device")
    assert Repository(root).versions("wine") == [1]


def test_an_alias_serves_the_commands(root, tmp_path):
    install(root, affine("wine", 2))
    run("alias", "wine", "stable", 1, "--repository", root)
    rows = tmp_path / "rows.csv"
    rows.write_text("0.5,1\n")
    arguments = ["logprob", str(rows), "--repository", str(root), "--model", "wine"]
    answers = [CliRunner().invoke(cli, [*arguments, "--version", version]).output for version in ("stable", "1")]
    assert answers[0] == answers[1]
    with pytest.raises(PushforwardError, match="no alias 'canary'"):
        CliRunner().invoke(cli, [*arguments, "--version", "canary"], catch_exceptions=False)
    assert "or an alias" in CliRunner().invoke(cli, [*arguments, "--version", "0"]).output


def test_the_client_changes_what_is_served(server, root, bundles):
    import io

    from service.bundle.archive import write_archive

    archive = io.BytesIO()
    write_archive(bundles.path("wine", 2), archive)
    with Client(server.url) as client:
        repository = client.repository
        repository.install("wine", 2, archive.getvalue(), load=False)
        assert [each.state for each in repository.versions()] == ["ready", "unloaded"]
        repository.load("wine", 2)
        assert client.model("wine").version == 2
        assert repository.set_alias("wine", "stable", 1) is True
        assert client.model("wine", "stable").version == 1
        assert client.log_prob([[1, 2]], returns=[], version="stable").version == 1
        assert client.sample(2, seed=1, model="wine", version="stable").version == 1
        assert repository.set_alias("wine", "stable", None) is True
        repository.unload("wine", 1)
        repository.remove("wine", 1)
        assert [(each.name, each.version) for each in repository.versions()] == [("wine", 2)]
        with pytest.raises(NotFound):
            repository.load("wine", 1)
        with pytest.raises(InvalidInput):
            client.log_prob([["a", "b"]], version="stable")
