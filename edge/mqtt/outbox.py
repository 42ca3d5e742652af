"""What waits for the broker: the newest messages, in order, and a count of those that were lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from edge.mqtt.topics import Message

WINDOW = 20
"""Messages under way at once, unacknowledged; a broker may ask for fewer."""


class Outbox:
    """Keeps the newest `limit` messages while the broker is away, and never fewer than `WINDOW` while it is there.

    What it must let go is counted in `lost`, and so is what has outlived its time. Filled and emptied from any thread.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.lost = 0
        self._limit, self._clock = limit, clock
        self._there = False
        self._waiting: deque[Message] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> bool:
        """Take in a message; False when something had to be let go for it, or itself."""
        with self._lock:
            self._waiting.append(message)
            return not self._shorten()

    def take(self) -> Message | None:
        """The oldest one that is still worth something; None where there is none."""
        with self._lock:
            while self._waiting:
                message = self._waiting.popleft()
                if message.until_s is None or message.until_s > self._clock():
                    return message
                self.lost += message.counted
            return None

    def put_back(self, messages: Iterable[Message]) -> None:
        """Put what was taken, oldest first, before everything else; they are over the limit until the next one comes."""
        with self._lock:
            self._waiting.extendleft(reversed(list(messages)))

    def broker_is(self, there: bool) -> None:
        """Whether messages need only wait for their turn, or for the broker to come back."""
        with self._lock:
            self._there = there
            self._shorten()

    def lose(self, count: int) -> None:
        """Count messages that were lost on their way."""
        with self._lock:
            self.lost += count

    def clear(self) -> int:
        """Let everything go; how many messages that were."""
        with self._lock:
            left = sum(message.counted for message in self._waiting)
            self._waiting.clear()
            self.lost += left
            return left

    def _shorten(self) -> int:
        limit = max(self._limit, WINDOW) if self._there else self._limit
        over = 0
        while len(self._waiting) > limit:
            self.lost += self._waiting.popleft().counted
            over += 1
        return over
