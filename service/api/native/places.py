"""The places of errors: whether the argument at fault stands in the body or in the query."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar

from service.errors import InvalidArgument, PushforwardError, Reason
from service.plan import Plan

__all__ = ["Place", "locate_error", "locate_errors", "refusal"]

T = TypeVar("T")
Place = Literal["body", "query"]


def refusal(
    argument: str, reason: str, place: Place, kind: type[PushforwardError] = InvalidArgument
) -> PushforwardError:
    """The error that refuses one argument.

    Args:
        argument: its name.
        reason: the fault in it.
        place: where it stands.
        kind: of error.
    """
    return kind(f"{argument}: {reason}", (Reason((place, argument), reason),))


def locate_errors(plan: Plan[T], argument: str, place: Place) -> Plan[T]:
    """A plan whose errors say where the arguments at fault stand, as `locate_error` does.

    Args:
        plan: of a flow, whose errors name arguments alone.
        argument: the main one, which always stands in the body; empty for none.
        place: of all others.
    """
    try:
        return (yield from plan)
    except PushforwardError as error:
        if not error.errors:
            raise
        raise locate_error(error, argument, place) from error


def locate_error(error: PushforwardError, argument: str, place: Place) -> PushforwardError:
    """An error whose reasons have the place of their argument before its name.

    Args:
        error: whose reasons begin with the name of an argument.
        argument: the main one, which always stands in the body; empty for none.
        place: of all others.
    """
    reasons = tuple(
        dataclasses.replace(reason, loc=("body" if reason.loc[:1] == (argument,) else place, *reason.loc))
        for reason in error.errors
    )
    return type(error)(error.detail, reasons)
