"""Keep runs in one file, read them back, compare them, go on from a checkpoint.

`tracegraph.run` keeps a run, `History` reads what was kept, `Facts` is a dict on disk,
`State` the state of a loop, and
`tracegraph.history.checkpoint` saves and restores parameters and optimizers.
"""

from tracegraph.history.facts import Facts, State
from tracegraph.history.kept_graph import KeptGraph, KeptNode
from tracegraph.history.live import Run, automatic_run, run
from tracegraph.history.reading import (
    Difference,
    Event,
    History,
    KeptCandidate,
    KeptReply,
    KeptRun,
    KeptStep,
    KeptValue,
    differences,
)
from tracegraph.history.store import HistoryWarning

__all__ = [
    "Difference",
    "Event",
    "Facts",
    "History",
    "HistoryWarning",
    "KeptCandidate",
    "KeptGraph",
    "KeptNode",
    "KeptReply",
    "KeptRun",
    "KeptStep",
    "KeptValue",
    "Run",
    "State",
    "automatic_run",
    "differences",
    "run",
]
