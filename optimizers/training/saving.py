"""Keep a training on disk so that it goes on exactly, whenever it was stopped or killed.

The state is kept after each step; tensors that move by themselves, beside it in a checkpoint. What is
paid for in between is kept at once, in journals: every run and evaluation, every reply of a model, every
verdict. So the step that was cut off is done again with what it had paid for already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol, cast, final

from optimizers.training.kept_tensors import KeptTensors
from tracegraph.errors import OptimizerError
from tracegraph.history import State
from tracegraph.kinds import show
from tracegraph.llm.model import is_foreign
from tracegraph.llm.passing import Foreign

__all__ = ["Journals", "Store", "as_store"]

_JOURNALS: Final = ("evaluations", "receipts", "allowances")


class Store(Protocol):
    """Keeps the state of a training between processes; `tracegraph.history.State` is one.

    It may also have ``journal(about)``, a dict on disk that keeps each fact at once, ``hold()``, which
    refuses a second training at the same time, and ``folder()``, a place for files, which a training
    needs whose optimizers move tensors.
    """

    def load(self) -> Mapping[str, Any] | None:
        """The state that was saved last, or ``None``."""
        ...

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state, all of it or none."""
        ...


def as_store(given: Any) -> Store | None:
    """A store from a store, or from the place of a run history.

    Raises:
        OptimizerError: it is neither.
    """
    if isinstance(given, (str, Path)):
        return State("training", given)
    if given is None or all(callable(getattr(given, name, None)) for name in ("load", "save")):
        return cast("Store | None", given)
    raise OptimizerError(
        f"store must be a path or have load() and save(), such as tracegraph.history.State, got "
        f"{show(given, 80)}"
    )


@final
class Journals:
    """What a store keeps between the steps; does nothing where the store cannot.

    Attributes:
        tensors: those of the runs in `receipts`; ``None`` where the store has no place for files.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        make = getattr(store, "journal", None)
        self._kept: dict[str, Any] = {name: make(name) for name in _JOURNALS} if make else {}
        folder = getattr(store, "folder", None)
        self.tensors = KeptTensors(folder() / "runs") if make and folder else None

    @property
    def evaluations(self) -> MutableMapping[str, Any] | None:
        """How candidates did, by split, candidate and number of the example."""
        return self._kept.get("evaluations")

    @property
    def receipts(self) -> MutableMapping[str, Any] | None:
        """What models replied, runs and verdicts, since the state was saved last."""
        return self._kept.get("receipts")

    @property
    def allowances(self) -> MutableMapping[str, Any] | None:
        """What calls under `Budgeted` cost since the state was saved last."""
        return self._kept.get("allowances")

    def held(self) -> AbstractContextManager[Any]:
        """A block in which no other training may use the store.

        Raises:
            HistoryError: another one does.
        """
        hold = getattr(self._store, "hold", None)
        return cast("AbstractContextManager[Any]", hold()) if hold else nullcontext()

    @contextmanager
    def asked(self, members: Iterable[Any]) -> Iterator[None]:
        """A block in which the replies that optimizers' models of a person's own class give can be kept."""
        asking = [m for m in _single(members) if is_foreign(getattr(m, "llm", None))]
        models = [(member, member.llm) for member in asking if self._kept]
        try:
            for member, model in models:
                member.llm = Foreign(model)
            yield
        finally:
            for member, model in models:
                member.llm = model

    def saved(self) -> None:
        """Forget what stands in the state by now."""
        if self.receipts is not None:
            self.receipts.clear()
        if self.tensors is not None:
            self.tensors.clear()

    def clear(self) -> None:
        """Forget what was kept."""
        for journal in self._kept.values():
            journal.clear()
        if self.tensors is not None:
            self.tensors.clear()


def _single(members: Iterable[Any]) -> Iterator[Any]:
    """The optimizers, with those inside groups such as `Several` and `Mix`."""
    for member in members:
        inside = getattr(member, "optimizers", None)
        yield from [member] if inside is None else _single(inside)
