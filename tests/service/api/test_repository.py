"""The calls that change what is served, over HTTP, on an application in this process."""

from __future__ import annotations

import io
import json
import logging
import tarfile
import weakref

import numpy as np
import pytest

from service.bundle.archive import write_archive
from service.bundle.store import Repository
from service.engine.changes import Reload
from service.errors import RepositoryUnwritable
from tests.service.bundles import affine, install, square, traced
from tests.waiting import until


@pytest.fixture
def root(tmp_path):
    install(tmp_path / "repository", affine("wine"))
    return tmp_path / "repository"


@pytest.fixture
def server(root, serving):
    return serving(root, default_flow="wine")


def archive(tmp_path, parts):
    """A bundle as a tar."""
    repository = install(tmp_path / "made", parts)
    buffer = io.BytesIO()
    write_archive(repository.path(parts.manifest.name, parts.manifest.version), buffer)
    return buffer.getvalue()


def versions(server, flow="wine"):
    listed = {each["name"]: each for each in server.get("/repository").json()["flows"]}
    return {each["version"]: each["state"] for each in listed[flow]["versions"]} if flow in listed else {}


def answering(server, path="/logprob", **more):
    return server.post(path, json={"x": [[1, 2]], **more}).json().get("version")


def test_a_bundle_is_installed_and_served_and_removed(server, tmp_path, root):
    sent = archive(tmp_path, affine("wine", 2))
    answer = server.request("PUT", "/repository/wine/versions/2", content=sent)
    assert (answer.status_code, answer.json()) == (201, {"name": "wine", "version": 2, "state": "ready"})
    assert answering(server) == 2
    assert versions(server) == {1: "ready", 2: "ready"}
    assert Repository(root).versions("wine") == [1, 2]
    assert sorted(file.name for file in (root / "wine" / "2").iterdir()) == [
        "flow.json",
        "forward.onnx",
        "golden.npz",
        "inverse.onnx",
    ]
    answer = server.request("DELETE", "/repository/wine/versions/2")
    assert (answer.status_code, answer.json()["state"]) == (200, "removed")
    assert answering(server) == 1
    until(lambda: versions(server) == {1: "ready"})
    assert sorted(entry.name for entry in (root / "wine").iterdir()) == ["1"]


def test_a_flow_that_was_not_there_comes_and_goes(server, tmp_path, root):
    assert server.request("PUT", "/repository/square/versions/1", content=archive(tmp_path, square())).is_success
    assert server.get("/models/square").json()["state"] == "ready"
    assert server.request("DELETE", "/repository/square/versions/1").is_success
    assert server.get("/models/square").json()["code"] == "flow_not_found"
    assert not (root / "square").exists()


def test_a_bundle_can_wait_for_its_load(server, tmp_path):
    sent = archive(tmp_path, affine("wine", 2))
    answer = server.request("PUT", "/repository/wine/versions/2?load=false", content=sent)
    assert (answer.status_code, answer.json()["state"]) == (201, "installed")
    assert answering(server) == 1
    assert versions(server) == {1: "ready", 2: "unloaded"}
    assert server.post("/repository/wine/versions/2/load").json()["state"] == "ready"
    assert answering(server) == 2
    assert server.post("/repository/wine/versions/2/unload").json()["state"] == "unloaded"
    assert answering(server) == 1
    until(lambda: versions(server) == {1: "ready", 2: "unloaded"})


def problem(answer, status, code):
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), document
    return document


def test_what_is_refused(server, tmp_path, root):
    sent = archive(tmp_path, affine("wine", 2))
    put = lambda path, **more: server.request("PUT", f"/repository/{path}", **more)  # noqa: E731
    assert "never changes" in problem(put("wine/versions/1", content=sent), 409, "repository_conflict")["detail"]
    assert "wine version 2, and" in problem(put("wine/versions/3", content=sent), 422, "bundle_refused")["detail"]
    problem(put("square/versions/2", content=sent), 422, "bundle_refused")
    problem(put("wine/versions/2", content=sent[:2000]), 400, "malformed_body")
    problem(put("wine/versions/2", content=b"nonsense" * 500), 400, "malformed_body")
    problem(put("wine/versions/2", content=b""), 400, "malformed_body")
    problem(put("wine/versions/2?load=maybe", content=sent), 422, "invalid_argument")
    problem(put("wine/versions/two", content=sent), 404, "version_not_found")
    problem(put("Wine/versions/2", content=sent), 404, "flow_not_found")
    problem(put("..%2Fwine/versions/2", content=sent), 404, "route_not_found")
    problem(server.post("/repository/wine/versions/9/load"), 404, "version_not_found")
    problem(server.post("/repository/wine/versions/9/unload"), 404, "version_not_found")
    problem(server.post("/repository/none/versions/1/load"), 404, "flow_not_found")
    problem(server.request("DELETE", "/repository/wine/versions/9"), 404, "version_not_found")
    assert sorted(entry.name for entry in root.rglob("*") if entry.is_dir()) == ["1", "wine"]
    assert answering(server) == 1


def test_a_body_over_the_cap_is_refused_before_it_has_come(server, monkeypatch, tmp_path, root):
    monkeypatch.setattr("service.api.repository.MAX_ARCHIVE_BYTES", 5000)
    sent = archive(tmp_path, affine("wine", 2))

    async def pieces():
        for at in range(0, len(sent), 1000):
            yield sent[at : at + 1000]

    problem(server.request("PUT", "/repository/wine/versions/2", content=sent), 413, "body_too_large")
    problem(server.request("PUT", "/repository/wine/versions/2", content=pieces()), 413, "body_too_large")
    assert sorted(entry.name for entry in (root / "wine").iterdir()) == ["1"]


def damaged(data, name, change):
    """The tar with one member changed."""
    found, made = {}, io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old:
        for member in old:
            found[member.name] = old.extractfile(member).read()
    found[name] = change(found[name])
    with tarfile.open(fileobj=made, mode="w") as new:
        for member, content in found.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    return made.getvalue()


def test_a_bundle_that_cannot_be_served_leaves_the_old_one_and_nothing_on_the_disk(server, tmp_path, root, caplog):
    sent = archive(tmp_path, affine("wine", 2))
    wrong = damaged(sent, "forward.onnx", lambda data: data[:-1] + b"\0")
    answer = server.request("PUT", "/repository/wine/versions/2", content=wrong)
    assert "digest_mismatch: forward.onnx is not the file" in problem(answer, 422, "bundle_refused")["detail"]
    assert sorted(entry.name for entry in (root / "wine").iterdir()) == ["1"]
    assert (answering(server), versions(server)) == (1, {1: "ready"})


@pytest.mark.parametrize(
    "step",
    ["loading.open_graphs", "loading.check_golden", "loading.HeldOut", "registry.read_bundle", "loading.open_lane"],
)
def test_each_step_of_a_load_that_fails_leaves_the_old_version(server, tmp_path, root, monkeypatch, caplog, step):
    def fails(*_, **__):
        raise RuntimeError(f"in {step}")

    before = weakref.ref(server.app.state.registry.find("wine"))
    monkeypatch.setattr(f"service.engine.{step}", fails)
    answer = server.request("PUT", "/repository/wine/versions/2", content=archive(tmp_path, affine("wine", 2)))
    problem(answer, 422, "bundle_refused")
    assert server.app.state.registry.find("wine") is before()
    assert (answering(server), versions(server)) == (1, {1: "ready"})
    assert sorted(entry.name for entry in (root / "wine").iterdir()) == ["1"]
    events = [record for record in caplog.records if "what was served before still is" in record.message]
    assert len(events) == 1


@pytest.mark.parametrize(
    "step",
    [
        "bundle.store.sync",
        "bundle.store.read_bundle",
        "bundle.store.tempfile.mkdtemp",
        "bundle.store.Path.rename",
        "api.repository.unpack",
        "api.repository._receive",
    ],
)
def test_each_step_of_an_install_that_fails_leaves_nothing(server, tmp_path, root, monkeypatch, step):
    sent = archive(tmp_path, affine("wine", 2))

    def fails(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(f"service.{step}", fails)
        answer = server.request("PUT", "/repository/wine/versions/2", content=sent)
    problem(answer, 507, RepositoryUnwritable.code)
    assert sorted(entry.name for entry in (root / "wine").iterdir()) == ["1"]
    assert answering(server) == 1
    assert server.request("PUT", "/repository/wine/versions/2", content=sent).is_success


def test_a_full_disk_is_told_and_leaves_nothing(server, tmp_path, root, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.api.repository.unpack", full)
    answer = server.request("PUT", "/repository/wine/versions/2", content=archive(tmp_path, affine("wine", 2)))
    detail = problem(answer, 507, RepositoryUnwritable.code)["detail"]
    assert "No space left on device" in detail
    assert str(root) not in detail
    assert sorted(entry.name for entry in (root / "wine").iterdir()) == ["1"]


class TestAliases:
    @pytest.fixture
    def server(self, root, serving):
        install(root, traced(affine("wine", 2)), affine("wine", 3))
        return serving(root, default_flow="wine")

    def set_to(self, server, alias, version):
        return server.request("PUT", f"/repository/wine/aliases/{alias}", json={"version": version})

    def test_an_alias_stands_wherever_a_version_does(self, server):
        answer = self.set_to(server, "stable", 2)
        expected = {"name": "wine", "alias": "stable", "version": 2, "kept": True}
        assert (answer.status_code, answer.json()) == (200, expected)
        row = {"x": [[1, 2]]}
        asked = [
            server.post("/models/wine/versions/stable/logprob", json=row),
            server.post("/logprob", json={**row, "version": "stable"}),
            server.post("/logprob", json={"x": [[1, 2]], "version": "stable", "model": "wine"}),
            server.post("/encode?version=stable", content=b"1,2\n", headers={"content-type": "text/csv"}),
            server.post("/trace", json={**row, "version": "stable"}),
            server.get("/sample?version=stable"),
            server.get("/models/wine/versions/stable/sample"),
            server.get("/models/wine/versions/stable"),
            server.post("/models/wine/versions/stable/logprob", json={**row, "version": 2}),
            server.post("/models/wine/versions/2/logprob", json={**row, "version": "stable"}),
        ]
        assert [answer.json().get("version") for answer in asked] == [2] * len(asked)
        bits = [server.post("/logprob", json={**row, "version": v}).json()["log_prob"] for v in (2, "stable")]
        assert bits[0] == bits[1]
        contradiction = server.post("/models/wine/versions/stable/logprob", json={**row, "version": 3})
        problem(contradiction, 422, "invalid_argument")

    def test_an_alias_moves_at_once_and_outlives_the_server(self, server, root, serving):
        self.set_to(server, "stable", 2)
        self.set_to(server, "canary", 3)
        assert answering(server, version="stable") == 2
        self.set_to(server, "stable", 3)
        assert answering(server, version="stable") == 3
        assert json.loads((root / "wine" / "aliases.json").read_text()) == {"canary": 3, "stable": 3}
        again = serving(root, default_flow="wine")
        assert answering(again, version="stable") == 3
        assert again.get("/repository").json()["flows"][0]["aliases"] == {"canary": 3, "stable": 3}
        assert server.request("DELETE", "/repository/wine/aliases/canary").json()["version"] is None
        problem(server.get("/sample?version=canary"), 404, "version_not_found")
        problem(server.request("DELETE", "/repository/wine/aliases/canary"), 404, "version_not_found")

    def test_over_a_read_only_mount_it_is_in_memory(self, server, root, monkeypatch, caplog):
        self.set_to(server, "canary", 3)

        def read_only(*_):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("service.engine.changes.write_aliases", read_only)
        assert self.set_to(server, "stable", 2).json()["kept"] is False
        assert self.set_to(server, "other", 1).json()["kept"] is False
        assert server.request("DELETE", "/repository/wine/aliases/canary").json()["kept"] is False
        server.app.state.changes.apply(Reload())
        assert answering(server, version="stable") == 2
        assert answering(server, version="other") == 1
        problem(server.get("/sample?version=canary"), 404, "version_not_found")
        assert "in memory alone" in caplog.text
        assert json.loads((root / "wine" / "aliases.json").read_text()) == {"canary": 3}

    def test_a_version_with_an_alias_stays(self, server):
        self.set_to(server, "stable", 2)
        problem(server.post("/repository/wine/versions/2/unload"), 409, "repository_conflict")
        problem(server.request("DELETE", "/repository/wine/versions/2"), 409, "repository_conflict")
        assert answering(server, version="stable") == 2

    def test_what_is_refused(self, server):
        problem(self.set_to(server, "stable", 9), 404, "version_not_found")
        problem(self.set_to(server, "Stable", 2), 422, "invalid_argument")
        problem(self.set_to(server, "2", 2), 422, "invalid_argument")
        for body in (b"", b"nonsense"):
            problem(server.request("PUT", "/repository/wine/aliases/a", content=body), 400, "malformed_body")
        for version in (True, "2", 2.0, None, 0, -1, 1 << 60):
            problem(self.set_to(server, "stable", version), 422, "invalid_argument")
        problem(server.request("PUT", "/repository/none/aliases/a", json={"version": 1}), 404, "version_not_found")
        problem(server.post("/logprob", json={"x": [[1, 2]], "version": "none"}), 404, "version_not_found")
        for version in ("", "Stable", "2 ", True, 1.5, 0):
            problem(server.post("/logprob", json={"x": [[1, 2]], "version": version}), 422, "invalid_argument")


class TestProtocol:
    def test_index_load_and_unload(self, server, root):
        install(root, affine("wine", 2))
        entry = {"name": "wine", "version": "1", "state": "READY", "reason": ""}
        other = {"name": "wine", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert server.post("/v2/repository/index").json() == [entry, other]
        assert server.post("/v2/repository/index", json={"ready": True}).json() == [entry]
        assert server.post("/v2/repository/models/wine/load").json() == {}
        assert answering(server) == 2
        assert server.post("/v2/repository/models/wine/unload").json() == {}
        assert server.post("/v2/repository/index", json={"ready": True}).json() == []

    def test_errors_are_plain(self, server):
        answer = server.post("/v2/repository/models/none/load")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert list(answer.json()) == ["error"]
        assert server.post("/v2/repository/index", content=b"[]").status_code == 400


def test_what_is_told_of_a_version_follows_it(server, tmp_path, root, caplog):
    caplog.set_level(logging.INFO)
    parts = affine("wine", 2)
    calibration = parts.manifest.calibration.model_copy(update={"warning": "of another version"})
    other = type(parts)(
        parts.manifest.model_copy(update={"calibration": calibration, "description": "another"}),
        parts.files,
        parts.forward,
        parts.inverse,
    )
    before = server.get("/openapi.json").content
    assert server.request("PUT", "/repository/wine/versions/2", content=archive(tmp_path, other)).is_success
    assert "wine version 2 is served" in caplog.text
    document = server.get("/models/wine").json()
    assert (document["version"], document["versions"], document["default"]) == (2, [1, 2], True)
    assert (document["calibration"]["warning"], document["description"]) == ("of another version", "another")
    assert [flow["version"] for flow in server.get("/health/ready").json()["flows"]] == [1, 2]
    assert server.get("/openapi.json").content == before
    assert 'flow_state{flow="wine",state="ready",version="2"} 1.0' in server.get("/metrics").text
    assert server.request("DELETE", "/repository/wine/versions/2").is_success
    text = server.get("/metrics").text
    assert 'flow_state{flow="wine",state="ready",version="2"} 0.0' in text
    assert 'flow_provider{flow="wine",provider="CPUExecutionProvider",version="2"} 0.0' in text
    assert [flow["version"] for flow in server.get("/health/ready").json()["flows"]] == [1]
    assert np.isfinite(server.post("/logprob", json={"x": [[1, 2]]}).json()["log_prob"]).all()
