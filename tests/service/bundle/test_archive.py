"""The tar of a bundle: a stranger's archive writes nothing but a bundle's files."""

from __future__ import annotations

import io
import tarfile

import pytest

from service.bundle.archive import unpack, write_archive
from service.bundle.store import read_bundle
from service.errors import MalformedBody, UnexpectedFile
from tests.service.bundles import affine, install


@pytest.fixture
def bundle(tmp_path):
    return install(tmp_path / "repository", affine()).path("affine", 1)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    return made


def packed(*members, mode="w"):
    """A tar of (name, content) pairs, or of ready-made headers."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    buffer.seek(0)
    return buffer


def test_a_bundle_comes_back(bundle, folder):
    buffer = io.BytesIO()
    write_archive(bundle, buffer)
    buffer.seek(0)
    unpack(buffer, folder)
    assert read_bundle(folder).digest == read_bundle(bundle).digest
    assert b"root" not in buffer.getvalue()[:512]  # whose machine it was is nobody's business


@pytest.mark.parametrize("prefix", ["", "./", "1/", "./1/"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_other_tools_write_is_read(bundle, folder, prefix, form):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        if prefix:
            archive.add(bundle, arcname=prefix, recursive=False)
        for file in bundle.iterdir():
            archive.add(file, arcname=prefix + file.name)
    buffer.seek(0)
    unpack(buffer, folder)
    assert read_bundle(folder).digest == read_bundle(bundle).digest


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


WRONG = {
    "a symbolic link": [special("flow.json", tarfile.SYMTYPE, "/etc/passwd")],
    "a hard link": [("flow.json", b"{}"), special("forward.onnx", tarfile.LNKTYPE, "flow.json")],
    "a device": [special("flow.json", tarfile.CHRTYPE)],
    "a pipe": [special("flow.json", tarfile.FIFOTYPE)],
    "a path outside": [("../flow.json", b"{}")],
    "an absolute path": [("/flow.json", b"{}")],
    "a path that goes up and down": [("1/../../flow.json", b"{}")],
    "a deep path": [("a/b/flow.json", b"{}")],
    "another file": [("flow.json", b"{}"), ("install.sh", b"")],
    "two folders": [("1/flow.json", b"{}"), ("2/forward.onnx", b"")],
    "a file twice": [("flow.json", b"{}"), ("flow.json", b"{}")],
    "many members": [special(f"d{at}", tarfile.DIRTYPE) for at in range(100)],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_bundle_is_refused(folder, name, tmp_path):
    with pytest.raises(UnexpectedFile):
        unpack(packed(*WRONG[name]), folder)
    assert {path.name for path in tmp_path.rglob("*")} <= {"made", "flow.json", "forward.onnx"}
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 512, b"\0" * 2048, b"nonsense" * 1000])
def test_what_is_no_tar_is_refused(folder, data):
    with pytest.raises(MalformedBody):
        unpack(io.BytesIO(data), folder)


@pytest.mark.parametrize("length", [511, 512, 700, 1024])
def test_a_tar_that_ends_too_early_is_refused(folder, bundle, length):
    whole = io.BytesIO()
    write_archive(bundle, whole)
    with pytest.raises(MalformedBody):
        unpack(io.BytesIO(whole.getvalue()[:length]), folder)


def test_a_header_may_not_take_memory(folder):
    info = tarfile.TarInfo("flow.json")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    buffer.seek(0)
    with pytest.raises(MalformedBody, match="header"):
        unpack(buffer, folder)


def test_a_member_over_the_cap_is_refused_before_it_is_written(folder, monkeypatch):
    monkeypatch.setattr("service.bundle.archive.MAX_FILE_BYTES", 100)
    with pytest.raises(UnexpectedFile, match="the cap is 100"):
        unpack(packed(("flow.json", b"x" * 101)), folder)
    assert list(folder.iterdir()) == []
