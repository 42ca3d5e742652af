"""The server's side of TLS."""

from __future__ import annotations

import ssl

from edge.errors import UsageError


def context_of(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS 1.2 and later with this certificate chain and key (PEM); None without a certificate. Raises UsageError."""
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    where = f"--web-cert {cert}" + (f", --web-key {key}" if key else "")
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        there = " in one file, or the key as --web-key" if key is None else ""
        raise UsageError(
            f"{where}: {_reason(error)}; give a PEM certificate and its key{there}, without a passphrase"
        ) from None
    return context


def _no_password() -> str:
    """Instead of a question on the terminal."""
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else "no PEM certificate with its key"
    return getattr(error, "strerror", None) or "cannot be read"
