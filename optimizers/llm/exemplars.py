"""Exemplars: choose demonstrations for a prompt from runs that went well.

Source: Wan, Sun, Nakhost and Arik, "Teach Better or Show Smarter? On Instructions and Exemplars in Automatic
Prompt Optimization", 2024 (arXiv 2406.15708): pairs that the workflow itself produced and that were right,
chosen by random search or by mutation of the best choice. The nearest ones are chosen as Liu et al., "What
Makes Good In-Context Examples for GPT-3?", 2021 (arXiv 2101.06804), find them to help most. No model is
asked: the trace has the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final, Literal, TypeAlias, final, get_args

from optimizers.base import Optimizer, Proposal
from optimizers.encoding import encoded
from optimizers.llm.similarity import covering, spread
from tracegraph.errors import OptimizerError
from tracegraph.feedback import Score
from tracegraph.graph import Graph
from tracegraph.kinds import show
from tracegraph.parameter import Parameter

__all__ = ["Exemplars"]

_TRIES: Final = 20
Search: TypeAlias = Literal["random", "mutation", "nearest", "diverse"]


@final
class Exemplars(Optimizer):
    """Fills a list of demonstrations from good runs, and searches for a good choice of them.

    The parameter is a list, at first often empty; the workflow writes it into its prompt. A
    demonstration is a dict of the inputs of the operation that used the list, and of its ``output``.

    Args:
        parameter: a list.
        k: how many demonstrations it may hold.
        good: the least score of a run that is worth showing.
        search: ``"random"`` draws each choice anew, ``"mutation"`` changes one of the present ones,
            ``"nearest"`` takes those most alike to the examples that are not good yet, ``"diverse"`` those
            least alike.
        seed: of all chance.

    >>> import tracegraph as tg
    >>> @tg.bundle
    ... def answer(shown, question):
    ...     return question.upper()
    >>> shown = tg.node([], trainable=True, name="shown")
    >>> exemplars = Exemplars(shown, k=1)
    >>> _ = exemplars.backward(answer(shown, "why"), 1.0)
    >>> _ = exemplars.step()
    >>> shown.data
    [{'question': 'why', 'output': 'WHY'}]
    """

    def __init__(
        self,
        parameter: Parameter[Any],
        *,
        k: int = 4,
        good: float = 1.0,
        search: Search = "random",
        seed: int = 0,
    ) -> None:
        super().__init__([parameter])
        self.parameter = self.parameters[0]
        if len(self.parameters) != 1 or not isinstance(self.parameter.data, list):
            raise OptimizerError(
                f"Exemplars fills one parameter that is a list, got {show(parameter, 80)}"
            )
        if not isinstance(k, int) or k < 1:
            raise OptimizerError(f"k must be a whole number from 1, got {show(k, 40)}")
        if search not in get_args(Search):
            raise OptimizerError(f"search is one of {get_args(Search)}, got {search!r}")
        self.k, self.good, self.search, self.seed = k, good, search, seed
        self.pool: dict[str, dict[str, Any]] = {}
        self._missed: list[str] = []
        self._turn = 0
        self._tried: set[tuple[str, ...]] = set()

    def propose(self, **options: Any) -> Proposal:
        """Take in the good runs, and choose some of all that were good."""
        self._harvest()
        chosen = self._choose()
        if chosen is None:
            return Proposal({}, note=f"no new choice among {len(self.pool)} demonstrations")
        self._tried.add(tuple(sorted(chosen)))
        return Proposal({self.parameter: [dict(self.pool[key]) for key in chosen]})

    def state_dict(self) -> dict[str, Any]:
        """The pool and which choices were tried."""
        return {
            "pool": list(self.pool.values()),
            "turn": self._turn,
            "tried": sorted(map(list, self._tried)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            pool = {_key(demo): dict(demo) for demo in state["pool"]}
            turn, tried = int(state["turn"]), {tuple(keys) for keys in state["tried"]}
        except (KeyError, TypeError, ValueError) as error:
            raise OptimizerError(f"this is no state of Exemplars: {show(state, 80)}") from error
        self.pool, self._turn, self._tried = pool, turn, tried

    def _harvest(self) -> None:
        arrived = self.parameter.feedback
        scores = arrived[Score].outputs if Score in arrived else {}
        self._missed = []
        for number, output in sorted(arrived.outputs.items()):
            given = [score for _, score in scores.get(number, ())]
            if not given:
                continue
            for node in Graph.of(output).between([self.parameter]).nodes:
                if not any(s.parameter is self.parameter for s in node._inputs):
                    continue
                demo = {
                    name: source._data
                    for name, source in zip(node._names, node._inputs, strict=True)
                    if source.parameter is None
                }
                if min(given) < self.good:
                    self._missed.append(_text(demo))
                    continue
                if node.failure is not None:
                    continue
                demo["output"] = node._data
                try:
                    self.pool.setdefault(_key(demo), demo)
                except OptimizerError:
                    continue  # it holds what cannot be written down

    def _choose(self) -> list[str] | None:
        keys = list(self.pool)
        size = min(self.k, len(keys))
        if not size:
            return None
        present = [key for key in map(_key, self.parameter.data) if key in self.pool]
        for attempt in range(_TRIES):
            random = Random(f"{self.seed}/{self._turn}")
            self._turn += 1
            if self.search == "mutation" and len(present) == size < len(keys):
                chosen = list(present)
                chosen[random.randrange(size)] = random.choice(
                    [key for key in keys if key not in present]
                )
            else:
                chosen = self._drawn(keys, size, random, attempt)
            if tuple(sorted(chosen)) not in self._tried and sorted(chosen) != sorted(present):
                return chosen
        return None

    def _drawn(self, keys: list[str], size: int, random: Random, attempt: int) -> list[str]:
        """A choice by likeness, each attempt another one; by chance where these are used up."""
        texts = [_text({n: v for n, v in self.pool[k].items() if n != "output"}) for k in keys]
        if attempt < len(keys) and self.search == "nearest" and self._missed:
            return [keys[i] for i in covering(texts, self._missed, size, start=attempt)]
        if attempt < len(keys) and self.search == "diverse":
            return [keys[i] for i in spread(texts, size, start=attempt)]
        return random.sample(keys, size)


def _text(demo: Mapping[str, Any]) -> str:
    return " ".join(v if isinstance(v, str) else show(v) for v in demo.values())


def _key(demo: Mapping[str, Any]) -> str:
    return repr(encoded(dict(demo)))
