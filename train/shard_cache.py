"""Shards from http(s) servers in a folder of bounded size: fetched ahead, checked for length, the least used let go."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import urllib3

from edge.errors import DataError

TRIES = 5
BACKOFF_S = 0.5
TIMEOUT_S = 60.0
PIECE = 1 << 20
AHEAD = 2
"""Shards that are fetched at a time."""
OURS = re.compile(r"[0-9a-f]{16}-.+(?<!\.lock)(?<!\.part)", re.DOTALL)
"""Names of fetched files, whole; whatever else lies in the folder is somebody's own."""


def is_url(place: str) -> bool:
    """Whether a shard is fetched rather than opened."""
    return place.startswith(("http://", "https://"))


class ShardCache:
    """Files of URLs in `folder`, of at most `limit_mb` MB together, but for what is being fetched.

    Several processes may share the folder, and other files lie in it. A file that is open stays readable when it is let go.
    """

    def __init__(self, folder: Path, limit_mb: float, backoff_s: float = BACKOFF_S) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = int(limit_mb * 1e6)
        self._backoff_s = backoff_s
        self._http = urllib3.PoolManager(timeout=TIMEOUT_S, maxsize=AHEAD + 1, retries=urllib3.Retry(0, redirect=5))
        self._fetcher = ThreadPoolExecutor(AHEAD, "shards")
        self._coming: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def open(self, url: str, following: Sequence[str] = (), needed: int = 1) -> BinaryIO:
        """The shard's file, fetched if need be; of those `following`, what fits beside the `needed` ones comes meanwhile.

        Raises DataError when it cannot be fetched, or the needed ones do not fit.
        """
        for _ in range(TRIES):
            file = self._opened(url)
            if file is not None:
                fitting = self._limit // max(1, os.fstat(file.fileno()).st_size)
                if fitting < needed:
                    file.close()
                    raise DataError(
                        f"{url}: {needed} shards of its size are needed at a time, {self._limit / 1e6:g} MB hold {fitting}; "
                        "give a larger --cache-mb"
                    )
                for other in following[: fitting - needed]:
                    self._start(other)
                return file
            self._start(url).result()
        raise DataError(f"{url}: is let go of before it can be read; give a larger --cache-mb than {self._limit / 1e6:g}")

    def text(self, url: str) -> str | None:
        """A small file beside the shards, fetched anew; None when it is not there. Raises DataError."""
        try:
            response = self._http.request("GET", url, retries=urllib3.Retry(TRIES, backoff_factor=self._backoff_s))
        except urllib3.exceptions.HTTPError as error:
            raise DataError(f"{url}: cannot be fetched: {error}; look at the server") from None
        try:
            return response.data.decode() if response.status == 200 else None
        except UnicodeDecodeError:
            return None

    def close(self) -> None:
        """Wait for what is being fetched and stop."""
        self._fetcher.shutdown(cancel_futures=True)
        self._http.clear()

    def file(self, url: str) -> Path:
        """Where a URL's content is kept."""
        name = os.path.basename(urlsplit(url).path) or "shard"
        return self._folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"

    def _opened(self, url: str) -> BinaryIO | None:
        path = self.file(url)
        try:
            file = open(path, "rb")  # noqa: SIM115 -- whoever asked closes it
        except FileNotFoundError:
            return None
        self._used(url)
        return file

    def _used(self, url: str) -> bool:
        """Mark a file as used just now; whether it is there, which another process may just have let go of."""
        try:
            os.utime(self.file(url))
        except FileNotFoundError:
            return False
        return True

    def _start(self, url: str) -> Future[None]:
        with self._lock:
            coming = self._coming.get(url)
            if coming is None or (coming.done() and (coming.exception() is not None or not self._used(url))):
                coming = self._coming[url] = self._fetcher.submit(self._fetch, url)
            return coming

    def _fetch(self, url: str) -> None:
        path = self.file(url)
        with _locked(path.with_name(f"{path.name}.lock")):
            if path.exists():
                return
            part = path.with_name(f"{path.name}.part")
            for attempt in range(TRIES):
                try:
                    self._download(url, part)
                    break
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    if attempt == TRIES - 1:
                        raise DataError(f"{url}: cannot be fetched: {error}; look at the server, then --resume") from None
                    time.sleep(self._backoff_s * 2**attempt)
            os.replace(part, path)
        self._let_go(path)

    def _download(self, url: str, part: Path) -> None:
        """One attempt, into a file of its own. Raises OSError or HTTPError for what may pass, DataError for what will not."""
        response = self._http.request("GET", url, preload_content=False, decode_content=False)
        try:
            if response.status != 200:
                problem = f"{url}: the server answers {response.status}"
                if response.status < 500 and response.status not in (408, 429):
                    raise DataError(f"{problem}; correct the address")
                raise OSError(problem)
            with open(part, "wb") as file:
                for piece in response.stream(PIECE):
                    file.write(piece)
                size = file.tell()
            expected = response.headers.get("Content-Length")
            if expected is not None and size != int(expected):
                raise OSError(f"{size} of {expected} bytes came")
        finally:  # a connection that was not read to its end is of no more use
            response.close()

    def _let_go(self, newest: Path) -> None:
        """Remove the least recently used of what was fetched until the rest, `newest` among them, fits."""
        held = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                state = path.lstat()
                if OURS.fullmatch(path.name) and stat.S_ISREG(state.st_mode):
                    held.append((state.st_mtime_ns, state.st_size, path))
        total = sum(size for _, size, _ in held)
        for _, size, path in sorted(held):
            if total <= self._limit:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file that other processes respect, too."""
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
