"""The processes of this machine, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tracegraph.sandbox import Sandbox

__all__ = ["descendants", "eventually", "idle", "running"]


def eventually(condition: Callable[[], bool], *, seconds: float = 20.0) -> bool:
    """Whether `condition` comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def idle(box: Sandbox) -> int:
    """How many processes a sandbox has while nothing runs in it: the zygote, a spare child, and the
    one outside its process namespace, where it has one.
    """
    return 3 if "namespaces" in box.layers else 2


def descendants(root: int) -> set[int]:
    """The numbers of every process that came from `root`."""
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue  # it ended meanwhile
        parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    frontier = {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def running(pid: int) -> bool:
    """Whether a process exists and is more than an entry that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
