from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from pushforward.cli.row_output import CsvWriter, NpyWriter, open_output, open_writer
from pushforward.client.errors import InvalidInput

X = np.array([[0.1, 1e16], [-0.0, 1e-45]], np.float32)
LOG_PROB = np.array([-1.5, -np.inf], np.float32)


def test_csv():
    stream = io.BytesIO()
    table = CsvWriter(stream, ["t", "a", "b, c", "log_prob"])
    table.write(X, LOG_PROB, before=[np.array([0, 0.5], np.float32)])
    table.write(X[:1], LOG_PROB[:1], before=[np.ones(1, np.float32)])
    table.close()
    assert stream.getvalue().decode().splitlines() == [
        't,a,"b, c",log_prob',
        "0.0,0.1,1e+16,-1.5",
        "0.5,-0.0,1e-45,-inf",
        "1.0,0.1,1e+16,-1.5",
    ]


def test_csv_of_images_has_a_column_for_each_value():
    stream = io.BytesIO()
    CsvWriter(stream, ["x0", "x1", "log_prob"]).write(X.reshape(2, 2, 1, 1), LOG_PROB)
    assert stream.getvalue().splitlines()[1] == b"0.1,1e+16,-1.5"


def test_nothing_is_written_before_the_first_rows():
    stream = io.BytesIO()
    CsvWriter(stream, ["a"]).close()
    assert stream.getvalue() == b""


def test_npy_holds_the_main_array():
    stream = io.BytesIO()
    table = NpyWriter(stream)
    table.write(X, LOG_PROB)
    table.write(X[:1], LOG_PROB[:1])
    table.close()
    stream.seek(0)
    assert np.load(stream).tobytes() == np.concatenate([X, X[:1]]).tobytes()


def test_npy_goes_into_a_pipe():
    """A pipe has no position, which NumPy's own writer asks a buffered file for."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as end, os.fdopen(writing, "wb") as stream:
        table = NpyWriter(stream)
        table.write(X, LOG_PROB)
        table.close()
        stream.close()
        np.testing.assert_array_equal(np.load(io.BytesIO(end.read())), X)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out.csv"
    target.write_bytes(b"before")
    with pytest.raises(TypeError, match="bytes-like"), open_output(str(target)) as stream:
        print(stream.write(b"half"), file=stream)
    assert target.read_bytes() == b"before"
    with open_output(str(target)) as stream:
        stream.write(b"whole")
        assert target.read_bytes() == b"before"
    assert target.read_bytes() == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_a_device_is_written_to_as_it_stands():
    with open_output(os.devnull) as stream:
        stream.write(b"text")
    assert not Path(os.devnull).is_file()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with open_output(str(tmp_path / "link")) as stream:
        stream.write(b"text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"text"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be written: No such file"), open_output(str(tmp_path / "no" / "x")):
        pass


@pytest.mark.parametrize(
    ("name", "form", "npy"),
    [
        ("a.npy", None, True),
        ("a.NPY", None, True),
        ("a.csv", None, False),
        ("a.npy.csv", None, False),
        ("a", None, False),
        (".a", None, False),
        ("a", "npy", True),
        ("a.npy", "csv", False),
        ("a.parquet", "npy", True),
        ("a.parquet", "csv", False),
    ],
)
def test_the_form_goes_by_the_suffix(tmp_path, name, form, npy):
    with open_writer(str(tmp_path / name), form, ["a", "b"]) as table:
        table.write(X)
    assert (tmp_path / name).read_bytes().startswith(b"\x93NUMPY") is npy


@pytest.mark.parametrize("name", ["s.parquet", "s.txt", "s.csv.gz", "s.npz", "s.npy~", "s.2026"])
def test_a_suffix_of_no_known_format_is_refused(tmp_path, name):
    with (
        pytest.raises(InvalidInput, match=r"written as \.csv or \.npy"),
        open_writer(str(tmp_path / name), None, ["a"]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_npy_is_not_written_to_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(InvalidInput, match="terminal"), open_writer("-", "npy", ["a"]):
        pass
