"""The HTTP requests of the verbs: which flow is asked, and the JSON that is sent.

Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from pushforward.client.arrays import widen_tie
from pushforward.client.delivery import HttpRequest
from pushforward.client.errors import InvalidInput

__all__ = ["FlowChoice", "post_request"]


class FlowChoice(NamedTuple):
    """The flow that a request asks for.

    Args:
        model: its name; None for the server's default.
        version: its version, or an alias; None for the newest.
    """

    model: str | None
    version: int | str | None

    def arguments(self) -> dict[str, Any]:
        """The arguments of a request that name the flow; what the server chooses is left out."""
        return {key: value for key, value in self._asdict().items() if value is not None}


def post_request(flow: FlowChoice, verb: str, body: Mapping[str, Any]) -> HttpRequest:
    """The request of a verb that takes a body.

    Args:
        flow: that is asked.
        verb: as the API calls it.
        body: its arguments; arrays are of the flow's precision.

    Raises:
        InvalidInput: an argument is nothing that JSON can hold.
    """
    arguments = {**flow.arguments(), **body}
    ready = {key: widen_tie(value) if isinstance(value, np.ndarray) else value for key, value in arguments.items()}
    try:
        text = orjson.dumps(ready, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise InvalidInput(f"an argument of {verb} cannot be sent: {error}") from error
    return HttpRequest("POST", verb, body=text)
