"""Certificates and keys from PEM files into a TLS context; what is wrong with one is one line that names its option."""

from __future__ import annotations

import ssl

from edge.errors import UsageError


def trust(context: ssl.SSLContext, flag: str, ca: str) -> None:
    """Have the peer's certificate checked against the authorities in `ca`, the value of option `flag`. Raises UsageError."""
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise UsageError(f"{flag} {ca}: {_reason(error)}; give a PEM file of certificates") from None


def load_chain(context: ssl.SSLContext, prefix: str, cert: str, key: str | None) -> None:
    """Show this certificate chain, whose key is in `key` or in the same file: the options PREFIX-cert and PREFIX-key.

    Raises UsageError.
    """
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        where = f"{prefix}-cert {cert}" + ("" if key is None else f", {prefix}-key {key}")
        there = f" in one file, or the key as {prefix}-key" if key is None else ""
        raise UsageError(
            f"{where}: {_reason(error)}; give a PEM certificate and its key{there}, without a passphrase"
        ) from None


def _no_passphrase() -> str:
    """Instead of a question on the terminal."""
    return ""


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "no PEM certificate with its key"
    return getattr(error, "strerror", None) or "cannot be read"
