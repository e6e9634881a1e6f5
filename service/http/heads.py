"""The heads of HTTP/1.1 messages: what a request's head asks for, and the bytes of an answer's head.

Clients send the same line and the same header fields over and over, but for the query and the body's length. Heads
that have been parsed once are therefore remembered, and so are the heads of answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from service.access.keys import Caller
from service.access.policy import AccessPolicy, by_name
from service.access.request_ids import ID_FIELD, read_request_id
from service.access.scopes import required_scope
from service.api.endpoints import PREFIXES, Endpoint
from service.api.requests import Call, Fields, RawRequest
from service.errors import PushforwardError, RequestError
from service.exchange import Reply
from service.guard import TIMEOUT_HEADER, check_length
from service.remembered import remember

__all__ = ["KnownHead", "RequestHeads", "ResponseHeads", "check_host"]

_LONGEST_HEAD: Final = 2048
"""In bytes; a longer head is parsed each time."""

_WHOLE: Final = frozenset({None, "*/*", "application/json"})
"""What a client accepts that is never written in pieces."""

_PLAIN_QUERY: Final = re.compile(rb"[A-Za-z0-9_.,=&+-]*")

_COLD_HEADERS: Final = frozenset({b"expect", b"transfer-encoding", b"content-encoding", b"origin", b"sec-fetch-site"})
"""A request with one of these goes to the application. What a browser says of its page is never remembered: a request
of another method with the same fields may be refused."""

_ID: Final = ID_FIELD.encode()

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2}){1,255})(?::[0-9]{0,5})?")
"""The value of Host (RFC 9110, section 7.2): a name or an address, and a port. A name has letters, digits and ``.-_~``
only, as every name of a host does: signs that the grammar allows beside these are those that proxies disagree about."""

_TIMEOUT: Final = TIMEOUT_HEADER.lower().encode()


class KnownHead(NamedTuple):
    """What a head asks of a connection that answers by itself.

    Args:
        request: without its body.
        length: of the body that is to come, in bytes.
        request_id: the client's own, if it gave one.
    """

    request: RawRequest
    length: int
    request_id: bytes | None = None


class RequestHeads:
    """The heads of requests to one server.

    Args:
        table: the endpoints.
        max_body_bytes: the cap on a body.
        prefix: of paths behind a proxy, such as ``/flows``; they may come without it.
        policy: says who may ask; None for everyone. What it refuses goes to the application, which asks it again and
            tells why.
    """

    def __init__(
        self, table: Iterable[Endpoint], max_body_bytes: int, prefix: str = "", policy: AccessPolicy | None = None
    ) -> None:
        self._policy = policy
        self._prefix = prefix.encode()
        self._endpoints = {(e.method.encode(), e.path.encode().removeprefix(b"/")): e for e in table}
        self._max_body_bytes = max_body_bytes
        self._lines: dict[bytes, Call] = {}
        self._fields: dict[bytes, tuple[Fields, int]] = {}
        self._heads: dict[bytes, tuple[Call, Fields, int]] = {}  # of both, where there is no query

    def find(
        self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool
    ) -> KnownHead | None:
        """What a parsed head of HTTP/1.1 asks for; None where the application is to answer.

        Args:
            method: as sent.
            url: the request target, as sent.
            headers: (name in lower case, value) of each field.
            keep_alive: whether the connection goes on after the answer.
        """
        found = self._call(method, url)
        said = None if found is None else _fields(headers, self._max_body_bytes, keep_alive=keep_alive)
        if found is None or said is None:
            return None
        call, query = found
        fields, length = said
        if _is_for_application(call, fields):
            return None
        if self._policy is not None:
            try:
                caller = self._policy.admit(method.decode("ascii"), call.route, by_name(headers))
            except PushforwardError:
                return None
            fields = fields._replace(caller=caller)
        given = read_request_id(b", ".join(value for name, value in headers if name == _ID))
        return KnownHead(RawRequest(call, fields, query), length, given)

    def _call(self, method: bytes, url: bytes) -> tuple[Call, bytes] | None:
        """The call that a request line makes, and its raw query; None where it is none of the table's."""
        path, _, query = url.partition(b"?")
        if b"%" in path or b"#" in query:
            return None
        if path.startswith(self._prefix + b"/"):
            path = path[len(self._prefix) :]
        start, *named = path.split(b"/")
        endpoint = None
        if named and not start:
            endpoint = self._endpoints.get((method, named[-1]))
            named, endpoint = (named[:-1], endpoint) if endpoint else (named, self._endpoints.get((method, b"")))
        if endpoint is None:
            return None
        try:
            match [part.decode("ascii") for part in named]:
                case []:
                    prefix, name, version = PREFIXES[0], None, None
                case ["models", name] if name:
                    prefix, version = PREFIXES[1], None
                case ["models", name, "versions", version] if name and version:
                    prefix = PREFIXES[2]
                case _:
                    return None
        except UnicodeDecodeError:
            return None
        if prefix not in endpoint.prefixes:
            return None
        return Call(endpoint, name, version, prefix + endpoint.path), query

    def remember(self, head: bytes, known: KnownHead) -> None:
        """Keep what a request's head asks for, for requests with the same one.

        Args:
            head: request line and header fields, without the empty line at their end.
            known: as `find` gave it.
        """
        line, _, rest = head.partition(b"\r\n")
        if len(head) > _LONGEST_HEAD or not line.endswith(b" HTTP/1.1") or known.request_id is not None:
            return
        if required_scope(known.request.call.route) != "infer":
            return  # its fields say nothing of who may ask for the others
        remember(self._lines, _without_query(line), known.request.call)
        remember(self._fields, rest, (known.request.fields, known.length))

    def forget(self) -> None:
        """Remember nothing: the heads were admitted by keys that may be no more."""
        self._lines.clear()
        self._fields.clear()
        self._heads.clear()

    def recall(self, data: bytes) -> RawRequest | None:
        """One whole request whose head is known but for a plain query. None for others.

        Args:
            data: what was received, from the first byte of a request on.
        """
        end = data.find(b"\r\n\r\n")
        whole = self._heads.get(data[:end]) if end > 0 else None
        if whole is not None:
            call, fields, length = whole
            if len(data) - end - 4 != length or (fields.caller is not None and not _take_request(fields.caller)):
                return None
            return RawRequest(call, fields, b"", data[end + 4 :])
        start = data.find(b"\r\n")
        if start < 0 or start == end or not data.endswith(b" HTTP/1.1", 0, start):
            return None
        known = self._fields.get(data[start + 2 : end])
        if known is None or len(data) - end - 4 != known[1]:
            return None
        line, query = data[:start], b""
        found = self._lines.get(line)
        if found is None:
            found = self._lines.get(_without_query(line))
            query = line[line.find(b"?") + 1 : -len(b" HTTP/1.1")]
            if found is None or _PLAIN_QUERY.fullmatch(query) is None:
                return None
        call, fields = found, known[0]
        if _is_for_application(call, fields):
            return None
        if not query:
            remember(self._heads, data[:end], (call, *known))
        if fields.caller is not None and not _take_request(fields.caller):
            return None
        return RawRequest(call, fields, query, data[end + 4 :])


class ResponseHeads:
    """The heads of answers, as they are written to every connection while the default fields stay the same."""

    def __init__(self) -> None:
        self._defaults: Sequence[tuple[bytes, bytes]] = ()
        self._count = 0
        self._written: dict[tuple[object, ...], bytes] = {}

    def message(
        self, reply: Reply, defaults: Sequence[tuple[bytes, bytes]], *, keep_alive: bool, request_id: bytes
    ) -> bytes:
        """An answer as it goes over the wire.

        Args:
            reply: whole.
            defaults: (name, value) of the fields that every answer has.
            keep_alive: whether the connection goes on after it.
            request_id: of the request.
        """
        head = self._common(reply, defaults)
        end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
        return b"%b%d\r\nx-request-id: %b%b%b" % (head, len(reply.body), request_id, end, reply.body)

    def _common(self, reply: Reply, defaults: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The head of an answer, written once for all that have the same fields."""
        if self._defaults is not defaults or self._count != len(defaults):  # a list that may have grown
            self._defaults, self._count = defaults, len(defaults)
            self._written.clear()
        key: tuple[object, ...] = (reply.status, reply.media_type)
        if reply.headers:
            key += tuple(reply.headers.items())
        head = self._written.get(key)
        if head is None:
            head = _head(reply, defaults)
            remember(self._written, key, head)
        return head


def _head(reply: Reply, defaults: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head up to the number of the body's bytes."""
    pieces = [b"HTTP/1.1 %d %b\r\n" % (reply.status, HTTPStatus(reply.status).phrase.encode())]
    for name, value in defaults:
        pieces += (name, b": ", value, b"\r\n")
    for key, text in reply.headers.items():
        pieces += (key.lower().encode(), b": ", text.encode(), b"\r\n")
    pieces += (b"content-type: ", reply.media_type.encode(), b"\r\ncontent-length: ")
    return b"".join(pieces)


def check_host(headers: Iterable[tuple[bytes, bytes]], http_version: str) -> None:
    """Check that a head names one host, as RFC 9112, section 3.2 asks.

    Args:
        headers: (name in lower case, value) of each field.
        http_version: of the request. Before 1.1 a request may name none.

    Raises:
        RequestError: it names none, several, or what cannot be one.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts and http_version not in ("1.0", "0.9"):
        raise RequestError(f"a request of HTTP/{http_version} names the host that it asks: send the field Host")
    if len(hosts) > 1:
        raise RequestError(f"a request names one host, and this one has {len(hosts)} fields Host")
    if hosts and _HOST.fullmatch(hosts[0].strip(b" \t")) is None:
        shown = hosts[0][:64].decode("latin-1")
        raise RequestError(f"Host is a name or an address with or without a port, and not {shown!r}")


def _fields(
    headers: Iterable[tuple[bytes, bytes]], max_body_bytes: int, *, keep_alive: bool
) -> tuple[Fields, int] | None:
    """What the header fields of a request say, and the length of its body.

    None where there is one that only the application understands.
    """
    length = 0
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name == b"content-length":
            try:
                check_length(value.decode("latin-1"), max_body_bytes)
            except PushforwardError:
                return None  # told by the application
            length = int(value)
        elif name in _COLD_HEADERS:
            return None
        elif name in (b"content-type", b"accept", _TIMEOUT):
            found.setdefault(name, value.decode("latin-1"))
    return Fields(found.get(b"content-type"), found.get(b"accept"), found.get(_TIMEOUT), keep_alive), length


def _is_for_application(call: Call, fields: Fields) -> bool:
    """Whether the application answers: in pieces, as fast as the client reads, or whatever time is left."""
    endpoint = call.endpoint
    if endpoint.document:
        return fields.timeout is not None
    return endpoint.streams and fields.accept not in _WHOLE


def _take_request(caller: Caller) -> bool:
    """Take a request off the budget of a key that was admitted before; False where nothing is left."""
    try:
        caller.take_request()
    except PushforwardError:
        return False
    return True


def _without_query(line: bytes) -> bytes:
    """A request line, with whatever follows the path's question mark taken out."""
    path, mark, _ = line.partition(b"?")
    return path + mark + b" HTTP/1.1" if mark else line
