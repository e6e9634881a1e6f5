"""The flags of a recipe: each made from the recipe's own declaration, and read back into its keys."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from models.recipe import BaseRecipe, Option, options
from service.errors import DataError

__all__ = ["flow_option_flag", "read_flags", "recipe_flags"]

flow_option_flag = click.option(
    "--flow-option",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the architecture or of its base, such as transforms=8, hidden=[64,64] or base=mixture.",
)
"""The flag of options that only an architecture knows."""


def recipe_flags(kind: type[BaseRecipe]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that puts a flag on a command for each option of a kind of recipe."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(list(options(kind))):
            function = _flag(option)(function)
        return function

    return decorate


def read_flags(kind: type[BaseRecipe], flags: Mapping[str, Any], flow_options: Sequence[str]) -> dict[str, Any]:
    """The flags that were given, nested as in a recipe.

    Args:
        kind: of recipe.
        flags: the parameters that `recipe_flags` made, by name.
        flow_options: of `flow_option_flag`.

    Raises:
        DataError: one of NAME=VALUE has no sign or no name.
    """
    values: dict[str, Any] = {}
    for option in options(kind):
        value = flags["__".join(option.keys)]
        if value is None or value == ():
            continue
        kinds = _kinds(option.kind)
        if dict in kinds:
            value = dict(_pair(option.flag, text) for text in value)
        elif list in kinds:
            # a condition may hold a comma of its own
            value = list(value) if option.keys[-1] == "where" else [v.strip() for t in value for v in t.split(",")]
        section = values
        for key in option.keys[:-1]:
            section = section.setdefault(key, {})
        section[option.keys[-1]] = value
    for text in flow_options:
        name, value = _pair("--flow-option", text)
        values.setdefault("flow", {})[name] = _toml(value)
    return values


def _flag(option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    parameter = ".".join(option.keys).replace(".", "__")
    kinds = _kinds(option.kind)
    settings: dict[str, Any] = {"help": option.help, "default": None}
    flag = option.flag
    if bool in kinds:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    elif list in kinds:
        settings |= {"multiple": True, "metavar": "COLUMN,...", "default": ()}
        if option.keys[-1] == "where":
            settings["metavar"] = "CONDITION"
    elif dict in kinds:
        settings |= {"multiple": True, "metavar": "NAME=VALUE", "default": ()}
    elif typing.Literal in kinds:
        settings["type"] = click.Choice([str(value) for value in typing.get_args(option.kind)])
    else:
        settings["type"] = int if int in kinds else float if float in kinds else str
    return click.option(parameter, *[flag], **settings)


def _kinds(annotation: Any) -> set[Any]:  # noqa: ANN401  an annotation may be any object
    """The plain types in an annotation, without None and without what pydantic adds."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return {kind for part in typing.get_args(annotation) for kind in _kinds(part)} - {type(None)}
    return {origin or annotation}


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise DataError(f"{flag}: expected NAME=VALUE, and found {text!r}")
    return name.strip(), value.strip()


def _toml(text: str) -> Any:  # noqa: ANN401  any value of TOML
    """A value as a recipe would hold it; what is no TOML is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
