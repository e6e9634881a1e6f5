"""The OpenAPI document: what each route takes and gives, said beside it and not derived from a function's signature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from service.access.scopes import required_scope
from service.api import problems
from service.api.codecs import wire
from service.api.codecs.query import LISTS
from service.api.native.fields import VerbRequest
from service.api.native.schemas import ProblemDocument
from service.bundle.aliases import ALIAS_PATTERN

__all__ = ["describe_route", "install", "path_parameters", "query_parameters"]

_VERSION: Final = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": ALIAS_PATTERN}]}
"""A version, or an alias that names one."""

_EXAMPLES: Final[dict[str, Any]] = {"name": "two-moons", "version": 1, "alias": "stable", "n": 3, "seed": 7}

_KEY: Final = "key"

_JSON, *_TABLES = (name for name in wire.CODECS if name != wire.PICTURE.media_type)
_TEXTS: Final = {"text/csv": ("{}\n", ","), "application/x-ndjson": ("[{}]\n", ", ")}
"""Media types whose bodies are texts: how a line is written, and what stands between its numbers."""


def describe_route(
    answer: type[BaseModel] | str,
    body: type[BaseModel] | None = None,
    parameters: Iterable[dict[str, Any]] = (),
    main: str | None = None,
    *,
    drawn: bool = False,
    media_type: str | None = None,
) -> dict[str, Any]:
    """What OpenAPI says of one route.

    Args:
        answer: the model of its answer, or the media type of its text.
        body: the model of its body, if it takes one.
        parameters: in path and query.
        media_type: of a body that is no JSON object and no verb's.
        main: of a verb, the argument that a body is which is not JSON; empty for a verb without a body.
        drawn: whether there is a picture of the answer.
    """
    content = _content(answer) | ({} if main is None else _tables())
    if drawn:
        content[wire.PICTURE.media_type] = {"schema": {"type": "string", "format": "binary"}}
    said: dict[str, Any] = {
        "responses": {
            "200": {"description": "The answer", "content": content},
            "default": {
                "description": "An error (RFC 9457)",
                "content": {problems.MEDIA_TYPE: {"schema": _reference(ProblemDocument)}},
            },
        }
    }
    if body is not None:
        tables = {} if main is None else _tables(_example(body).get(main))
        said["requestBody"] = {"required": True, "content": _content(body) | tables}
    if media_type is not None:
        content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
        said["requestBody"] = {"required": True, "content": content}
    if listed := list(parameters):
        said["parameters"] = listed
    return said


def path_parameters(path: str) -> list[dict[str, Any]]:
    """The parameters within a path, with examples that run against the shipped flows."""
    schemas = {"name": {"type": "string"}, "version": _VERSION, "alias": {"type": "string", "pattern": ALIAS_PATTERN}}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema, "example": _EXAMPLES[name]}
        for name, schema in schemas.items()
        if "{" + name + "}" in path
    ]


def query_parameters(schema: type[VerbRequest], prefix: str, main: str = "") -> list[dict[str, Any]]:
    """The fields of a request as query parameters; a name that stands in the path already is left out.

    Args:
        schema: of the request.
        prefix: of the path.
        main: the argument that a body is which is not JSON: the others stand in the query beside such a body alone.
    """
    lists = dict.fromkeys(LISTS, "numbers with commas between them") | {"return": "names with commas between them"}
    described: list[dict[str, Any]] = []
    for name, field in schema.model_json_schema()["properties"].items():
        if name == main or (prefix and name in ("model", "version") and ("{version}" in prefix or name == "model")):
            continue
        value = {"type": "string"} if name in lists else {k: v for k, v in field.items() if k != "description"}
        said = lists.get(name) or field.get("description", "")
        beside = "only with a body that is not JSON: " if main else ""
        parameter = {"name": name, "in": "query", "required": False, "schema": value, "description": beside + said}
        described.append(parameter | ({"example": _EXAMPLES[name]} if name in ("n", "seed") and not main else {}))
    return described


def install(app: FastAPI, models: Iterable[type[BaseModel]], *, keys: bool = False) -> None:
    """Let `app.openapi` give the routes together with the models that they refer to.

    Args:
        app: the application.
        models: that the routes refer to.
        keys: whether the server asks for keys: each route then says which scope it needs.
    """

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            known = document.setdefault("components", {}).setdefault("schemas", {})
            known |= {model.__name__: _schema(model) for model in models}
            if keys:
                _secure(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # how FastAPI documents its own replacement


def _secure(document: dict[str, Any]) -> None:
    """Say of each route that it needs a key, and of which scope."""
    document["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        scope = required_scope(path)
        for operation in operations.values():
            if scope is not None:
                operation["security"] = [{_KEY: []}]
                before = operation.get("description", "")
                operation["description"] = f"{before} Needs a key with the scope {scope}.".strip()


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # each of them stands among the components itself
    return schema


def _content(model: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(model, str):
        return {model: {"schema": {"type": "string"}}}
    example = _example(model)
    return {_JSON: {"schema": _reference(model)} | ({"example": example} if example else {})}


def _example(model: type[BaseModel]) -> dict[str, Any]:
    extra: Any = model.model_config.get("json_schema_extra") or {}
    example: dict[str, Any] = extra.get("example", {})
    return example


def _tables(rows: list[list[float]] | None = None) -> dict[str, Any]:
    """The media types that are one array or one table, with these rows as an example where they are texts."""
    content: dict[str, Any] = {}
    for name in _TABLES:
        content[name] = {"schema": {"type": "string"} | ({} if name in _TEXTS else {"format": "binary"})}
        if rows and name in _TEXTS:
            line, between = _TEXTS[name]
            content[name]["example"] = "".join(line.format(between.join(map(str, row))) for row in rows)
    return content


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
