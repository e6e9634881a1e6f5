from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.children import memory_file, module_command


def test_a_module_is_run_by_this_python_with_its_arguments_as_text(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "shows.py").write_text("import sys; print(*sys.argv[1:])")
    done = subprocess.run(module_command("shows", 7, "x"), check=True, capture_output=True, text=True)
    assert done.stdout == "7 x\n"


def test_a_module_of_the_working_directory_is_not_found_where_it_does_not_count_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "shows.py").write_text("")
    assert subprocess.run(module_command("shows"), capture_output=True, check=False).returncode == 1


def test_a_memory_file_holds_zeros_and_is_gone_when_it_is_closed():
    with memory_file("test", 1 << 40) as file:
        assert os.fstat(file.fileno()).st_size == 1 << 40
        assert os.fstat(file.fileno()).st_blocks == 0
        assert file.read(3) == b"\0\0\0"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize(("parent", "status"), [("os.getppid()", 0), ("1 << 30", 1)])
def test_a_process_whose_parent_has_ended_ends_at_once(parent, status):
    script = f"import os; from service.children import end_with_parent; end_with_parent({parent})"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == status
