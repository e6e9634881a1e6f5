"""What the head of a hot request says, and heads that have been seen before, so that none is parsed twice.

Clients send the same line and the same header fields over and over, but for the query and the body's length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

from service.api.door import may_be_picture
from service.api.native.verbs import Verb
from service.exchange import Body
from service.http.grouping import Together

__all__ = ["Call", "Fields", "Heads", "Hot"]

T = TypeVar("T")

_REMEMBERED: Final = 4096
"""Heads of requests that are remembered at once."""

_LONGEST_HEAD: Final = 2048
"""In bytes; a longer head is parsed each time."""

_WHOLE: Final = frozenset({None, "*/*", "application/json"})
"""What a client accepts that is never written in pieces."""

_PLAIN_QUERY: Final = re.compile(rb"[A-Za-z0-9_.,=&+-]*")


class Call(NamedTuple):
    """What a request line asks for, but for its query.

    Args:
        verb: the function that answers.
        name: the flow named in the path, if one is.
        version: the version named in the path, as it was written.
        route: method and template of the path, as they are counted.
        together: answers many plain requests at once; None where nothing does.
    """

    verb: Verb
    name: str | None = None
    version: str | None = None
    route: tuple[str, str] = ("", "")
    together: Together | None = None


class Fields(NamedTuple):
    """What the header fields of a request say beside the length of its body, as far as a hot call needs it.

    Args:
        content_type: the field, or None.
        accept: the field, or None.
        timeout: the field `service.guard.TIMEOUT_HEADER`, or None.
        keep_alive: whether the connection goes on after the answer.
    """

    content_type: str | None = None
    accept: str | None = None
    timeout: str | None = None
    keep_alive: bool = True


class Hot(NamedTuple):
    """A hot call, whole: what its line asks for, what its fields say, its query string and its body."""

    call: Call
    fields: Fields
    query: bytes = b""
    body: Body = b""


class Heads:
    """The request lines and header fields of one server.

    Args:
        verbs: (method, last part of the path) -> verb, such as ``(b"POST", b"logprob")``.
        together: the same -> what answers many plain requests at once, for some of them.
    """

    def __init__(
        self, verbs: Mapping[tuple[bytes, bytes], Verb], together: Mapping[tuple[bytes, bytes], Together]
    ) -> None:
        self._verbs = verbs
        self._together = together
        self._streaming = verbs.get((b"GET", b"sample"))
        self._lines: dict[bytes, Call] = {}
        self._fields: dict[bytes, tuple[Fields, int]] = {}

    def find(self, method: bytes, url: bytes) -> tuple[Call, bytes] | None:
        """The call that a request line makes, and its raw query; None where no hot verb answers it.

        Args:
            method: as sent.
            url: the request target, as sent.
        """
        path, _, query = url.partition(b"?")
        if b"%" in path or b"#" in query:
            return None
        parts = path.split(b"/")
        key = (method, parts[-1])
        verb = self._verbs.get(key)
        if verb is None or parts[0]:
            return None
        together = self._together.get(key)
        asked, last = method.decode(), "/" + parts[-1].decode()
        try:
            match parts[1:-1]:
                case []:
                    return Call(verb, None, None, (asked, last), together), query
                case [b"models", name] if name:
                    route = (asked, "/models/{name}" + last)
                    return Call(verb, name.decode("ascii"), None, route, together), query
                case [b"models", name, b"versions", version] if name and version:
                    route = (asked, "/models/{name}/versions/{version}" + last)
                    return Call(verb, name.decode("ascii"), version.decode("ascii"), route, together), query
                case _:
                    return None
        except UnicodeDecodeError:
            return None

    def may_stream(self, call: Call, fields: Fields) -> bool:
        """Whether the application answers: in pieces, as fast as the client reads, or with a picture, off the loop."""
        accept = fields.accept
        return accept not in _WHOLE and (call.verb == self._streaming or may_be_picture(accept))

    def remember(self, head: bytes, call: Call, fields: Fields, length: int) -> None:
        """Keep what the parser made of a request's head, for requests with the same one.

        Args:
            head: request line and header fields, without the empty line at their end.
            call: what the line asks for.
            fields: what the fields say.
            length: of the body, in bytes.
        """
        line, _, rest = head.partition(b"\r\n")
        if len(head) > _LONGEST_HEAD or not line.endswith(b" HTTP/1.1"):
            return
        _keep(self._lines, _without_query(line), call)
        _keep(self._fields, rest, (fields, length))

    def recall(self, data: bytes) -> Hot | None:
        """One whole request whose head is known but for a plain query. None for others.

        Args:
            data: what was received, from the first byte of a request on.
        """
        end = data.find(b"\r\n\r\n")
        start = data.find(b"\r\n")
        if start < 0 or start == end:
            return None
        known = self._fields.get(data[start + 2 : end])
        if known is None or len(data) - end - 4 != known[1]:
            return None
        line, query = data[:start], b""
        call = self._lines.get(line)
        if call is None:
            call = self._lines.get(_without_query(line))
            query = line[line.find(b"?") + 1 : -len(b" HTTP/1.1")]
            if call is None or _PLAIN_QUERY.fullmatch(query) is None:
                return None
        fields = known[0]
        return None if self.may_stream(call, fields) else Hot(call, fields, query, data[end + 4 :])


def _keep(memory: dict[bytes, T], key: bytes, value: T) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key] = value


def _without_query(line: bytes) -> bytes:
    """A request line, with whatever follows the path's question mark taken out."""
    path, mark, _ = line.partition(b"?")
    return path + mark + b" HTTP/1.1" if mark else line
