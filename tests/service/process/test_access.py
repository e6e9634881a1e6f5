"""Who may ask a real server: whether it starts, its keys, its ports, its certificate, and its connections."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys

import httpx
import pytest

from service.access.keys import make_key
from service.errors import InvalidArgument
from service.process.preflight import check_access
from service.process.tls import Certificate
from service.settings import Settings
from tests.server import Server, environment
from tests.waiting import until

ALICE, BOB = make_key("alice", ["infer"]), make_key("bob", ["infer"])
EYE = make_key("eye", ["metrics"])


def settings(**given):
    return Settings(repository="flows", **given)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(host):
    check_access(settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "no.such.name.invalid"])
def test_elsewhere_a_key_is_needed_or_a_word(host):
    with pytest.raises(InvalidArgument, match="the server has no keys") as caught:
        check_access(settings(host=host))
    told = " ".join(map(str, caught.value.errors))
    for word in ("--insecure", "PUSHFORWARD_INSECURE", "--keys-file", "pushforward key"):
        assert word in told
    check_access(settings(host=host, insecure=True))
    check_access(settings(host=host, keys=ALICE.stored.line()))


def test_the_port_of_administration_is_held_to_the_same():
    with pytest.raises(InvalidArgument, match=r"--admin-host 0\.0\.0\.0"):
        check_access(settings(admin_port=0, admin_host="0.0.0.0"))
    check_access(settings(admin_port=0))
    with pytest.raises(InvalidArgument, match="choose another"):
        check_access(settings(port=9, admin_port=9))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_others_could_reach_does_not_start(repository, workers):
    command = [sys.executable, "-m", "pushforward", "serve", "--port", "0", "--host", "0.0.0.0"]
    more = ["--repository", str(repository), "--workers", str(workers)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: other machines reach --host 0.0.0.0 (PUSHFORWARD_HOST)")
    assert "--insecure" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_in_the_place_of_its_hash_is_not_repeated(repository):
    command = [sys.executable, "-m", "pushforward", "serve", "--port", "0", "--repository", str(repository)]
    given = environment() | {"PUSHFORWARD_KEYS": f"alice infer {ALICE.key}"}
    done = subprocess.run(command, capture_output=True, text=True, env=given, check=False)
    assert done.returncode == 1
    assert "PUSHFORWARD_KEYS, line 1: there is a key itself" in done.stderr
    assert ALICE.key not in done.stderr


def status(server, path, key=None, method="GET", **more):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.request(method, server.url + path, headers=headers, timeout=60, **more).status_code


@pytest.fixture(scope="module")
def pair(repository, tmp_path_factory):
    """Two workers, keys from a file and from the environment, and a port of administration."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    limited = ALICE.stored._replace(requests_per_minute=40)
    file.write_text(limited.line() + "\n")
    options = ("--repository", repository, "--default-flow", "two-moons", "--workers", 2, "--keys-file", file)
    server = Server(*options, "--admin-port", 0, env=environment() | {"PUSHFORWARD_KEYS": EYE.stored.line()})
    yield server, file
    assert server.stop() == 0


def test_administration_and_metrics_have_a_port_of_their_own(pair):
    server, _ = pair
    admin = re.search(r"administration and metrics: (http://127\.0\.0\.1:\d+);", server.announced)[1]
    assert status(server, "/metrics", EYE.key) == 404
    headers = {"Authorization": f"Bearer {EYE.key}"}
    assert httpx.get(admin + "/metrics").status_code == 401
    assert httpx.get(admin + "/metrics", headers=headers).status_code == 200
    assert httpx.get(admin + "/health/live").status_code == 200
    for path in ("/sample", "/models"):
        assert httpx.get(admin + path, headers={"Authorization": f"Bearer {ALICE.key}"}).status_code == 404


def test_workers_share_a_budget(pair):
    """Connections go to either worker; together they let through what one would, but for what neither has heard of."""
    server, _ = pair
    found = []
    for _ in range(16):
        found += [status(server, "/sample", ALICE.key) for _ in range(6)]
        if 429 in found[-6:]:
            break
        heard = count(server)
        until(lambda heard=heard: count(server) >= heard)
    assert found.count(200) <= 40 + 12 + 40
    assert 429 in found
    assert set(found) == {200, 429}


def count(server):
    admin = re.search(r"administration and metrics: (http://127\.0\.0\.1:\d+);", server.announced)[1]
    text = httpx.get(admin + "/metrics", headers={"Authorization": f"Bearer {EYE.key}"}).text
    found = re.search(r'^pushforward_key_requests_total\{key="alice"\} (\S+)', text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def test_keys_are_taken_up_and_given_up_without_a_restart(pair):
    """All workers have read the file once no answer is another: an old key is refused on connections that knew it."""
    server, file = pair
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {BOB.key}"}) as kept:
        assert kept.get("/sample").status_code == 401
        file.write_text(file.read_text() + BOB.stored.line() + "\n")
        until(lambda: [status(server, "/sample", BOB.key) for _ in range(8)] == [200] * 8)
        until(lambda: kept.get("/sample").status_code == 200)
        file.write_text("alice infer of nothing\n")  # a wrong file changes nothing
        file.write_text(ALICE.stored.line() + "\n")
        until(lambda: kept.get("/sample").status_code == 401)
        until(lambda: [status(server, "/sample", BOB.key) for _ in range(8)] == [401] * 8)


def test_connections_have_a_cap(repository):
    server = Server("--repository", repository, "--max-connections", 3, "--admin-port", 0)
    admin = re.search(r"administration and metrics: (http://127\.0\.0\.1:\d+);", server.announced)[1]
    try:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for each in held:
            each.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert each.recv(1 << 16).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as more:
            told = b"".join(iter(lambda: more.recv(1 << 16), b""))
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"too_many_connections" in told
        assert b"retry-after: 1" in told
        assert [httpx.get(admin + "/health/live").status_code for _ in range(3)] == [200] * 3
        held.pop().close()
        until(lambda: answers(server))
        for each in held:
            each.close()
    finally:
        assert server.stop() == 0


def answers(server):
    try:
        return status(server, "/health/live") == 200
    except httpx.TransportError:
        return False


def make_certificate(folder, name="localhost"):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    files = folder / "certificate.pem", folder / "key.pem"
    command = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
    more = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", files[1], "-out", files[0]]
    subprocess.run([*command.split(), *map(str, more)], check=True, capture_output=True)
    return files


def test_a_server_speaks_tls_and_takes_up_a_new_certificate(repository, tmp_path):
    certificate, key = make_certificate(tmp_path)
    options = ("--repository", repository, "--default-flow", "two-moons")
    server = Server(*options, "--tls-certificate", certificate, "--tls-key", key)
    try:
        assert server.url.startswith("https://")

        def asked():
            context = ssl.create_default_context(cafile=certificate)
            try:
                with httpx.Client(base_url=server.url, verify=context) as client:
                    pieces = client.get("/sample?n=60000&seed=1", headers={"Accept": "text/csv"})
                    refused = client.post("/nowhere", content=b"x" * 1_000_000)
                    return client.get("/health/live").status_code, pieces.text.count("\n"), refused.status_code
            except httpx.ConnectError:
                return None

        assert asked() == (200, 60001, 404)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=certificate)
            context.minimum_version = context.maximum_version = version
            plug = socket.create_connection(("127.0.0.1", server.port))
            with context.wrap_socket(plug, server_hostname="localhost") as secure:
                assert re.search("GCM|CHACHA20", secure.cipher()[0])
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as plain:  # costs it a line at most
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" not in plain.recv(1 << 16)
        make_certificate(tmp_path, "another")
        until(lambda: asked() == (200, 60001, 404))
    finally:
        assert server.stop() == 0


def test_wrong_certificates_are_told(tmp_path):
    certificate, key = make_certificate(tmp_path)
    Certificate(certificate, key).check()
    (tmp_path / "other").mkdir()
    other, _ = make_certificate(tmp_path / "other")
    locked = tmp_path / "locked.pem"
    encrypt = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(locked)]
    subprocess.run(encrypt, check=True, capture_output=True)
    for first, second, why in (
        (other, key, "no certificate and its key"),
        (key, key, "no certificate and its key"),
        (certificate, tmp_path / "none", "cannot be read"),
        (tmp_path, key, "cannot be read"),
        (certificate, locked, "has a password"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            Certificate(first, second).check()
    with pytest.raises(InvalidArgument, match="together, or not at all"):
        check_access(settings(tls_certificate=certificate))


def test_a_wrong_certificate_changes_nothing(tmp_path, caplog):
    certificate, key = make_certificate(tmp_path)
    watched, context = Certificate(certificate, key), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.write_text("nothing")
    watched.refresh(context)
    assert "the certificate stays as it is" in caplog.text
    assert context.cert_store_stats()["x509"] == 0
