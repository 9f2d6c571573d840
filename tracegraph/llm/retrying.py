"""Ask again when waiting can help, and only then.

`tenacity` decides whether, and after how long; it neither sleeps nor awaits here, so that one policy
serves blocking and awaited calls.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, final

import tenacity

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
        self._policy = _Policy(
            retry=tenacity.retry_if_exception(
                lambda error: worth_retrying(error) and (_asked_wait(error) or 0.0) <= longest
            ),
            wait=_AskedOrRandom(wait, longest, random.Random(seed).uniform),
            stop=tenacity.stop_after_attempt(attempts),
            retry_error_callback=_raise_last,
        )

    def steps(self, request: Request) -> Steps:
        """Ask until there is a reply or asking again cannot help."""
        state = tenacity.RetryCallState(self._policy, fn=None, args=(), kwargs={})
        self._policy.begin()
        while True:
            try:
                step = self._policy.iter(state)
            except Exception as error:
                state.outcome = None  # else the error and its traceback hold each other
                if state.attempt_number > 1:
                    error.add_note(f"asked {state.attempt_number} times")
                raise
            if isinstance(step, tenacity.DoSleep):
                state.prepare_for_next_attempt()
                yield Pause(step)
            elif isinstance(step, tenacity.DoAttempt):
                try:
                    state.set_result((yield Ask(self._inner, request)))
                except Exception:
                    state.set_exception(sys.exc_info())  # type: ignore[arg-type]
            else:
                reply: Reply = step
                return reply


class _Policy(tenacity.BaseRetrying):
    """Says what to do next; who asks it does that."""

    def __call__(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("Retrying takes the steps of this policy one by one")


class _AskedOrRandom(tenacity.wait.wait_base):
    """What the provider asked for, else a random time below one that doubles."""

    def __init__(
        self, first: float, longest: float, uniform: Callable[[float, float], float]
    ) -> None:
        self._most = tenacity.wait_exponential(multiplier=first, max=longest)
        self._uniform = uniform

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        outcome = retry_state.outcome
        asked = _asked_wait(None if outcome is None else outcome.exception())
        return self._uniform(0, self._most(retry_state)) if asked is None else asked


def _asked_wait(error: BaseException | None) -> float | None:
    """Seconds of Retry-After, where a failure carries them."""
    asked = getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) else None


def _raise_last(state: tenacity.RetryCallState) -> Any:
    return None if state.outcome is None else state.outcome.result()
