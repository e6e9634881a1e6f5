from __future__ import annotations

import os

import pytest

from service.engine.runtime.memory import usable_memory

MACHINE = 16 << 30


@pytest.fixture(autouse=True)
def sixteen_gibibytes(monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": MACHINE // 4096}.__getitem__)


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("", {}, MACHINE),
        ("0::/\n", {"memory.max": "536870912\n"}, 512 << 20),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/pod/a\n", {"pod/memory.max": "1073741824", "pod/a/memory.max": "max"}, 1 << 30),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "1073741824"}, 1 << 30),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("4:cpu:/a\n", {"memory/memory.limit_in_bytes": "1073741824"}, MACHINE),
    ],
)
def test_the_least_limit_holds(tmp_path, group, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert usable_memory(tmp_path) == expected
