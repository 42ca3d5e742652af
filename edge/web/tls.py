"""The server's side of TLS."""

from __future__ import annotations

import ssl

from edge.tls import load_chain


def context_of(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS 1.2 and later with this certificate chain and key (PEM); None without a certificate. Raises UsageError."""
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_chain(context, "--web", cert, key)
    return context
