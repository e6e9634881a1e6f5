"""Imports run one way, and serving never meets torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Room -> the rooms whose modules it may import. The longest prefix of a module's name is its room.
ALLOWED = {
    "service": set(),
    "service.errors": set(),
    "service.plan": set(),
    "service.remembered": set(),
    "service.tabular": set(),
    "service.access": {"service.errors"},
    "service.children": set(),
    "service.exchange": {"service.access", "service.errors", "service.plan"},
    "service.guard": {"service.errors"},
    "service.bundle": {"service.errors"},
    "service.settings": {"service.bundle", "service.errors"},
    "service.onnx": {"service.bundle", "service.errors"},
    "service.engine": {
        "service.bundle",
        "service.children",
        "service.engine.batching",
        "service.engine.isolation",
        "service.engine.metrics",
        "service.engine.runtime",
        "service.engine.verbs",
        "service.errors",
        "service.plan",
    },
    "service.engine.verbs": {
        "service.bundle",
        "service.engine.runtime",
        "service.engine.sampling",
        "service.errors",
        "service.onnx",
        "service.plan",
    },
    "service.engine.batching": {"service.engine.metrics", "service.errors", "service.plan"},
    "service.engine.runtime": {"service.bundle", "service.errors", "service.onnx", "service.plan"},
    "service.engine.sampling": {"service.bundle", "service.plan"},
    "service.engine.isolation": {
        "service.bundle",
        "service.children",
        "service.engine.runtime",
        "service.errors",
        "service.onnx",
        "service.plan",
    },
    "service.engine.metrics": {"service.children", "service.onnx", "service.plan"},
    "service.pictures": {"service.errors"},
    "service.drawing": {"service.engine.verbs", "service.pictures", "service.plan"},
    "service.api.codecs": {"service.errors", "service.exchange", "service.plan", "service.tabular"},
    "service.api.native": {
        "service.access",
        "service.api.codecs",
        "service.bundle",
        "service.drawing",
        "service.engine",
        "service.engine.sampling",
        "service.engine.verbs",
        "service.errors",
        "service.exchange",
        "service.guard",
        "service.pictures",
        "service.plan",
        "service.tabular",
    },
    "service.api": {
        "service.access",
        "service.api.codecs",
        "service.api.native",
        "service.bundle",
        "service.engine",
        "service.engine.batching",
        "service.engine.metrics",
        "service.engine.sampling",
        "service.engine.verbs",
        "service.errors",
        "service.exchange",
        "service.guard",
        "service.plan",
        "service.remembered",
    },
    "service.console": set(),
    "service.http": {
        "service.access",
        "service.api",
        "service.errors",
        "service.exchange",
        "service.guard",
        "service.remembered",
    },
    "service.app": {
        "service.access",
        "service.api",
        "service.api.native",
        "service.bundle",
        "service.console",
        "service.engine",
        "service.engine.batching",
        "service.engine.isolation",
        "service.engine.metrics",
        "service.engine.runtime",
        "service.errors",
        "service.guard",
        "service.http",
        "service.settings",
    },
    "service.process": {
        "service.access",
        "service.app",
        "service.bundle",
        "service.children",
        "service.engine",
        "service.engine.metrics",
        "service.errors",
        "service.http",
        "service.settings",
    },
    "models": {"models.flows", "models.flows.images", "service.bundle", "service.errors"},
    "models.data": {"models", "service.bundle", "service.errors", "service.tabular"},
    "models.flows": {"service.bundle", "service.errors"},
    "models.flows.images": {"models.flows", "service.errors"},
    "models.export": {"models.export.rewrites", "models.flows", "service.bundle", "service.errors", "service.onnx"},
    "models.export.rewrites": {"models.flows"},
    "models.importing": {
        "models.export",
        "models.flows",
        "models.flows.images",
        "service.bundle",
        "service.errors",
        "service.onnx",
    },
    "models.evaluation": {"models.data", "service.bundle", "service.errors"},
    "models.training": {
        "models",
        "models.data",
        "models.evaluation",
        "models.export",
        "models.flows",
        "service.bundle",
        "service.errors",
    },
    "models.inference": {
        "models",
        "models.data",
        "models.evaluation",
        "models.export",
        "models.flows",
        "models.importing",
        "models.training",
        "service.bundle",
        "service.engine.verbs",
        "service.errors",
    },
    "models.recipes": set(),
    "models.zoo": {
        "models",
        "models.data",
        "models.evaluation",
        "models.export",
        "models.flows",
        "models.training",
        "service.bundle",
        "service.errors",
    },
    "pushforward": {"pushforward.cli", "pushforward.client"},
    "pushforward.client": {"service.errors", "service.tabular"},
    "pushforward.cli": {
        "models",
        "models.data",
        "pushforward.client",
        "service.bundle",
        "service.drawing",
        "service.engine",
        "service.engine.verbs",
        "service.errors",
        "service.pictures",
        "service.plan",
        "service.tabular",
    },
    "pushforward.commands": {
        "models",
        "models.evaluation",
        "models.importing",
        "models.inference",
        "models.training",
        "pushforward.cli",
        "pushforward.client",
        "service.access",
        "service.bundle",
        "service.engine",
        "service.engine.verbs",
        "service.errors",
        "service.plan",
        "service.process",
        "service.settings",
        "service.tabular",
    },
}


UNWANTED = {"torch", "models", "zuko", "onnx", "scipy", "matplotlib", "PIL"}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("pushforward", "service", "models")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def room(module: str) -> str | None:
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
        if room(target) != room(module) and room(target) not in ALLOWED[room(module) or ""]
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


def test_no_two_rooms_import_each_other():
    known = modules()
    arrows = {
        (room(module), room(target)) for module, path in known.items() for target in targets(module, path, set(known))
    }
    assert [(a, b) for a, b in arrows if a != b and (b, a) in arrows] == []


def test_every_room_is_there_and_may_import_no_more_than_it_does():
    known = modules()
    arrows = {
        (room(module), room(target)) for module, path in known.items() for target in targets(module, path, set(known))
    }
    assert {room(module) for module in known} == set(ALLOWED)
    assert [(a, b) for a, allowed in ALLOWED.items() for b in sorted(allowed) if (a, b) not in arrows] == []


def test_the_test_would_see_a_wrong_arrow(tmp_path: Path):
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from service.api import native\n")
    assert "service.api.native" in targets("service.engine.flow", path, set(modules()))
    assert "service.api" not in ALLOWED["service.engine"]


@pytest.mark.parametrize(
    "module", ["service.app", "service.process.server", "pushforward", "pushforward.cli", "pushforward.commands.serve"]
)
def test_serving_loads_neither_torch_nor_models(module: str):
    script = f"import sys, {module}; print(*{UNWANTED} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert loaded.stdout.split() == []


def test_evaluating_a_bundle_loads_no_torch():
    modules = "models.evaluation.evaluate, models.evaluation.page, models.data.flow_rows, pushforward.commands.evaluate"
    script = f"import sys, {modules}; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert loaded.stdout.strip() == "False"


def test_a_supervisor_loads_nothing_that_serves():
    script = (
        "import sys, service.process.supervisor; print(*{'uvicorn', 'fastapi', 'onnxruntime'} & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("module", ["service.engine.runtime.graph", "service.onnx.session", "models.export.export"])
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


LONG: dict[str, str] = {
    "pushforward.client.client": "one class: a method for each call, and what it takes, gives and raises",
    "service.api.driver": "one way through a request's plan: its methods go on with the same tasks and the same turn",
    "service.http.connection": "one state machine: each of its methods works on the state of the same connection",
}
"""Modules of more than 600 lines, each with the one purpose that keeps it whole."""


def test_a_module_over_600_lines_says_why_it_is_one():
    assert {m for m, path in modules().items() if len(path.read_text().splitlines()) > 600} == set(LONG)
