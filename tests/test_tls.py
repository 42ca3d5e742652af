"""Certificates from files: what cannot be used is one line that names the option, and nobody is asked for a passphrase."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import UsageError
from edge.tls import load_chain, trust

CERTIFICATES = Path(__file__).parent / "certificates"


@pytest.fixture
def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def of(name: str) -> str:
    return str(CERTIFICATES / name)


def test_a_chain_with_its_key(context: ssl.SSLContext) -> None:
    load_chain(context, "--x", of("client.pem"), of("client.key"))


def test_a_chain_and_its_key_in_one_file(context: ssl.SSLContext, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes((CERTIFICATES / "client.pem").read_bytes() + (CERTIFICATES / "client.key").read_bytes())
    load_chain(context, "--x", str(both), None)


@pytest.mark.parametrize(
    ("cert", "key", "line"),
    [
        ("/none.pem", None, "--x-cert /none.pem: No such file or directory; give a PEM certificate and its key in one file"),
        ("/none.pem", "/none.key", "--x-cert /none.pem, --x-key /none.key: No such file or directory; give a PEM"),
        (of("client.pem"), None, "or the key as --x-key, without a passphrase"),
        (of("client.pem"), of("server.key"), "key values mismatch"),
        (of("client.pem"), of("locked.key"), "and its key, without a passphrase"),
        (of("README.md"), None, "give a PEM certificate"),
        ("/a\0b", None, "cannot be read"),
    ],
)
def test_a_chain_that_cannot_be_used(context: ssl.SSLContext, cert: str, key: str | None, line: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_chain(context, "--x", cert, key)
    assert line in str(refused.value)


def test_authorities(context: ssl.SSLContext) -> None:
    trust(context, "--x-ca", of("ca.pem"))
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("ca", "why"),
    [
        ("/none.pem", "No such file or directory"),
        (of("server.key"), "no certificate or crl found"),
        ("/a\0b", "cannot be read"),
    ],
)
def test_authorities_that_cannot_be_used(context: ssl.SSLContext, ca: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        trust(context, "--x-ca", ca)
    shown = ca.replace("\0", " ")
    assert str(refused.value) == f"--x-ca {shown}: {why}; give a PEM file of certificates"


def test_it_needs_the_standard_library_only() -> None:
    code = "import sys; before = set(sys.modules); import edge.tls; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in loaded} <= {"edge", *sys.stdlib_module_names}
