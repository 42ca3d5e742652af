"""A page for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.serving import TOKEN, Page, serving


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this user's."""
    monkeypatch.delenv("EDGE_WEB_TOKEN", raising=False)


@pytest.fixture
def page() -> Iterator[Page]:
    """One on loopback, without a token, of sources `a` and `b`."""
    with serving() as served:
        yield served


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    """A file with TOKEN that is nobody else's."""
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def locked(token_file: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """One that asks for TOKEN, and answers wrong ones sooner than usual."""
    monkeypatch.setattr("edge.web.door.WRONG_S", 0.01)
    with serving(token_file=token_file) as served:
        yield served
