"""Bearer tokens (RFC 6750), and the rule that only loopback is served without one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from edge.errors import UsageError

VARIABLE = "EDGE_CLOUD_TOKEN"
SHORTEST = 16
"""Characters; a token is guessed as fast as the endpoint answers."""


class Tokens:
    """The tokens of which a request brings one; none: everybody may ask."""

    def __init__(self, tokens: Sequence[str] = ()) -> None:
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, authorization: bytes) -> bool:
        """Whether an Authorization header's value brings one; takes as long whichever it is, and whether it is one."""
        if not self._digests:
            return True
        scheme, _, token = authorization.partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches) and scheme.lower() == b"bearer"


def read_tokens(file: Path | None) -> Tokens:
    """Those of a file, one a line, and of EDGE_CLOUD_TOKEN. Raises UsageError for a file that has none or short ones."""
    tokens = [os.environ[VARIABLE]] if os.environ.get(VARIABLE) else []
    where = VARIABLE
    _check(tokens, where)
    if file is not None:
        where = f"--token-file {file}"
        try:
            lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UsageError(f"{where}: cannot be read: {why}; give a text file with one token a line") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise UsageError(f"{where}: holds no token; write one a line, as `openssl rand -hex 32` makes them")
        _check(found, where)
        tokens += found
    return Tokens(tokens)


def _check(tokens: Sequence[str], where: str) -> None:
    if any(len(token) < SHORTEST or not token.isascii() or " " in token for token in tokens):
        raise UsageError(f"{where}: a token is at least {SHORTEST} ASCII characters without spaces; try openssl rand -hex 32")


def check_exposure(host: str, *, guarded: bool, insecure: bool) -> None:
    """Raises UsageError for an address beyond loopback when nothing asks who comes."""
    if guarded or insecure or ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return
    raise UsageError(
        f"--host {host}: others could ask without a token; give --token-file FILE, --tls-client-ca FILE or --insecure"
    )
