"""Ask no faster than a provider allows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from tracegraph.errors import WrongModel
from tracegraph.forking import new_lock
from tracegraph.llm.messages import Reply, Request
from tracegraph.llm.model import Ask, LanguageModel, Pause, Steps, Wrapper
from tracegraph.llm.tokens import count_tokens

__all__ = ["RateLimited"]

_WINDOW = 60.0


@dataclass(slots=True)
class _Slot:
    start: float
    tokens: int


@final
class RateLimited(Wrapper):
    """A language model that starts at most so many requests, and tokens, in any 60 seconds.

    Requests wait in the order in which they came. Tokens are estimated before a request starts
    (`count_tokens` of the prompt, and `reply_tokens` or the request's max_tokens for the answer)
    and corrected by the usage that the provider reports. `clock` gives seconds.

    >>> from tracegraph.llm import Scripted
    >>> RateLimited(Scripted(["hi"]), requests_per_minute=60)("Hello").text
    'hi'
    """

    def __init__(
        self,
        inner: LanguageModel,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        reply_tokens: int = 512,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        for name, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if limit is not None and limit < 1:
                raise WrongModel(f"{name}_per_minute must be 1 or more, got {limit}")
        self._requests, self._tokens = requests_per_minute, tokens_per_minute
        self._reply_tokens, self._clock = reply_tokens, clock
        self._slots: deque[_Slot] = deque()
        self._lock = new_lock()

    def steps(self, request: Request) -> Steps:
        """Wait for a slot, then ask."""
        slot, wait = self._reserve(self._estimate(request))
        if wait > 0:
            yield Pause(wait)
        reply: Reply = yield Ask(self._inner, request)
        if reply.usage is not None:
            slot.tokens = reply.usage.total
        return reply

    def _estimate(self, request: Request) -> int:
        prompt = sum(count_tokens(message.text) for message in request.messages)
        options = request.options
        answer = options.get("max_tokens") or options.get("max_completion_tokens")
        tokens = prompt + int(answer or self._reply_tokens)
        if self._tokens is not None and tokens > self._tokens:
            raise WrongModel(
                f"a request of about {tokens:,} tokens can never start under a limit of "
                f"{self._tokens:,} tokens per minute; shorten it, lower max_tokens, or raise the "
                "limit"
            )
        return tokens

    def _reserve(self, tokens: int) -> tuple[_Slot, float]:
        """A slot at the earliest time that keeps every window of 60 s within the limits."""
        with self._lock:
            now = self._clock()
            while self._slots and self._slots[0].start <= now - _WINDOW:
                self._slots.popleft()
            start = max(now, self._slots[-1].start if self._slots else now)
            if self._requests is not None and len(self._slots) >= self._requests:
                start = max(start, self._slots[-self._requests].start + _WINDOW)
            if self._tokens is not None:
                left = self._tokens - tokens
                for slot in reversed(self._slots):
                    left -= slot.tokens
                    if left < 0:
                        start = max(start, slot.start + _WINDOW)
                        break
            slot = _Slot(start, tokens)
            self._slots.append(slot)
            return slot, start - now
