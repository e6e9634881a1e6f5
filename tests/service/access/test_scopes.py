from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from service.access.scopes import OPEN_PATHS, required_scope
from service.api.endpoints import PREFIXES
from service.app import create_app
from service.settings import Settings

VERBS = {
    f"{p}/{v}"
    for p in PREFIXES
    for v in ["logprob", "encode", "decode", "interpolate", "edit", "trace", "weights", "posterior", "sample"]
}


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/health/live", None),
        ("/health/ready", None),
        ("/v2/health/ready", None),
        ("/openapi.json", None),
        ("/", None),
        ("/logprob", "infer"),
        ("/models", "infer"),
        ("/models/metrics/logprob", "infer"),
        ("/v2", "infer"),
        ("/v2/models/two-moons/infer", "infer"),
        ("/metrics", "metrics"),
        ("/repository", "admin"),
        ("/repository/two-moons/versions/1", "admin"),
        ("/v2/repository/index", "admin"),
        ("/v2/repository/models/two-moons/load", "admin"),
        ("/repositories", "infer"),
        ("/health/live/", "infer"),
        ("/HEALTH/LIVE", "infer"),
        ("//health/live", "infer"),
        ("/nowhere", "infer"),
        ("/console/../logprob", "infer"),
        ("/docs/..", "infer"),
        ("/console/app.js\n", "infer"),
        ("/console", "infer"),
        ("", "infer"),
    ],
)
def test_a_path_needs_its_scope(path, scope):
    assert required_scope(path) == scope


def test_every_route_has_the_scope_of_what_it_does():
    routes = [r for r in create_app(Settings(repository=Path("unused"))).routes if getattr(r, "path", None)]
    found = {route.path: required_scope(route.path) for route in routes}
    opened = {path for path, scope in found.items() if scope is None}
    assert {path for path in opened if not path.startswith(("/console/", "/docs/", "/redoc/"))} <= OPEN_PATHS
    assert {"/console/app.js", "/console/lib/api.js", "/docs/swagger-ui-bundle.js"} <= opened
    assert {path for path, scope in found.items() if scope == "metrics"} == {"/metrics"}
    for route in routes:
        methods = getattr(route, "methods", None) or {"GET"}
        if isinstance(route, APIRoute) and not methods <= {"GET", "HEAD"} and route.path not in VERBS:
            assert found[route.path] == "admin", route.path  # it changes what is served
