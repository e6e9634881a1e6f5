"""Imports run one way, and serving never meets torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layer -> the layers it may import. The longest prefix of a module's name is its layer.
ALLOWED = {
    "service.errors": set(),
    "service.bundle": {"service.errors"},
    "service.settings": {"service.bundle", "service.errors"},
    "service.engine": {"service.bundle", "service.errors"},
    "service.pictures": {"service.engine", "service.bundle", "service.errors"},
    "service.api": {"service.pictures", "service.engine", "service.bundle", "service.errors", "service.settings"},
    "service.app": {"service.api", "service.engine", "service.bundle", "service.errors", "service.settings"},
    "service.cycle": {"service.api"},
    "service.protocol": {"service.cycle", "service.api", "service.errors"},
    "service.preflight": {"service.bundle", "service.errors", "service.settings"},
    "service.slots": {"service.preflight", "service.settings"},
    "service.supervisor": {
        "service.slots",
        "service.preflight",
        "service.engine",
        "service.errors",
        "service.settings",
    },
    "service.worker": {
        "service.server",
        "service.slots",
        "service.preflight",
        "service.engine",
        "service.errors",
        "service.settings",
    },
    "service.server": {
        "service.app",
        "service.preflight",
        "service.protocol",
        "service.bundle",
        "service.api",
        "service.engine",
        "service.errors",
        "service.settings",
    },
    "service": set(),
    "models": {"service.bundle", "service.errors"},
    "pushforward.sources": {"pushforward", "service.pictures", "service.engine", "service.bundle", "service.errors"},
    "pushforward.options": {"pushforward", "pushforward.sources", "service.errors"},
    "pushforward.commands": {
        "pushforward",
        "pushforward.options",
        "pushforward.sources",
        "models",
        "service.server",
        "service.supervisor",
        "service.preflight",
        "service.settings",
        "service.engine",
        "service.bundle",
        "service.errors",
    },
    "pushforward": {"service.errors"},
}


UNWANTED = {"torch", "models", "zuko", "onnx", "scipy", "matplotlib", "PIL"}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("pushforward", "service", "models")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def layer(module: str) -> str | None:
    prefixes = (".".join(module.split(".")[:n]) for n in range(module.count(".") + 1, 0, -1))
    return next((p for p in prefixes if p in ALLOWED), None)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def targets(module: str, path: Path, known: set[str]) -> set[str]:
    """The project's own modules that one module imports; a package imported only for a module in it is left out."""
    own = {name for name in imports(path) if name in known} - {module}
    return {name for name in own if not any(other.startswith(name + ".") for other in own)}


def test_every_import_runs_one_way():
    known = modules()
    wrong = [
        f"{module} imports {target}"
        for module, path in known.items()
        for target in targets(module, path, set(known))
        if layer(target) != layer(module) and layer(target) not in ALLOWED[layer(module) or ""]
    ]
    assert wrong == []


def test_no_module_is_in_a_cycle():
    known = modules()
    graph = {module: targets(module, path, set(known)) for module, path in known.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in graph[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_test_would_see_a_wrong_arrow(tmp_path: Path):
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from service.api import native\n")
    assert "service.api.native" in targets("service.engine.flow", path, set(modules()))
    assert "service.api" not in ALLOWED["service.engine"]


@pytest.mark.parametrize(
    "module", ["service.app", "service.server", "pushforward", "pushforward.cli", "pushforward.commands.serve"]
)
def test_serving_loads_neither_torch_nor_models(module: str):
    script = f"import sys, {module}; print(*{UNWANTED} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert loaded.stdout.split() == []


def test_a_supervisor_loads_nothing_that_serves():
    script = "import sys, service.supervisor; print(*{'uvicorn', 'fastapi', 'onnxruntime'} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("module", ["service.engine.runtime", "models.export"])
def test_telemetry_of_onnxruntime_is_off_before_it_is_imported(module: str):
    script = f"""
import os, sys
class Watch:
    def find_spec(name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch)
import {module}
import onnxruntime
"""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert done.stdout.split() == ["1"]


def test_no_module_is_long():
    long = [m for m, path in modules().items() if len(path.read_text().splitlines()) > 400]
    assert long == []
