"""The table of verbs is what the application routes and what a connection answers by itself."""

from __future__ import annotations

import pytest

from service.api.endpoints import PREFIXES, endpoints
from service.api.grouped.verbs import GroupVerbs
from service.api.native.verbs import Verbs
from service.http.heads import RequestHeads


@pytest.fixture(scope="module")
def table(client):
    registry = client.app.state.registry
    return endpoints(Verbs(registry, 100, 100), GroupVerbs(registry, 100))


def test_every_endpoint_is_a_route_and_a_direct_request_under_each_prefix(client, table):
    routes = {(method, route.path) for route in client.app.routes for method in route.methods}
    heads = RequestHeads(table, 100)
    for prefix in PREFIXES:
        for endpoint in table:
            template = prefix + endpoint.path
            assert (endpoint.method, template) in routes
            url = template.format(name="wine", version=3).encode()
            known = heads.find(endpoint.method.encode(), url, [], keep_alive=True)
            assert known is not None
            assert known.request.call[1:] == (
                "wine" if "name" in prefix else None,
                "3" if "version" in prefix else None,
                template,
            )
            assert known.request.call.endpoint is endpoint


def test_no_two_endpoints_are_at_one_place(table):
    assert len({(endpoint.method, endpoint.path) for endpoint in table}) == len(table)
    assert {endpoint.path for endpoint in table if endpoint.group_verb is not None} == {
        *("/logprob", "/sample", "/encode", "/decode", "/interpolate", "/edit", "/trace")
    }
