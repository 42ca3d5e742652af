"""The endpoint as a process, on real sockets: silent clients, tokens, TLS, several workers, the end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from cloud.auth import check_exposure, read_tokens
from cloud.connections import CONNECTION_LIMIT, HEAD_BYTES
from cloud.server import Tls, tls_context
from edge.errors import UsageError
from edge.oip import NamedTensor, encode_request
from tests.cloud.conftest import Process, command, running
from tests.cloud.test_command import asked, refused
from tests.tiny import tiny_bundle

INFER = "/v2/models/tiny/infer"
CERTIFICATES = Path(__file__).parents[1] / "certificates"
TOKEN = "a-token-of-enough-letters"


def address(endpoint: Process) -> tuple[str, int]:
    host, _, port = endpoint.address.rpartition(":")
    return host, int(port)


def test_silent_connections_shut_nobody_out(process: Process, jpeg: bytes) -> None:
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    with ExitStack() as stack:
        for _ in range(CONNECTION_LIMIT + 20):
            sock = stack.enter_context(socket.create_connection(address(process)))
            sock.sendall(b"POST " + INFER.encode() + b" HTTP/1.1\r\n")
        assert asked(process.address, "POST", INFER, body, headers) == 200
        half = stack.enter_context(socket.create_connection(address(process)))
        half.sendall(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert asked(process.address, "POST", INFER, body, headers) == 200


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * (4 * HEAD_BYTES), b"GET /" + b"a" * (4 * HEAD_BYTES), b"A: b\r\n" * HEAD_BYTES],
)
def test_headers_without_end_are_cut_off(process: Process, head: bytes) -> None:
    with socket.create_connection(address(process), timeout=5) as sock:
        with pytest.raises(OSError):  # noqa: PT012 -- which of the two meets it is up to the kernel
            for _ in range(100):
                sock.sendall(head)
                time.sleep(0.01)
        assert asked(process.address, "GET", "/v2/health/live") == 200


def test_without_httptools_and_uvloop(bundle: Path, jpeg: bytes) -> None:
    run = (
        "import importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *more: None if name in ('httptools', 'uvloop') else find(name, *more); "
        "from cloud.cli import main; main()"
    )
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    with running("--model", bundle, program=["-c", run]) as endpoint:
        assert asked(endpoint.address, "POST", INFER, body, headers) == 200
        test_headers_without_end_are_cut_off(endpoint, b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * (4 * HEAD_BYTES))
        assert "uvloop" not in Path(f"/proc/{endpoint.popen.pid}/maps").read_text()
        assert endpoint.end() == (0, "")


def test_a_deadline_for_headers(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = "import cloud.connections; cloud.connections.HEAD_S = 0.3; from cloud.cli import main; main()"
    with running("--model", bundle, program=["-c", run]) as endpoint, ExitStack() as stack:
        begin = stack.enter_context(socket.create_connection(address(endpoint), timeout=5))
        begin.sendall(b"GET /v2 HTTP/1.1\r\n")
        idle = stack.enter_context(closing(http.client.HTTPConnection(endpoint.address, timeout=5)))
        idle.request("GET", "/v2")
        idle.getresponse().read()
        assert begin.recv(1) == b""
        time.sleep(0.5)
        idle.request("GET", "/v2")  # between requests a connection may be silent for longer
        assert idle.getresponse().status == 200


def test_a_token_on_the_network(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"# of the garden camera\n{TOKEN}\n")
    with running("--model", bundle, "--token-file", tmp_path / "tokens", "--host", "0.0.0.0") as endpoint:
        reached = f"127.0.0.1:{address(endpoint)[1]}"
        assert asked(reached, "GET", "/v2/models/tiny") == 401
        assert asked(reached, "GET", "/v2/models/tiny", headers={"Authorization": f"Bearer {TOKEN}"}) == 200
        assert asked(reached, "GET", "/v2/health/ready") == 200
        code, said = endpoint.end()
    assert (code, said) == (0, "")
    assert TOKEN not in endpoint.ready


def test_beyond_loopback_it_wants_a_token(bundle: Path) -> None:
    code, said = refused("--model", bundle, "--host", "0.0.0.0", "--port", 0)
    assert code == 2
    assert said == (
        "edge-cloud: --host 0.0.0.0: others could ask without a token; "
        "give --token-file FILE, --tls-client-ca FILE or --insecure\n"
    )
    with running("--model", bundle, "--host", "0.0.0.0", "--insecure") as endpoint:
        assert asked(f"127.0.0.1:{address(endpoint)[1]}", "GET", "/v2/health/live") == 200


@pytest.mark.parametrize(
    ("host", "ok"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False)],
)
def test_what_loopback_is(host: str, ok: bool) -> None:
    check_exposure(host, guarded=True, insecure=False)
    check_exposure(host, guarded=False, insecure=True)
    if ok:
        check_exposure(host, guarded=False, insecure=False)
    else:
        with pytest.raises(UsageError, match="others could ask without a token"):
            check_exposure(host, guarded=False, insecure=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read: No such file"), ("", "holds no token"), ("# x\n", "holds no token"), ("hunter2", "at least 16")],
)
def test_a_token_file_that_cannot_be(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "tokens").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_tokens(tmp_path / "tokens")
    assert "hunter2" not in str(caught.value)


def test_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_tokens(None)
    monkeypatch.setenv("EDGE_CLOUD_TOKEN", TOKEN)
    assert read_tokens(None).admit(f"Bearer {TOKEN}".encode())
    assert not read_tokens(None).admit(b"Bearer wrong")


def test_a_short_token_in_the_environment_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    monkeypatch.setenv("EDGE_CLOUD_TOKEN", "hunter2")
    with pytest.raises(UsageError, match=r"^EDGE_CLOUD_TOKEN: a token is at least 16"):
        read_tokens(tmp_path / "tokens")


def test_tls_with_certificates_on_both_sides(bundle: Path) -> None:
    cert, key, ca = CERTIFICATES / "server.pem", CERTIFICATES / "server.key", CERTIFICATES / "ca.pem"
    tls = ("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca)
    with running("--model", bundle, *tls, "--host", "0.0.0.0") as endpoint:
        assert "ready at https://" in endpoint.ready
        context = ssl.create_default_context(cafile=str(ca))
        with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
            https(endpoint, context)
        context.load_cert_chain(CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
        assert https(endpoint, context) == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(f"127.0.0.1:{address(endpoint)[1]}", "GET", "/v2")
        assert endpoint.end()[0] == 0


@pytest.mark.parametrize("without", [(), ("uvloop",)])
def test_silent_tls_connections_shut_nobody_out(bundle: Path, without: tuple[str, ...]) -> None:
    run = (
        "import importlib.util as util, cloud.connections; find = util.find_spec; cloud.connections.CONNECTION_LIMIT = 20; "
        f"util.find_spec = lambda name, *more: None if name in {without!r} else find(name, *more); "
        "from cloud.cli import main; main()"
    )
    tls = ("--tls-cert", CERTIFICATES / "server.pem", "--tls-key", CERTIFICATES / "server.key")
    context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
    with running("--model", bundle, *tls, program=["-c", run]) as endpoint, ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address(endpoint), timeout=5)) for _ in range(30)]
        assert [sock.recv(1) for sock in silent[:10]] == [b""] * 10  # those that came first made room
        assert https(endpoint, context) == 200
        (counted,) = re.findall(r"^edge_cloud_connections (\d+)$", https_text(endpoint, context), re.MULTILINE)
        assert 17 < int(counted) <= 20
        for sock in silent[15:20]:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in sock.recv(100)
        assert https(endpoint, context) == 200
        assert endpoint.end() == (0, "")


def test_a_deadline_for_tls_handshakes(bundle: Path) -> None:
    run = "import cloud.connections; cloud.connections.HEAD_S = 0.3; from cloud.cli import main; main()"
    tls = ("--tls-cert", CERTIFICATES / "server.pem", "--tls-key", CERTIFICATES / "server.key")
    with running("--model", bundle, *tls, program=["-c", run]) as endpoint:
        with socket.create_connection(address(endpoint), timeout=5) as silent:
            assert silent.recv(1) == b""
        assert endpoint.end() == (0, "")


def https_text(endpoint: Process, context: ssl.SSLContext) -> str:
    with closing(http.client.HTTPSConnection("127.0.0.1", address(endpoint)[1], timeout=5, context=context)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def https(endpoint: Process, context: ssl.SSLContext) -> int:
    with closing(http.client.HTTPSConnection("127.0.0.1", address(endpoint)[1], timeout=5, context=context)) as connection:
        connection.request("GET", "/v2/models/tiny")
        return connection.getresponse().status


def test_tls_files_that_cannot_be(bundle: Path) -> None:
    cert, key = CERTIFICATES / "server.pem", CERTIFICATES / "client.key"
    assert refused("--tls-cert", cert)[1] == "edge-cloud: --tls-cert and --tls-key go together; give both\n"
    code, said = refused("--tls-cert", cert, "--tls-key", key)
    assert code == 2
    assert "cannot be used: KEY_VALUES_MISMATCH" in said
    assert "needs --tls-cert" in refused("--tls-client-ca", cert)[1]


def test_a_key_with_a_passphrase_is_refused_not_asked_about(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    encrypt = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", CERTIFICATES / "server.key", "-out", key]
    try:
        subprocess.run(encrypt, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl; apt-get install openssl")
    with pytest.raises(UsageError, match="cannot be used: "):
        tls_context(Tls(CERTIFICATES / "server.pem", key))


def test_without_file_descriptors_it_goes_on(bundle: Path) -> None:
    run = (
        "import resource; from cloud.cli import main; import cloud.server as server; serve = server.serve; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); main()"
    )
    with running("--model", bundle, program=["-c", run]) as endpoint:
        with ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(socket.create_connection(address(endpoint), timeout=5)).sendall(b"GET /v2")
            time.sleep(1.5)  # its figures are told each second
            assert endpoint.popen.poll() is None
        assert until(lambda: asked(endpoint.address, "GET", "/v2/health/live") == 200)


def test_a_client_that_does_not_read_is_dropped(bundle: Path) -> None:
    run = "import cloud.connections; cloud.connections.SEND_S = 0.3; from cloud.cli import main; main()"
    with running("--model", bundle, program=["-c", run]) as endpoint:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(10)
            sock.connect(address(endpoint))
            with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012 -- which of the two is up to the kernel
                for _ in range(100_000):
                    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    time.sleep(0.001)
        assert asked(endpoint.address, "GET", "/v2/health/live") == 200


BUSY = (
    "import cloud.batching as batching; from cloud.cli import main; "
    "batching.Batcher.expected_wait_s = property(lambda self: 2.5); main()"
)


@pytest.fixture(scope="module")
def busy(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """An endpoint that has more to do than it can, and wants a token."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(TOKEN)
    with running("--model", bundle, "--token-file", tokens, program=["-c", BUSY]) as endpoint:
        yield endpoint


def posted(body: bytes, *lines: str, path: str = INFER, token: str = TOKEN) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def replies(sock: socket.socket, count: int) -> list[tuple[int, dict[str, str], Any]]:
    """The next answers on a connection: status, headers, JSON."""
    read = sock.makefile("rb")
    seen = []
    for _ in range(count):
        status = int(read.readline().split()[1])
        headers = {
            key.lower(): value.strip()
            for key, _, value in (line.decode().partition(":") for line in iter(read.readline, b"\r\n"))
        }
        seen.append((status, headers, json.loads(read.read(int(headers["content-length"])))))
    return seen


def test_a_refusal_goes_out_before_the_body_and_the_connection_goes_on(busy: Process) -> None:
    with socket.create_connection(address(busy), timeout=5) as sock:
        whole = posted(bytes(200_000))
        for _ in range(2):
            sock.sendall(whole[:1000])
            ((status, headers, said),) = replies(sock, 1)
            assert (status, headers["retry-after"], headers["content-type"]) == (429, "3", "application/json")
            assert said == {"error": "a request would wait 2.5 s, at most 1 s are accepted; try again then"}
            assert "connection" not in headers
            sock.sendall(whole[1000:])
        sock.sendall(whole * 3 + b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [status for status, _, _ in replies(sock, 4)] == [429, 429, 429, 200]
        chunked = posted(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
        sock.sendall(chunked * 2)
        assert [status for status, _, _ in replies(sock, 2)] == [429, 429]
    assert 'edge_cloud_requests_total{model="tiny",status="429"} ' in told(busy)


@pytest.mark.parametrize(
    ("request_", "status", "closes"),
    [
        (posted(b"x", token="wrong"), 401, False),
        (posted(b"x", path="/v2/models/other/infer"), 404, False),
        (posted(b"x", path=INFER.replace("/infer", "/versions/2/infer")), 404, False),
        (posted(b"x", path=INFER.replace("/infer", "/versions/1/infer")), 429, False),
        (posted(b"x", "Expect: 100-continue"), 429, True),
        (posted(b"x", "Connection: close"), 429, True),
        (posted(b"x").replace(b"HTTP/1.1", b"HTTP/1.0"), 429, True),
        (posted(b"x").replace(b"POST", b"PUT"), 405, False),
    ],
)
def test_what_is_not_refused_by_its_head_alone(busy: Process, request_: bytes, status: int, closes: bool) -> None:
    with socket.create_connection(address(busy), timeout=5) as sock:
        sock.sendall(request_)
        ((seen, headers, said),) = replies(sock, 1)
        assert (seen, headers.get("connection") == "close") == (status, closes)
        assert said["error"]
        assert (sock.recv(1) == b"") if closes else True


def told(endpoint: Process) -> str:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=5)) as connection:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().read().decode()


def test_after_a_body_that_nobody_wanted_a_connection_may_be_silent(bundle: Path) -> None:
    run = "import cloud.connections; cloud.connections.HEAD_S = 0.3; " + BUSY
    with (
        running("--model", bundle, program=["-c", run]) as endpoint,
        socket.create_connection(address(endpoint), timeout=5) as sock,
    ):
        whole = posted(bytes(1000))
        for _ in range(2):
            sock.sendall(whole[:-500])
            assert replies(sock, 1)[0][0] == 429
            sock.sendall(whole[-500:])
            time.sleep(0.6)
        sock.sendall(whole[:-500])
        assert replies(sock, 1)[0][0] == 429
        sock.sendall(b"x")
        assert sock.recv(1) == b""  # the rest of a body has a deadline


def test_several_workers_one_of_which_dies(bundle: Path, jpeg: bytes) -> None:
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    with running("--model", bundle, "--workers", 2) as endpoint:
        assert endpoint.ready.endswith(", model tiny, variant float32, 2 workers\n")
        for _ in range(20):
            assert asked(endpoint.address, "POST", INFER, body, headers) == 200
        workers = seen_workers(endpoint)
        assert len(workers) == 2
        assert until(lambda: counted(endpoint) == 20)
        time.sleep(1.5)  # what a worker counted in its last second goes with it
        killed = workers.pop()
        os.kill(killed, signal.SIGKILL)
        assert until(lambda: len(seen_workers(endpoint) - {killed}) == 2)
        for _ in range(20):
            assert asked(endpoint.address, "POST", INFER, body, headers) == 200
        assert until(lambda: counted(endpoint) == 40)
        code, said = endpoint.end()
    assert code == 0
    assert "ended with -9; starting another" in said
    assert said.count("\n") == 1


def test_workers_end_when_their_parent_is_killed(bundle: Path) -> None:
    with running("--model", bundle, "--workers", 2) as endpoint:
        workers = seen_workers(endpoint)
        endpoint.popen.kill()
        endpoint.popen.wait()
        assert until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers))


def test_workers_that_cannot_start_say_why_and_end(bundle: Path) -> None:
    arguments = command("--model", bundle, "--variant", "int3", "--workers", 2, "--port", 0)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no variant named 'int3'" in done.stderr
    assert done.stderr.count("\n") == 1


def metrics(endpoint: Process) -> str:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def counted(endpoint: Process) -> float:
    lines = [line for line in metrics(endpoint).splitlines() if line.startswith("edge_cloud_requests_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def seen_workers(endpoint: Process) -> set[int]:
    rows = [line for line in metrics(endpoint).splitlines() if line.startswith("edge_cloud_resident_bytes{")]
    return {int(line.split('"')[1]) for line in rows}


def until(condition: Callable[[], Any], patience_s: float = 20.0) -> bool:
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        try:
            if condition():
                return True
        except (OSError, http.client.HTTPException):  # a connection to a worker that is being killed
            pass
        time.sleep(0.1)
    return False


def test_hot_models(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with running("--models", tmp_path / "models") as endpoint:
        assert "no model yet in " in endpoint.ready
        assert asked(endpoint.address, "GET", "/v2/health/ready") == 503
        tiny_bundle(tmp_path / "models" / "a.edge", name="one")
        assert until(lambda: asked(endpoint.address, "GET", "/v2/models/one/ready") == 200)
        with closing(http.client.HTTPConnection(endpoint.address, timeout=5)) as connection:
            connection.request("POST", "/v2/repository/index")
            assert json.loads(connection.getresponse().read())[0]["state"] == "READY"
        (tmp_path / "models" / "a.edge").unlink()
        assert until(lambda: asked(endpoint.address, "GET", "/v2/models/one/ready") == 404)
        code, said = endpoint.end()
    assert code == 0
    assert [line.split()[1] for line in said.splitlines()] == ["added", "removed"]
