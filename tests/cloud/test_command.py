"""edge-cloud as a command: its ready line, how it ends, and what it says when it cannot start."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cloud.server import listen, url_of
from edge.errors import EdgeError, UsageError
from edge.oip import NamedTensor, encode_request
from tests.cloud.conftest import command, running


def refused(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_zero_after_the_request_under_way(bundle: Path, jpeg: bytes, number: signal.Signals) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(running("--model", bundle, "--name", "other", "--variant", "float32"))
        assert endpoint.ready == f"edge-cloud: ready at http://{endpoint.address}, model other, variant float32\n"
        connection = stack.enter_context(closing(http.client.HTTPConnection(endpoint.address, timeout=10)))
        body, _ = encode_request([NamedTensor.of("image", [jpeg] * 8)], binary=False)
        connection.putrequest("POST", "/v2/models/other/infer")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:100])
        time.sleep(0.3)  # the endpoint has accepted the request and waits for the rest of it
        endpoint.popen.send_signal(number)
        time.sleep(0.3)
        connection.send(body[100:])
        reply = connection.getresponse()
        assert reply.status == 200
        assert json.loads(reply.read())["model_name"] == "other"
        _, said = endpoint.popen.communicate(timeout=20)
        assert (endpoint.popen.returncode, said) == (0, "")


def test_a_taken_port_is_one_line_and_exit_1(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused("--model", bundle, "--port", port)
    assert code == 1
    assert said == (
        f"edge-cloud: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --port or --host\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "/none/such.edge"], "/none/such.edge: no such bundle"),
        (["--model", __file__], "not a bundle, or one cut short"),
        (["--port", "70000"], "Invalid value for '--port'"),
        (["--name", "a/b"], "--name a/b: expected up to 100 letters"),
        (["--variant", "int3"], "tiny: no variant named 'int3'; it has float32"),
        (["--host", "no..host"], "; give an address of this machine, or 0.0.0.0 for every one"),
        (["--host", "192.0.2.1", "--insecure"], "--host 192.0.2.1: is no address of this machine; give one, or 0.0.0.0"),
        (
            ["--models", "/none/such"],
            "--models /none/such: cannot be read: No such file or directory; give",
        ),
        (["--keep", __file__], f"--keep {__file__}: is no folder; give a folder that can be written to"),
        (["--keep-mb", "5"], "--keep-mb limits what --keep DIR keeps; give that, too, or leave it out"),
        (
            ["--token-file", "/none/such"],
            "--token-file /none/such: cannot be read: No such file or directory; give",
        ),
        (
            ["--tls-cert", "/none", "--tls-key", "/none"],
            "--tls-cert /none: cannot be read: No such file or directory",
        ),
        (
            ["--tls-cert", __file__, "--tls-key", __file__],
            f"--tls-cert {__file__}: is no PEM file, which has",
        ),
        (["surplus"], "unexpected extra argument"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(bundle: Path, arguments: list[str], message: str) -> None:
    code, said = refused(*(["--model", str(bundle), "--port", "0", *arguments]))
    assert code == 2
    assert said.startswith("edge-cloud: ")
    assert message in said


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_token_file_that_everybody_can_read(bundle: Path, tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "my tokens"
    file.write_text("a-token-of-enough-letters")
    file.chmod(mode)
    arguments = command("--model", bundle, "--token-file", file, "--port", 0, "--name", "x", "--variant", "int3")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    line = f"edge-cloud: --token-file {file}: every user of this machine can read it; chmod 600 '{file}'\n"
    assert (line in done.stderr) == warned
    assert done.stderr.count("\n") == 1 + warned


def test_two_bundles_of_one_name_are_bad_usage(bundle: Path) -> None:
    code, said = refused("--model", bundle, "--model", bundle, "--port", 0)
    assert code == 2
    assert said == "edge-cloud: two models are named tiny; leave one out, or serve it by another edge-cloud\n"


def test_an_index_that_is_none(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_text("a diary, and no database at all")
    code, said = refused("--model", bundle, "--port", 0, "--keep", tmp_path)
    assert code == 2
    assert f"--keep {tmp_path / 'index.sqlite'}: cannot be used: file is not a database; remove it, or" in said


def test_without_the_extra_it_names_the_extra(bundle: Path) -> None:
    run = (
        "import sys, importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *more: None if name == 'uvicorn' else find(name, *more); "
        f"sys.argv[1:] = ['--model', {str(bundle)!r}]; from cloud.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == "edge-cloud: uvicorn is not installed; pip install 'edge-run[cloud]'\n"


def test_listening() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(EdgeError, match=f"cannot listen on 127.0.0.1 port {port}"):
            listen("127.0.0.1", port)
    with pytest.raises(UsageError, match="--host "):
        listen("a" * 80, 0)


def test_a_flood_of_connections_leaves_it_standing(bundle: Path, jpeg: bytes) -> None:
    body, headers = encode_request([NamedTensor.of("image", [jpeg])])
    with running("--model", bundle) as endpoint, ExitStack() as stack:
        address = ("127.0.0.1", int(endpoint.address.split(":")[1]))
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(100)]
        for sock in idle[:50]:
            sock.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        for sock in idle[50:60]:
            sock.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert asked(endpoint.address, "GET", "/v2/health/live") == 200
        for sock in idle:
            sock.close()
        assert asked(endpoint.address, "POST", "/v2/models/tiny/infer", body, headers) == 200
        assert endpoint.end() == (0, "")


def asked(address: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request(method, path, body, headers or {})
        with connection.getresponse() as reply:
            return reply.status
