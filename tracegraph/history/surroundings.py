"""What a run ran with: versions, the commit, the machine, seeds, how it was started.

Nothing of the environment's values.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from typing import Any

from tracegraph.history.started import started

__all__ = ["surroundings"]

_PACKAGES = (
    "tracegraph", "numpy", "torch", "pydantic", "litellm", "networkx", "safetensors", "scipy",
    "transformers", "openai",
)  # fmt: skip


def surroundings(seed: int | None) -> dict[str, Any]:
    """Versions of what is installed, the git commit, the machine, known seeds, how it was started."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}",
        "program": sys.argv[0] if sys.argv else "",
        "seeds": _seeds(seed),
        "started": started(),
    }


@cache
def _versions() -> dict[str, str]:
    """Of what is installed: a package may be imported long after the run began."""
    found = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if "tracegraph" not in found:  # it runs from its source
        found["tracegraph"] = str(getattr(sys.modules.get("tracegraph"), "__version__", "unknown"))
    return found


@cache
def _commit() -> str | None:
    """The commit of the working directory, with ``+`` behind it where files were changed."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=2, stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _seeds(seed: int | None) -> dict[str, int]:
    seeds = {} if seed is None else {"seed": seed}
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "initial_seed"):
        seeds["torch"] = int(torch.initial_seed())
    return seeds
