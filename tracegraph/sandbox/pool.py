"""Sandboxed calls as futures, so that code which takes any executor takes this one."""

from __future__ import annotations

import inspect
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tracegraph.errors import SandboxError
from tracegraph.sandbox.policy import Policy
from tracegraph.sandbox.runner import Runner, open_sandbox
from tracegraph.spans import lines_of

__all__ = ["Code", "SandboxPool"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Code:
    """Source text and the name in it that is called: what a SandboxPool takes for a function.

    >>> Code("def f(x):\\n    return x + 1\\n", "f").entry
    'f'
    """

    source: str
    entry: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Code:
        """The code of a plain function, without its decorators, closure or globals.

        Raises:
            SandboxError: where its source cannot be found, or it needs variables from around it.
        """
        if not inspect.isfunction(function) or function.__name__ == "<lambda>":
            raise SandboxError(f"Code.of takes a function made by `def`, got {function!r}")
        if function.__closure__:
            names = ", ".join(function.__code__.co_freevars)
            raise SandboxError(f"{function.__name__} uses {names} from around it; pass them")
        try:
            text = textwrap.dedent(inspect.getsource(function))
        except OSError as error:
            raise SandboxError(f"the source of {function.__name__} cannot be found") from error
        lines = lines_of(text)
        first = next((i for i, line in enumerate(lines) if line.startswith(("def ", "async "))), 0)
        return cls("".join(lines[first:]), function.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: code is run by a sandbox."""
        raise SandboxError(f"{self.entry!r} is code to be run by a SandboxPool, not called here")


class SandboxPool(Executor):
    """An executor whose calls run in a sandbox, each in a fresh child, `workers` at a time.

    `submit` and `map` take a `Code` for the function; a future's result is the code's value, and
    its exception is the code's (`Result.error`).

    Args:
        workers: how many calls run at once.
        policy: the limits of each.
        sandbox: as for `open_sandbox`; an object of your own is closed with the pool.

    >>> with SandboxPool(2, policy=Policy(preload=())) as pool:
    ...     list(pool.map(Code("def f(x):\\n    return x * x\\n", "f"), [1, 2, 3]))
    [1, 4, 9]
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        policy: Policy | None = None,
        sandbox: str | Runner = "isolated",
    ) -> None:
        if not isinstance(workers, int) or workers < 1:
            raise SandboxError(f"workers must be 1 or more, got {workers!r}")
        self.sandbox = open_sandbox(sandbox, policy)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Run `fn(*args, **kwargs)` in the sandbox, `fn` being a `Code`.

        Raises:
            SandboxError: for any other kind of function.
        """
        if not isinstance(fn, Code):
            raise SandboxError(
                f"a SandboxPool runs Code, got {fn!r}; Code.of takes a plain function"
            )
        return self._threads.submit(self._run, fn, args, kwargs)

    def _run(self, code: Code, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.sandbox.call(code.source, code.entry, args, kwargs).unwrap()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more, and end the sandbox when all is done; return at once where not to `wait`."""
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            self._finish()
        else:
            threading.Thread(target=self._finish, name="sandbox-shutdown").start()

    def _finish(self) -> None:
        self._threads.shutdown(wait=True)
        self.sandbox.close()
