"""Run code that a model wrote.

A warm interpreter behind walls of the kernel's making forks a child for every call. Values go in
and out as JSON and raw arrays; nothing is pickled. `docs/explanation/sandbox.md` says what each
wall stops, and what none does.

>>> with open_sandbox(policy=Policy(preload=())) as box:
...     box.call("def f(x):\\n    return x + 1\\n", "f", (2,)).value
3
"""

from tracegraph.sandbox.box import Sandbox
from tracegraph.sandbox.policy import Policy
from tracegraph.sandbox.pool import Code, SandboxPool
from tracegraph.sandbox.result import Failure, Result
from tracegraph.sandbox.runner import Runner, open_sandbox

__all__ = [
    "Code",
    "Failure",
    "Policy",
    "Result",
    "Runner",
    "Sandbox",
    "SandboxPool",
    "open_sandbox",
]
