"""Ask again when waiting can help, and only then."""

from __future__ import annotations

import random
from typing import final

from tracegraph.errors import WrongModel
from tracegraph.llm.messages import Reply, Request
from tracegraph.llm.model import Ask, LanguageModel, Pause, Steps, Wrapper

__all__ = ["Retrying", "status_of", "worth_retrying"]

_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries as `status` or `status_code`, or None."""
    for attribute in ("status", "status_code"):
        status = getattr(error, attribute, None)
        if isinstance(status, int):
            return status
    return None


def worth_retrying(error: BaseException) -> bool:
    """Whether the same request may succeed later: a rate limit, a 5xx, a timeout, a lost line.

    The HTTP status decides, as `status` or `status_code` of the error; without one, a timeout or
    a connection error of Python is worth it. Words in a message never decide.

    >>> from tracegraph.errors import ModelFailed
    >>> worth_retrying(ModelFailed("slow down", status=429))
    True
    >>> worth_retrying(ModelFailed("no such option", status=400))
    False
    """
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT
    return isinstance(error, TimeoutError | ConnectionError)


@final
class Retrying(Wrapper):
    """A language model that asks again after a passing failure.

    It asks at most `attempts` times and waits what the provider asked for (Retry-After), else a
    random time below `wait`, doubled every time (exponential backoff with full jitter, Brooker
    2015, AWS Architecture Blog). A provider that asks for more than `longest` seconds gets no
    second request. The error of the last attempt is raised as it came, with a note.

    >>> from tracegraph.errors import ModelFailed
    >>> from tracegraph.llm import Scripted
    >>> flaky = Scripted([ModelFailed("busy", status=503), "done"])
    >>> Retrying(flaky, wait=0.0)("Go").text
    'done'
    """

    def __init__(
        self,
        inner: LanguageModel,
        *,
        attempts: int = 5,
        wait: float = 1.0,
        longest: float = 60.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(inner)
        if attempts < 1 or not wait >= 0 or not longest >= 0:
            raise WrongModel(
                "Retrying needs attempts of 1 or more, wait and longest of 0 or more seconds, "
                f"got attempts={attempts}, wait={wait}, longest={longest}"
            )
        self._attempts, self._wait, self._longest = attempts, wait, longest
        self._random = random.Random(seed)

    def steps(self, request: Request) -> Steps:
        """Ask until there is a reply or asking again cannot help."""
        attempt = 1
        while True:
            try:
                reply: Reply = yield Ask(self._inner, request)
                return reply
            except Exception as error:
                pause = self._pause(error, attempt)
                if pause is None:
                    if attempt > 1:
                        error.add_note(f"asked {attempt} times")
                    raise
            yield Pause(pause)
            attempt += 1

    def _pause(self, error: Exception, attempt: int) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none."""
        if attempt == self._attempts or not worth_retrying(error):
            return None
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float):
            return float(asked) if asked <= self._longest else None
        return self._random.uniform(0, min(self._longest, self._wait * 2.0 ** (attempt - 1)))
