"""The connection: its waits, on a clock that the test moves, its direct requests, and the names of uvicorn."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import socket
import tomllib
from pathlib import Path
from types import SimpleNamespace

import httptools
import numpy as np
import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

from service.api.driver import Call, Driver, Fields, GroupMember, PlanTask, RawRequest
from service.api.endpoints import Endpoint
from service.api.grouped.groups import Group
from service.api.helpers import Helpers
from service.exchange import Reply
from service.guard import BodyBudget, Waits
from service.http.application import UVICORN_NAMES
from service.http.connection import STATE, Connection, Direct, DirectRequest, Shared
from service.http.heads import RequestHeads
from service.plan import Outputs, Run
from tests.server import Server
from tests.service.transport import Transport
from tests.waiting import turns_until

WAITS = Waits(header_seconds=10, body_seconds=60, keep_alive_seconds=75)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def reads(scope, receive, send):
    """An application that reads the body whole, then answers, once it is let."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def hangs(scope, receive, send):
    await asyncio.Event().wait()


class Client:
    """A connection over a transport that goes nowhere, with the time since it was made."""

    def __init__(self, app, direct=None, budget=None):
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.loop.time = lambda: self.began
        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, timeout_keep_alive=0)
        config.load()
        self.state = ServerState()
        self.protocol = Connection(config, self.state, {STATE: Shared(direct, WAITS, budget=budget)})
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    async def receive(self, data):
        self.protocol.data_received(data)
        for _ in range(5):
            await asyncio.sleep(0)

    def after(self, seconds):
        """Look at the connection so long after whatever it waits for began."""
        self.protocol.sweep(self.began + seconds)
        return self.transport.closed

    def refused_after(self, seconds):
        """Look at a connection that is to end so long after; a client that sends on has some time for the answer."""
        before = self.after(seconds), self.transport.ended
        return before == (False, True) and not self.after(30) and self.after(30.1)


def connected(test):
    """Run a test on a connection; the loop's clock stands still."""

    def run(app=reads, verb=None, group_verb=None):
        async def main():
            helpers = Helpers(1)
            table = [Endpoint("POST", "/verb", verb, group_verb)]
            connection = Client(app, Direct(Driver(helpers, 30.0), RequestHeads(table, 1 << 22)))
            try:
                await test(connection)
            finally:
                for task in connection.state.tasks:
                    task.cancel()
                helpers.close()

        asyncio.run(main())

    return run


def refusal(connection):
    head, _, body = connection.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    return json.loads(body)


def test_a_header_that_drips_is_cut_off_whatever_comes_meanwhile():
    @connected
    async def run(connection):
        for byte in GET[:-1]:
            await connection.receive(bytes([byte]))
        assert not connection.after(10)
        assert connection.refused_after(10.1)
        assert refusal(connection)["code"] == "slow_request"
        assert "header did not come in whole within 10 seconds" in refusal(connection)["detail"]

    run()


def test_a_body_that_drips_is_cut_off():
    @connected
    async def run(connection):
        await connection.receive(POST + b"12")
        assert not connection.after(60)
        assert connection.refused_after(60.1)
        assert "body did not come in whole within 60 seconds" in refusal(connection)["detail"]

    run()


def test_an_idle_connection_is_closed_without_a_word():
    @connected
    async def run(connection):
        await connection.receive(GET)
        assert connection.transport.written.startswith(b"HTTP/1.1 200")
        written = connection.transport.written
        assert not connection.after(75)
        assert connection.after(75.1)
        assert connection.transport.written == written

    run()


def test_a_connection_on_which_nothing_ever_comes_is_closed():
    @connected
    async def run(connection):
        assert not connection.after(75)
        assert connection.after(75.1)

    run()


def test_an_answer_that_takes_long_is_waited_for():
    @connected
    async def run(connection):
        await connection.receive(GET)
        assert not connection.after(1e6)

    run(hangs)


def test_each_request_has_its_own_time():
    @connected
    async def run(connection):
        await connection.receive(GET + b"GET / HTTP")
        connection.began += 8
        await connection.receive(b"/1.1\r\n\r\nGET /")
        assert not connection.after(9)
        assert connection.refused_after(10.1)

    run()


def test_a_client_that_does_not_read_is_cut_off():
    @connected
    async def run(connection):
        await connection.receive(GET)
        connection.protocol.pause_writing()
        assert not connection.after(60)
        connection.protocol.resume_writing()
        assert not connection.after(60.1)
        connection.protocol.pause_writing()
        assert connection.after(60.1)
        assert connection.transport.aborted

    run()


@pytest.fixture(scope="module")
def hasty(repository):
    server = Server("--repository", repository, "--header-seconds", 0.3, "--body-seconds", 0.3)
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost", 408),
        (POST.replace(b"/", b"/interpolate", 1) + b"12", 408),
        (POST.replace(b"/", b"/logprob", 1) + b"12", 408),
        (POST + b"12", 405),  # told at once; and the rest of its body is not waited for either
    ],
)
def test_a_real_server_cuts_off_what_drips(hasty, sent, answered):
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as slow:
        slow.sendall(sent)
        received = b""
        while piece := slow.recv(1 << 16):
            received += piece
    assert received.startswith(f"HTTP/1.1 {answered} ".encode())


def verb_of(body: bytes) -> bytes:
    return b"POST /verb HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def echo(exchange):
    """A verb that answers at once."""
    yield from ()
    return Reply(bytes(exchange.body))


class Held:
    """A verb whose runs wait until the test lets them go. It is the lane of its runs."""

    width = 1

    def __init__(self):
        self.dones = []
        self.tickets = []

    def __call__(self, exchange):
        yield Run(self, np.zeros((1, 1), np.float32))
        return Reply(bytes(exchange.body))

    def submit(self, run, done, deadline):
        self.dones.append(done)
        self.tickets.append(SimpleNamespace(abandoned=False))
        return self.tickets[-1]

    def release(self):
        self.dones.pop(0)(Outputs(*(np.zeros(1, np.float32) for _ in range(3))))


def statuses(connection):
    return [int(piece[:3]) for piece in connection.transport.written.split(b"HTTP/1.1 ")[1:]]


def test_a_direct_request_comes_whole_or_in_pieces():
    @connected
    async def run(connection):
        whole = verb_of(b"abcdef")
        await connection.receive(whole)
        await connection.receive(whole)  # its head is known
        for piece in (whole[:-4], whole[-4:-2], whole[-2:]):
            await connection.receive(piece)
        assert connection.transport.written.count(b"\r\n\r\nabcdef") == 3
        assert not connection.transport.closed
        assert not connection.state.tasks, "the application has not been asked"

    run(verb=echo)


def test_what_comes_behind_a_direct_request_waits_for_its_answer_and_keeps_its_order():
    held = Held()

    @connected
    async def run(connection):
        chunked = b"POST /verb HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        await connection.receive(verb_of(b"one") + GET + chunked)
        assert connection.transport.written == b""
        assert not connection.transport.reading
        await connection.receive(verb_of(b"two"))
        held.release()
        for _ in range(100):
            await asyncio.sleep(0)
        assert statuses(connection) == [200, 200, 200, 200], "the last one is the application's, behind others of it"
        assert connection.transport.reading
        assert connection.transport.written.index(b"one") < connection.transport.written.index(b"content-length: 0")

    run(verb=held)


def test_reading_goes_on_after_an_answer():
    held = Held()

    @connected
    async def run(connection):
        await connection.receive(verb_of(b"one") + verb_of(b"two"))
        assert not connection.transport.reading
        for text in (b"one", b"two"):
            held.release()
            assert connection.transport.written.endswith(text)
            assert connection.transport.reading
        assert not connection.state.tasks, "the one behind is a direct request too"

    run(verb=held)


def test_a_body_that_the_application_does_not_read_is_not_slow():
    @connected
    async def run(connection):
        await connection.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(100_000))
        assert not connection.transport.reading
        assert not connection.after(60.1)
        connection.transport.resume_reading()
        assert connection.refused_after(60.1)

    run(hangs)


def test_a_lost_connection_leaves_no_timer_behind():
    @connected
    async def run(connection):
        timers, call_later = [], connection.loop.call_later
        connection.loop.call_later = lambda *given: timers.append(call_later(*given)) or timers[-1]
        connection.protocol.data_received(GET)
        await turns_until(lambda: timers)
        connection.protocol.connection_lost(ConnectionResetError())
        assert [timer.cancelled() for timer in timers] == [True]

    run()


def test_an_answered_request_is_in_no_circle():
    @connected
    async def run(connection):
        def kept():
            # by type(): isinstance asks the objects themselves, and some of torch's warn when they are asked
            return {id(found) for found in gc.get_objects() if type(found) in (DirectRequest, PlanTask, GroupMember)}

        gc.collect()
        gc.disable()
        before = kept()  # what a server of another test holds
        try:
            for _ in range(5):
                await connection.receive(verb_of(b"abcdef"))
            assert not kept() - before
            assert connection.transport.written.count(b"200 OK") == 5
        finally:
            gc.enable()

    def answered(questions):
        yield from ()
        return [Reply(each.body) for each in questions]

    def many(parcels):
        questions = [question for parcel in parcels for question in parcel.questions]
        return [Group(list(range(len(questions))), answered(questions))]

    run(verb=echo)
    run(verb=echo, group_verb=many)


def test_after_a_long_piece_of_a_body_the_others_have_their_turn():
    @connected
    async def run(connection):
        body = bytes(3 << 17)
        await connection.receive(verb_of(body)[: -len(body)])
        connection.protocol.data_received(bytes(100))
        assert connection.transport.reading
        connection.protocol.data_received(bytes(1 << 17))
        assert not connection.transport.reading
        await asyncio.sleep(0)
        assert connection.transport.reading
        connection.protocol.data_received(bytes(1 << 17))
        connection.transport.closed = True
        await asyncio.sleep(0)
        assert not connection.transport.reading, "the connection has gone"

    run(verb=echo)


def test_a_direct_request_in_pieces_may_end_while_the_server_shuts_down():
    @connected
    async def run(connection):
        whole = verb_of(b"abcdef")
        await connection.receive(whole[:-2])
        connection.protocol.shutdown()
        assert not connection.transport.closed
        await connection.receive(whole[-2:])
        assert connection.transport.written.endswith(b"connection: close\r\n\r\nabcdef")
        assert connection.transport.closed

    run(verb=echo)


@pytest.mark.parametrize("missing", [0, 2])
def test_a_direct_request_without_an_answer_at_the_end_is_told(missing):
    held = Held()

    @connected
    async def run(connection):
        whole = verb_of(b"abcdef")
        await connection.receive(whole[: len(whole) - missing])
        connection.protocol.shutdown()
        connection.protocol.expire()
        assert statuses(connection) == [503]
        assert b"retry-after: 1\r\n" in connection.transport.written
        assert b"draining" in connection.transport.written
        assert (connection.transport.closed, connection.transport.ended) == (not missing, bool(missing))
        assert [ticket.abandoned for ticket in held.tickets] == [True] * (not missing)

    run(verb=held)


def test_a_client_that_has_not_read_its_answers_goes_to_the_application():
    """There the next answer waits until the client reads: the connection itself would write on."""

    @connected
    async def run(connection):
        connection.protocol.pause_writing()
        await connection.receive(verb_of(b"a"))
        assert connection.transport.written == b""
        connection.protocol.resume_writing()
        for _ in range(5):
            await asyncio.sleep(0)
        assert b"content-length: 0" in connection.transport.written
        await connection.receive(verb_of(b"b"))
        assert connection.transport.written.endswith(b"\r\n\r\nb")

    run(verb=echo)


def test_whom_the_client_leaves_is_told():
    held, gone = Held(), []

    async def waits(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.append(scope["path"])

    @connected
    async def direct(connection):
        await connection.receive(verb_of(b"a"))
        connection.protocol.connection_lost(ConnectionResetError())
        held.release()
        assert held.tickets[0].abandoned
        assert connection.transport.written == b""

    @connected
    async def application(connection):
        await connection.receive(GET + GET)  # the second waits for the first
        connection.protocol.connection_lost(None)
        for _ in range(20):
            await asyncio.sleep(0)
        assert gone == ["/"]

    direct(verb=held)
    application(app=waits)


def test_the_server_knows_the_connection_and_not_the_protocol_within():
    @connected
    async def run(connection):
        assert connection.state.connections == {connection.protocol}
        connection.protocol.connection_lost(None)
        assert not connection.state.connections

    run()


def test_a_body_is_put_together_and_let_go_of_once_it_is_answered():
    request = DirectRequest(RawRequest(Call(Endpoint("POST", "/verb", echo)), Fields()), length=4)
    request.take(b"ab")
    assert request.missing == 2
    request.take(b"cd")
    assert request.whole().body == b"abcd"
    request.end()
    assert (request.ended, request.task, request.whole().body) == (True, None, b"")


def test_uvicorn_has_every_name_that_the_connection_uses():
    """What fails here has moved within uvicorn: mend `service.http.connection`, then raise the bound on its version."""

    async def made():
        config = uvicorn.Config(reads, ws="none", log_config=None, access_log=False)
        config.load()
        state = ServerState()
        protocol = httptools_impl.HttpToolsProtocol(config=config, server_state=state, app_state={}, _loop=None)
        protocol.connection_made(Transport())
        protocol.data_received(POST)
        for task in state.tasks:
            task.cancel()
        return {"HttpToolsProtocol": protocol, "RequestResponseCycle": protocol.cycle, "ServerState": state}

    found = asyncio.run(made())
    callbacks = ("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body", "on_message_complete")
    missing = [
        f"{owner}.{name}"
        for owner, names in {
            **UVICORN_NAMES,
            "HttpToolsProtocol": (*UVICORN_NAMES["HttpToolsProtocol"], *callbacks),
        }.items()
        for name in names
        if not hasattr(found[owner], name)
    ]
    assert missing == [], "uvicorn has no such names any more"
    protocol, cycle, state = found.values()
    assert isinstance(cycle, httptools_impl.RequestResponseCycle), "a protocol's cycle is the newest request"
    assert isinstance(protocol.parser, httptools.HttpRequestParser), "a protocol asks this parser about a request"
    assert (cycle.disconnected, cycle.response_complete, cycle.response_started) == (False, False, False)
    assert isinstance(cycle.message_event, asyncio.Event), "it wakes an application that waits for a message"
    assert state.connections == {protocol}, "a protocol enters itself when it is connected"
    assert state.default_headers == [], "pairs of bytes, which the server replaces"
    assert callable(protocol.timeout_keep_alive_handler), "it is called by the timer of an idle connection"


def test_no_other_name_of_uvicorn_is_used():
    """Every attribute of the protocol within, of a cycle and of the server's state is one of the list, or asyncio's."""
    root = Path(__file__).parents[3] / "service"
    users = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if "uvicorn" in _imported(path)}
    assert users == {"http/application.py", "http/connection.py", "process/server.py"}
    own = {"_application": "HttpToolsProtocol", "application": "HttpToolsProtocol"}
    own |= {"cycle": "RequestResponseCycle", "_server": "ServerState"}
    public = {*dir(asyncio.Protocol), "shutdown", "pause_writing", "resume_writing"}
    public |= {name for name in dir(Connection) if name.startswith("on_")}
    used = set()
    trees = [ast.parse((root / f"http/{name}.py").read_text()) for name in ("application", "connection")]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in own and node.attr not in public:
                used.add((own[owner], node.attr))
    listed = {(owner, name) for owner, names in UVICORN_NAMES.items() for name in names}
    assert used <= listed


def _imported(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {getattr(node, "module", None) or "" for node in nodes} | {a.name for node in nodes for a in node.names}
    return {name.partition(".")[0] for name in names}


def test_uvicorns_version_is_bound_to_those_that_were_tried():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (bound,) = (text for text in project["dependencies"] if text.startswith("uvicorn"))
    assert "<" in bound


# --- the end of a connection whose client still sends


async def refuses(scope, receive, send):
    """An application that answers before it has read a byte of the body."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


LARGE = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n" + bytes(100_000)


def test_what_a_client_still_sends_is_thrown_away_after_its_answer(monkeypatch):
    monkeypatch.setattr("service.http.connection._LINGER_BYTES", 150_000)

    @connected
    async def run(connection):
        await connection.receive(LARGE)
        assert connection.transport.written.endswith(b"\r\n\r\nno")
        assert (connection.transport.ended, connection.transport.closed) == (True, False)
        assert connection.transport.reading
        for _ in range(2):
            await connection.receive(bytes(60_000))
        assert not connection.transport.closed
        await connection.receive(GET + bytes(60_000))
        assert connection.transport.closed
        assert connection.transport.written.count(b"HTTP/1.1") == 1

    run(refuses)


def test_whoever_sends_on_is_not_waited_for_for_ever():
    @connected
    async def run(connection):
        await connection.receive(LARGE)
        await connection.receive(bytes(10))
        assert not connection.after(30)
        connection.protocol.shutdown()
        assert connection.after(30.1)

    run(refuses)


def test_the_end_of_the_server_ends_a_connection_that_lingers():
    @connected
    async def run(connection):
        await connection.receive(LARGE)
        connection.protocol.shutdown()
        assert not connection.transport.closed
        connection.protocol.expire()
        assert connection.transport.closed

    run(refuses)


def test_a_connection_whose_request_has_come_whole_is_closed_at_once():
    @connected
    async def run(connection):
        await connection.receive(POST.replace(b"Host", b"Connection: close\r\nHost") + b"1234")
        assert (connection.transport.ended, connection.transport.closed) == (False, True)

    run(refuses)


def test_a_connection_that_goes_on_does_not_end():
    @connected
    async def run(connection):
        await connection.receive(LARGE.replace(b"Connection: close\r\n", b""))
        assert (connection.transport.ended, connection.transport.closed) == (False, False)
        await connection.receive(bytes(900_000) + GET)
        assert connection.transport.written.count(b"HTTP/1.1 404") == 2

    run(refuses)


def test_long_pieces_that_are_thrown_away_leave_the_others_their_turn():
    @connected
    async def run(connection):
        await connection.receive(LARGE)
        connection.protocol.data_received(bytes(1 << 16))
        assert not connection.transport.reading
        await turns_until(lambda: connection.transport.reading)

    run(refuses)


# --- HTTP/1.0


def streams(fails):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/csv")]})
        await send({"type": "http.response.body", "body": b"1,2\n", "more_body": True})
        if not fails:
            await send({"type": "http.response.body", "body": b"3,4\n"})

    return app


@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_in_pieces_ends_with_an_old_clients_connection(fails):
    @connected
    async def run(connection):
        await connection.receive(GET.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n"))
        head, _, body = connection.transport.written.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == (b"1,2\n" if fails else b"1,2\n3,4\n")
        assert (connection.transport.closed, connection.transport.aborted) == (True, fails)

    run(streams(fails))


def test_an_answer_in_one_piece_is_an_old_clients_too():
    @connected
    async def run(connection):
        await connection.receive(POST.replace(b"1.1\r\n", b"1.0\r\nExpect: 100-continue\r\n") + b"1234")
        assert connection.transport.written.startswith(b"HTTP/1.1 200 ")  # and no 100
        assert (connection.transport.closed, connection.transport.aborted) == (True, False)

    run(reads)


LONG_POST = 4 * BodyBudget.LARGE


def large_post(size=LONG_POST, more=""):
    return f"POST /verb HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {size}\r\n\r\n".encode()


def with_budget(test, clock=lambda: 0.0):
    """Run a test on two connections that share a budget of one large body."""

    async def main():
        helpers = Helpers(1, clock)
        budget = BodyBudget(LONG_POST)
        direct = Direct(Driver(helpers, 30.0), RequestHeads([Endpoint("POST", "/verb", echo)], 1 << 22))
        try:
            await test(Client(reads, direct, budget), Client(reads, direct, budget), budget)
        finally:
            helpers.close()

    asyncio.run(main())


def test_a_body_for_which_there_is_no_room_is_turned_away():
    async def run(one, other, budget):
        await one.receive(large_post() + bytes(3 * LONG_POST // 4))
        await other.receive(large_post() + bytes(LONG_POST // 2))
        head, _, body = other.transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1" in head
        assert b"connection: close" in head
        assert json.loads(body)["code"] == "queue_full"
        assert budget.held == 3 * LONG_POST // 4
        await other.receive(bytes(LONG_POST // 2))
        assert other.transport.ended
        assert not one.transport.written
        await one.receive(bytes(LONG_POST // 4))
        await turns_until(lambda: one.transport.written)
        assert one.transport.written.startswith(b"HTTP/1.1 200 ")
        assert budget.held == 0

    with_budget(run)


def test_a_client_that_goes_gives_its_bytes_back():
    async def run(one, other, budget):
        await one.receive(large_post() + bytes(LONG_POST // 2))
        assert budget.held == LONG_POST // 2
        one.protocol.connection_lost(None)
        assert budget.held == 0

    with_budget(run)


@pytest.mark.parametrize(("more", "seconds"), [("", 30.0), ("Pushforward-Timeout-Ms: 2000\r\n", 2.0)])
def test_a_body_that_still_comes_when_its_deadline_passes_is_turned_away(more, seconds):
    now = [5.0]

    async def run(one, other, budget):
        await one.receive(large_post(more=more) + bytes(LONG_POST // 2))
        now[0] += seconds
        assert not one.after(1.0)
        assert not one.transport.written
        now[0] += 0.1
        one.after(1.0)
        head, _, body = one.transport.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 504 ")
        assert "before the request's body had come in whole" in json.loads(body)["detail"]
        assert budget.held == 0

    with_budget(run, lambda: now[0])


# --- Clients that send no more


def test_who_sends_no_more_and_waits_long_is_asked_whether_it_is_there():
    held = Held()

    @connected
    async def run(connection):
        await connection.receive(verb_of(b"abc"))
        assert connection.protocol.eof_received()
        assert not connection.after(5)
        assert connection.transport.written == b""
        assert not connection.after(5.1)
        assert statuses(connection) == [102]
        assert not connection.after(10)
        assert not connection.after(10.2)
        assert statuses(connection) == [102, 102]
        held.release()
        assert statuses(connection) == [102, 102, 200]
        assert connection.transport.written.endswith(b"connection: close\r\n\r\nabc")
        assert connection.transport.closed

    run(verb=held)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_old_client_is_not_asked(version):
    @connected
    async def run(connection):
        await connection.receive(GET.replace(b"1.1", version))
        assert connection.protocol.eof_received()
        assert not connection.after(5.1)
        assert statuses(connection) == ([102] if version == b"1.1" else [])

    run(hangs)


def test_whose_connection_has_failed_since_it_sent_no_more_is_given_up():
    held = Held()

    @connected
    async def run(connection):
        await connection.receive(verb_of(b"abc"))
        assert connection.protocol.eof_received()
        connection.transport.get_extra_info = lambda name, default=None: {
            "socket": SimpleNamespace(getsockopt=lambda *_: 32)
        }.get(name, default)
        assert connection.after(0.5)
        assert connection.transport.aborted
        connection.protocol.connection_lost(None)
        assert [ticket.abandoned for ticket in held.tickets] == [True]

    run(verb=held)
