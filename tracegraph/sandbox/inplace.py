"""No sandbox at all: for code that a person read, called the way sandboxed code is."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tracegraph.errors import SandboxError
from tracegraph.sandbox.box import Host
from tracegraph.sandbox.policy import Policy
from tracegraph.sandbox.result import Result, failure_from
from tracegraph.sandbox.serve import describe, load

__all__ = ["InPlace"]


class InPlace:
    """Runs source text in this process, with all of its rights and none of the limits.

    Values are passed as they are, what the code prints is printed, and its exceptions are its own.

    >>> InPlace().call("def f(x):\\n    return [x]\\n", "f", (1,)).value
    [1]
    """

    layers: Mapping[str, str] = {}

    def __init__(self, policy: Policy | None = None) -> None:
        if policy is not None and policy.require:
            raise SandboxError(
                f"the policy requires {policy.require}; in place there are no layers: use 'isolated'"
            )

    def call(
        self,
        source: str,
        entry: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        host: Host | None = None,
        fresh: bool = True,
    ) -> Result:
        """As `Sandbox.call`; `fresh` changes nothing."""
        began, cpu = time.perf_counter(), time.process_time()
        try:
            value = load(source, entry, dict(host or {}))(*args, **(kwargs or {}))
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        except Exception as error:
            failure = failure_from(describe(error, ()), source, entry)
            result = Result(error=error, failure=failure, seconds=time.perf_counter() - began)
        else:
            seconds = time.perf_counter() - began
            result = Result(value=value, seconds=seconds, cpu_seconds=time.process_time() - cpu)
        return result

    def map(
        self,
        source: str,
        entry: str,
        many: Iterable[Sequence[Any]],
        *,
        host: Host | None = None,
        fresh: bool = False,
    ) -> list[Result]:
        """As `Sandbox.map`."""
        return [self.call(source, entry, args, host=host) for args in many]

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
