"""The optimizers of a training that step by themselves: their tensors move on, and are no candidates.

What they move and what they remember is kept in checkpoints (safetensors and JSON), one for each state of
the training that is saved. The state names its checkpoint, and an older one is deleted only after the
state that named it is gone: so a training that is killed finds a whole pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

from optimizers.partition import parameters_of
from tracegraph.errors import OptimizerError
from tracegraph.history.checkpoint import checkpoints, load, save
from tracegraph.parameter import Parameter

__all__ = ["Movers"]

_KEPT: Final = 2  # the one that the saved state names, and the one that the next state will name


@final
class Movers:
    """Optimizers with ``step`` and without ``propose``, such as `AdamW` or those of torch.

    Attributes:
        checkpoint: the name of the one that holds what they were at the last save; empty for none.
    """

    def __init__(self, optimizers: Sequence[Any]) -> None:
        self.optimizers = list(optimizers)
        self.checkpoint = ""
        self._folder: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.optimizers)

    def keep_in(self, store: Any) -> None:
        """Take the place that a store has for files; nothing where nothing moves.

        Raises:
            OptimizerError: the store has none, or an optimizer cannot say what it remembers.
        """
        if store is None or not self:
            return
        names = ", ".join(sorted({type(m).__name__ for m in self.optimizers}))
        if not callable(getattr(store, "folder", None)):
            raise OptimizerError(
                f"store= has no folder() for the tensors and the state of {names}, so the training "
                "could not go on exactly; give a path, or a tracegraph.history.State"
            )
        for mover in self.optimizers:
            lacking = [n for n in ("state_dict", "load_state_dict") if not hasattr(mover, n)]
            if lacking:
                raise OptimizerError(
                    f"store= cannot keep the state of {type(mover).__name__}, which has no "
                    f"{lacking[0]}(), so the training could not go on exactly"
                )
        self._folder = store.folder()

    def step(self) -> None:
        """Let each move by the feedback that has arrived."""
        for mover in self.optimizers:
            mover.step()

    def save(self) -> None:
        """Write a checkpoint; those before the last one go.

        Raises:
            CheckpointError: something that an optimizer remembers cannot be kept; says what.
            OSError: the disk refuses.
        """
        if self._folder is None:
            return
        there = checkpoints(self._folder)
        last = self.checkpoint or (there[-1].name if there else "0")
        parameters, tensors = self._moved()
        made = save(
            self._folder, step=int(last.rpartition("-")[2]) + 1, keep=_KEPT,
            parameters=parameters or None, optimizers=self._named(), data=tensors,
        )  # fmt: skip
        self.checkpoint = made.name

    def load(self, name: str) -> None:
        """Be again what a checkpoint holds, the random state included.

        Raises:
            CheckpointError: it is not there, not whole, or of other optimizers; nothing has changed.
        """
        if self._folder is None:
            return
        parameters, tensors = self._moved()
        found = load(self._folder / name, parameters=parameters or None, optimizers=self._named())
        for place, tensor in tensors.items():
            tensor.detach().copy_(found.data[place].detach())
        self.checkpoint = name

    def _named(self) -> dict[str, Any]:
        return {f"{at} {type(m).__name__}": m for at, m in enumerate(self.optimizers)}

    def _moved(self) -> tuple[dict[str, Parameter[Any]], dict[str, Any]]:
        """What they move, by optimizer and place: parameters, and tensors of the user's own."""
        held = {
            f"{at}.{place}": moved
            for at, mover in enumerate(self.optimizers)
            for place, moved in enumerate(parameters_of(mover))
        }
        parameters = {name: p for name, p in held.items() if isinstance(p, Parameter)}
        return parameters, {name: p for name, p in held.items() if name not in parameters}
