from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pushforward.cli.flow_sources import SourceOptions, open_source
from pushforward.cli.group import cli
from service.access.keys import KeyRing, parse_keys
from service.errors import InvalidArgument, PushforwardError


def run(*options):
    return CliRunner().invoke(cli, ["key", *map(str, options)])


def test_a_key_and_its_line_are_printed():
    done = run("alice", "--scope", "infer", "--scope", "metrics", "--requests-per-minute", 5, "--rows-per-minute", 70)
    assert done.exit_code == 0
    key, line = done.stdout.splitlines()
    (stored,) = parse_keys(line, "keys")
    assert (stored.name, stored.scopes) == ("alice", {"infer", "metrics"})
    assert (stored.requests_per_minute, stored.rows_per_minute) == (5, 70)
    assert KeyRing([stored]).find(key.encode()) is not None
    assert key not in line


def test_a_key_is_for_flows_unless_it_is_said():
    assert re.fullmatch(r"client infer sha256:[0-9a-f]{64}", run().stdout.splitlines()[1])


def test_a_line_is_added_to_a_file_that_its_owner_alone_may_read(tmp_path):
    file = tmp_path / "keys"
    assert run("one", "--add-to", file).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text().rstrip())  # without a last line end
    key = run("two", "--add-to", file).stdout.splitlines()[0]
    assert [each.name for each in parse_keys(file.read_text(), "keys")] == ["one", "two"]
    assert key not in file.read_text()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"one infer sha256:" + b"0" * 64, "stands there twice"), (b"nothing", "line 1"), (b"\xff", "no text in UTF-8")],
)
def test_a_file_that_is_wrong_stays_as_it_is(tmp_path, content, why):
    file = tmp_path / "keys"
    file.write_bytes(content)
    done = run("one", "--add-to", file)
    assert isinstance(done.exception, InvalidArgument)
    assert why in done.exception.detail
    assert done.stdout == ""
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    done = run("one", "--add-to", tmp_path / "none" / "keys")
    assert isinstance(done.exception, InvalidArgument)
    assert "cannot be added" in done.exception.detail
    assert done.stdout == ""  # a key that no server has would be of no use


def test_options_do_not_show_their_key(tmp_path):
    options = SourceOptions(bundle=tmp_path, key="pf_secret")
    assert "pf_secret" not in repr(options)
    with pytest.raises(PushforwardError, match="--key is for a server"), open_source(options):
        pass


def test_no_file_has_the_line_of_a_key_that_nobody_has_seen(tmp_path):
    file = tmp_path / "keys"
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pushforward", "key", "one", "--add-to", str(file)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")
    assert file.read_text() == ""
    assert run("one", "--add-to", file).exit_code == 0


def test_what_is_no_regular_file_is_waited_for_by_nobody(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        done = run("one", "--add-to", path)
        assert isinstance(done.exception, InvalidArgument)
        assert "no regular file" in done.exception.detail
        assert done.stdout == ""
