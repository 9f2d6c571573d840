"""TextGrad: one critique per edge, carried back operation by operation, then one call for new values.

Source: Yuksekgonul et al., "TextGrad: Automatic 'Differentiation' via Text", 2024 (arXiv 2406.07496),
sections 2 and 3. Operations that are no model calls pass a critique on as it is, as in Yin and Wang,
"LLM-AutoDiff", 2025 (arXiv 2501.16673). Memory and momentum reach the prompt here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

from optimizers.base import Proposal, Usage
from optimizers.llm.asking import FORM, ModelOptimizer
from optimizers.llm.questions import usage_of
from optimizers.records import said_of
from tracegraph.errors import OptimizerError
from tracegraph.graph import Graph
from tracegraph.kinds import show
from tracegraph.llm import Message
from tracegraph.llm.tokens import cut
from tracegraph.node import Node
from tracegraph.problem import Problem

__all__ = ["TextGrad"]

_CRITIC = """\
You criticise one input of one operation in a workflow. Say in a few sentences what about this input led to
the criticism of the operation's result, and how it should change. Give every concrete fact that is needed
for that (examples, right answers), because whoever changes the input sees only your words. Do not write the
new input."""

_SYSTEM = (
    """\
You change variables of a workflow so that the criticism of them is answered, and keep what is right already.
#Criticism is of the present values; #Past criticism is of earlier runs and still true; #Earlier shows
the values before, the latest last.
"""
    + FORM
)


@final
class TextGrad(ModelOptimizer):
    """Criticises edge by edge, from the outputs to the parameters, then asks for new values.

    Edges that lead to no parameter are not criticised, and neither are outputs of which nothing was said
    in words. Several critiques of one node are merged, each once. A second step by the same feedback
    uses the critiques that are there.

    Args:
        momentum: how many earlier values of each parameter the model is shown.
        criticised: which operations the model criticises; the others pass a critique on. By default
            bundles are criticised, and operators and methods are not.
        parameters: see `ModelOptimizer`, as for the other options. ``memory_size`` counts critiques.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> @tg.bundle
    ... def answer(prompt):
    ...     return "Hi"
    >>> prompt = tg.node("Greet.", trainable=True, name="prompt")
    >>> llm = Scripted(["It does not say how.", '{"suggestion": {"prompt": "Greet politely."}}'])
    >>> textgrad = TextGrad([prompt], llm=llm)
    >>> _ = textgrad.backward(answer(prompt).upper(), "Too short.")
    >>> print(textgrad.step())
    prompt: 'Greet.' -> 'Greet politely.'
    """

    def __init__(
        self,
        parameters: Any,
        *args: Any,
        momentum: int = 2,
        criticised: Callable[[Node[Any]], bool] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(parameters, *args, **options)
        if not isinstance(momentum, int) or momentum < 0:
            raise OptimizerError(
                f"momentum must be a whole number from 0, got {show(momentum, 40)}"
            )
        self.criticised = criticised or _is_bundle
        self.earlier: dict[str, deque[str]] = {
            name: deque(maxlen=momentum) for name in self.named_parameters
        }
        self._critiques: dict[tuple[int, ...], dict[str, dict[str, None]]] = {}
        self._present: dict[str, dict[str, None]] = {}
        self._edges: dict[tuple[int, int, tuple[str, ...]], str] = {}

    def propose(
        self, *, mask: Iterable[str] = (), verbose: bool = False, **options: Any
    ) -> Proposal:
        """Criticise what was not criticised yet, then ask for new values."""
        usage = self.prepare(**options)
        proposal = super().propose(mask=mask, verbose=verbose, **options)
        for name, critiques in self._present.items():
            self.memory.add(f"{name}: {' '.join(text.split())}" for text in critiques)
        return Proposal(
            proposal.values, proposal.reasoning, proposal.rejections,
            usage + proposal.usage, proposal.note,
        )  # fmt: skip

    def prepare(self, **options: Any) -> Usage:
        """Criticise what was not criticised yet."""
        outputs = {i: n for p in self.parameters for i, n in p.feedback.outputs.items()}
        key = tuple(sorted(outputs))
        usage = Usage()
        if key not in self._critiques:
            found, usage = self._backward([outputs[i] for i in key], options)
            self._critiques, self._edges = {key: found}, {}
        self._present = self._critiques[key]
        return usage

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Any:
        """Assign, and keep the values before as momentum."""
        update = super().settle(proposal, bypassing=bypassing)
        if not bypassing:
            for change in update.changes:
                self.earlier[change.name].append(show(change.before, self.budget))
        return update

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The variables, the critiques of each, past ones, and the values before."""
        hidden = ["Code", "Documentation", "Inputs", "Others", "Outputs", "Feedback"]
        parts = [problem.text(hidden)]
        now = [f"{name}: {text}" for name, critiques in self._present.items() for text in critiques]
        parts.append("#Criticism\n" + "\n".join(_within(now, self.budget * 2)))
        moved = [f"{name} = {value}" for name, kept in self.earlier.items() for value in kept]
        if moved:
            parts.append("#Earlier\n" + "\n".join(moved))
        if self.rejected:
            parts.append("#Refused\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        room = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts)) - 30
        flat = [" ".join(line.split()) for line in now]
        past = self.memory.lines(room=room, without=flat)
        if past:
            parts.append("#Past criticism\n" + "\n".join(past))
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]

    def learn(self, problem: Problem) -> None:
        """Facts are not kept here: critiques are."""

    def state_dict(self) -> dict[str, Any]:
        """As for every optimizer that asks, and the values before."""
        return {**super().state_dict(), "earlier": {n: list(v) for n, v in self.earlier.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        super().load_state_dict(state)
        for name, values in dict(state.get("earlier", {})).items():
            if name in self.earlier:
                self.earlier[name].clear()
                self.earlier[name].extend(map(str, values))

    # The walk

    def _backward(
        self, outputs: list[Node[Any]], options: Mapping[str, Any]
    ) -> tuple[dict[str, dict[str, None]], Usage]:
        """Carry critiques from the outputs to the parameters; one visit for each node."""
        names = {id(p): name for name, p in self.named_parameters.items() if p.trainable}
        own = [p for p in self.parameters if p.trainable]
        graph = Graph.of(outputs).between(own)
        onpath = {n.id for n in graph.nodes}
        waiting: dict[int, dict[str, None]] = {output.id: {} for output in outputs}
        for said in map(said_of, own):
            for number, (remarks, _) in said.items():
                waiting[number].update(dict.fromkeys(remarks))
        arrived: dict[str, dict[str, None]] = {}
        usage = Usage()
        for node in reversed(graph.nodes):
            critiques = waiting.pop(node.id, {})
            if not critiques:
                continue
            parameter = node.parameter
            if parameter is not None and id(parameter) in names:
                arrived.setdefault(names[id(parameter)], {}).update(critiques)
                continue
            sent: set[int] = set()
            for name, source in zip(node._names, node._inputs, strict=True):
                if source.id not in onpath or source.id in sent:
                    continue
                sent.add(source.id)
                if self.criticised(node):
                    edge = (node.id, source.id, tuple(critiques))
                    if edge not in self._edges:  # paid for, and kept when a later edge fails
                        text, cost = self._criticise(node, name, source, critiques, options)
                        self._edges[edge] = text
                        usage += cost
                    text = self._edges[edge]
                    passed = {text: None} if text else {}
                else:
                    passed = critiques
                waiting.setdefault(source.id, {}).update(passed)
        return arrived, usage

    def _criticise(
        self,
        node: Node[Any],
        name: str,
        source: Node[Any],
        critiques: Mapping[str, None],
        options: Mapping[str, Any],
    ) -> tuple[str, Usage]:
        """What is wrong with one input of one operation."""
        room = max(200, self.budget)
        others = [
            pair for pair in zip(node._names, node._inputs, strict=True) if pair[1] is not source
        ]
        share = max(40, room // max(1, len(others)))
        lines = [f"{other} = {show(given._data, share)}" for other, given in others]
        beside = "\n".join(_within(lines, room, "inputs"))
        operation = node.operation
        about = "" if operation is None else f"{operation.signature}: {operation.doc}"
        said = node.failure.text() if node.failure is not None else show(node._data, room)
        text = (
            f"Operation {about}\n{beside}\nresult = {said}\ncriticism of the result: "
            + "\n".join(_within(list(critiques), room))
            + f"\n\nThe input to criticise:\n{name} = {show(source._data, room)}"
        )
        reply = self.exchange([Message("system", _CRITIC), Message("user", text)], **options)
        return reply.text.strip(), usage_of(reply)


def _within(lines: list[str], room: int, what: str = "critiques") -> list[str]:
    """The lines that fit into so many characters, and a note of how many do not; the first may be cut."""
    taken: list[str] = []
    for line in lines:
        if taken and len(line) >= room:
            return [*taken, f"({len(lines) - len(taken)} further {what} are left out)"]
        taken.append(cut(line, room))
        room -= len(taken[-1]) + 1
    return taken


def _is_bundle(node: Node[Any]) -> bool:
    return node.operation is not None and node.operation.code is not None
