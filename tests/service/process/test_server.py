"""A real server process on a free port, asked with a real client."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests import waiting
from tests.server import Server, environment
from tests.service.bundles import affine, image, install, square


@pytest.fixture
def started(repository):
    made = []

    def start(*options):
        made.append(Server("--repository", repository, "--default-flow", "two-moons", *options))
        return made[-1]

    yield start
    for one in made:
        one.kill()


def exchange(port, sent, until=b"", seconds=30):
    """What a server answers to these bytes, up to `until` or the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(sent)
        return received(connection, until)


def received(connection, until=b""):
    answer = b""
    while not (until and until in answer):
        try:
            piece = connection.recv(1 << 16)
        except ConnectionResetError:
            break
        if not piece:
            break
        answer += piece
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_and_ends_with_status_0(started, number):
    server = started()
    assert "two-moons" in server.announced
    assert f"{server.url}/docs" in server.announced
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/logprob", json={"x": [[1, 2]]}).status_code == 200
        assert client.get("/health/ready").status_code == 200
        assert client.get("/sample", params={"n": 2000, "seed": 1}).json()["n"] == 2000
    assert server.stop(number) == 0


def test_the_flows_that_answer_are_named_and_why_others_do_not(tmp_path):
    made = install(tmp_path, affine("two-moons"), affine("two-moons", 2), square(), image())
    graph = made.path("two-moons", 2) / "forward.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    (made.path("image") / "flow.json").write_text('{"format": 1}')
    (tmp_path / "square" / "1").rename(tmp_path / "square" / "3")
    server = Server("--repository", tmp_path)
    server.process.send_signal(signal.SIGTERM)
    _, errors = server.process.communicate(timeout=60)
    assert server.announced.startswith(f"Pushforward serves two-moons at {server.url} (API: ")
    assert "two-moons version 2 is not served: digest_mismatch: forward.onnx is not the file" in errors
    assert "image version 1 is not served: manifest_invalid: flow.json is not a manifest of this format; " in errors
    assert "flow.json.opset: Field required" in errors
    assert "square version 3 is not served: bundle_invalid: flow.json is of square version 1" in errors
    assert len(errors.splitlines()) == 3
    assert str(tmp_path) not in errors


def test_what_is_in_flight_is_answered_and_the_connection_closed(started):
    server = started("--drain-seconds", 20)
    body = b'{"x": [[1, 2]]}'
    head = b"POST /logprob HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(body)
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + body[:5])  # the server waits for the rest
        idle.sendall(head + body)
        assert received(idle, b"]}").startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
        lame = b""

        def drains():
            nonlocal lame
            lame = exchange(server.port, b"GET /health/ready HTTP/1.1\r\nhost: test\r\n\r\n", until=b"}")
            return b"503" in lame

        waiting.until(drains)  # the signal has been taken
        assert b"connection: close" in lame.lower()
        assert b"draining" in lame
        idle.sendall(head + body)  # a keep-alive client's next request is answered, and told to go
        last = received(idle)
        assert last.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in last.lower()
        connection.sendall(body[5:])
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert b"log_prob" in answer
    idle.close()
    assert server.wait() == 0


def test_a_client_that_never_finishes_does_not_hold_up_the_end(started):
    server = started("--drain-seconds", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /logprob HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{")
        exchange(server.port, b"GET /health/live HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        assert server.stop() == 0
        status, body = problem_of(received(connection))
        assert (status, b"draining" in body) == (503, True)


def problem_of(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), body


def test_a_header_over_the_cap_is_431(started):
    server = started("--max-header-bytes", 4096)
    whole = b"GET /health/live HTTP/1.1\r\nhost: test\r\nx-long: " + b"a" * 5000 + b"\r\n\r\n"
    many = b"GET /health/live HTTP/1.1\r\nhost: test\r\n" + b"x-many: 1\r\n" * 1000 + b"\r\n"
    endless = b"GET /health/live HTTP/1.1\r\nx-long: " + b"a" * 100_000
    path = b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n"
    for sent in (whole, many, endless, path):
        status, body = problem_of(exchange(server.port, sent))
        assert status == 431
        assert b"header_too_large" in body
    body = b'{"x": [' + b",".join([b"[1.5, 2.5]"] * 5000) + b"]}"
    head = b"POST /logprob HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:  # a body is no header,
        for at in range(0, len(head) + len(body), 9000):  # and the piece that ends it is none either
            connection.sendall((head + body)[at : at + 9000])
        assert received(connection).startswith(b"HTTP/1.1 200")
    live = b"GET /health/live HTTP/1.1\r\nhost: test\r\n\r\n"
    pipelined = exchange(server.port, live * 200 + live.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    assert pipelined.count(b"HTTP/1.1 200") == 201  # and the headers of many requests are not one
    assert problem_of(exchange(server.port, b"nonsense\r\n\r\n"))[0] == 400
    assert server.stop() == 0


def test_a_port_in_use_is_a_clear_error(repository, started):
    server = started()
    command = [sys.executable, "-m", "pushforward", "serve", "--repository", repository, "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {server.port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repository", "nowhere"], "nowhere holds no flow"),
        (["--threads", "many"], "--threads (PUSHFORWARD_THREADS)"),
    ],
)
def test_what_cannot_be_served_is_a_clear_error(tmp_path, options, message):
    install(tmp_path, square())
    command = [sys.executable, "-m", "pushforward", "serve", "--repository", str(tmp_path), "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_environment_is_read(repository):
    named = environment() | {"PUSHFORWARD_REPOSITORY": str(repository), "PUSHFORWARD_THREADS": "many"}
    command = [sys.executable, "-m", "pushforward", "serve", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=named, timeout=60, check=False)
    assert "--threads (PUSHFORWARD_THREADS)" in done.stderr


def test_a_lone_flow_answers_where_the_default_is_absent(tmp_path):
    install(tmp_path, square())
    server = Server("--repository", tmp_path, "--default-flow", "two-moons")
    try:
        assert httpx.get(f"{server.url}/models").json()["default"] == "square"
        assert httpx.post(f"{server.url}/logprob", json={"x": [[0.5]]}).status_code == 200
        server.process.terminate()
        _, errors = server.process.communicate(timeout=60)
    finally:
        server.kill()
    assert "'two-moons' is not in the repository; square answers a request that names no flow" in errors


@pytest.mark.parametrize("workers", [1, 2])
def test_a_default_flow_that_is_absent_is_a_warning(tmp_path, workers):
    install(tmp_path, square(), affine("other"))
    named = environment() | {"PUSHFORWARD_DEFAULT_FLOW": "two-moons", "PUSHFORWARD_WORKER": "3"}
    server = Server("--repository", tmp_path, "--workers", workers, "--threads", 1, env=named)
    try:
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        assert httpx.get(f"{server.url}/models").json()["default"] is None
        assert httpx.post(f"{server.url}/models/square/logprob", json={"x": [[0.5]]}).status_code == 200
        answer = httpx.post(f"{server.url}/logprob", json={"x": [[0.5]]})
        assert (answer.status_code, answer.json()["code"]) == (404, "flow_not_found")
        assert "'two-moons' is not in the repository; there are ['other', 'square']" in answer.json()["detail"]
        server.process.terminate()
        _, errors = server.process.communicate(timeout=60)
    finally:
        server.kill()
    assert server.process.returncode == 0
    told = "the default flow 'two-moons' is not in the repository; there are other, square, and none of them answers"
    assert errors.count(told) == 1
    assert errors.count("PUSHFORWARD_WORKER is no setting, and is passed over; did you mean PUSHFORWARD_WORKERS?") == 1


def test_help_says_every_setting():
    done = subprocess.run(
        [sys.executable, "-m", "pushforward", "serve", "--help"], capture_output=True, text=True, check=True
    )
    from service.settings import Settings, environment_name, flag_name

    squeezed = "".join(done.stdout.split())
    for name in Settings.model_fields:
        assert flag_name(name) in squeezed
        assert environment_name(name) in squeezed


LOSING = """
import sys
import service.app
from pushforward.cli import main
from tests.service.engine.gpu import CpuGpu

def spoils(size, log_prob):
    if size == 256:
        lost.append(size)
    if lost:
        raise RuntimeError("CUDA failure 700 at /a/path")

lost = []
service.app.OrtGpu = lambda options: CpuGpu(options, spoils=lambda *given: served and spoils(*given))
served = []
load = service.app.Registry.load
service.app.Registry.load = lambda registry: (load(registry), served.append(True))
sys.exit(main())
"""


@pytest.mark.parametrize("required", [True, False])
def test_a_device_that_is_lost_is_left_or_made_up_for_as_the_settings_say(repository, required):
    options = ["--device", "cuda", "--device-required" if required else "--no-device-required"]
    command = [sys.executable, "-c", LOSING]
    server = Server("--repository", repository, *options, "--chunk-rows", 256, command=command)
    try:
        url = f"{server.url}/models/square/logprob"
        assert httpx.post(url, json={"x": [[0.5]]}).status_code == 200
        answer = httpx.post(url, json={"x": [[0.5]] * 200})
        if required:
            assert (answer.status_code, answer.json()["code"]) == (503, "engine_lost")
            _, errors = server.process.communicate(timeout=60)
            assert "cuda:0 is lost: RuntimeError" in errors
            assert server.process.returncode == 1
        else:
            assert answer.status_code == 200
            flows = httpx.get(f"{server.url}/health/ready").json()["flows"]
            assert {flow["fallback"] for flow in flows} == {"cuda:0: RuntimeError"}
            server.process.terminate()
            server.process.communicate(timeout=60)
            assert server.process.returncode == 0
    finally:
        server.kill()
