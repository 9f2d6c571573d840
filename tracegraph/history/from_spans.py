"""Make a trace graph of the OpenTelemetry trace of an agent that knows nothing of tracegraph.

Each span becomes a node that holds what the span gave. Its inputs are what it was given, its prompt,
the spans inside it, and what came before it: the spans that it links to, or else those beside it that
had ended when it began, or else what came before the span around it. That is more than an agent need
have used, and never less than it could. The prompts can be parameters: feedback on an output then
reaches them, and an optimizer proposes new ones. The agent itself is not run.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

from tracegraph.errors import HistoryError, nearest
from tracegraph.failure import Failure
from tracegraph.history.read_spans import ReadSpan, read_spans
from tracegraph.kinds import show
from tracegraph.node import Node, distinct, record
from tracegraph.operators import Operation
from tracegraph.parameter import Parameter, node

__all__ = ["ImportedTrace", "import_spans"]


@dataclass(frozen=True, slots=True)
class ImportedTrace:
    """A trace as a graph.

    Attributes:
        nodes: by the id of the span.
        outputs: of the spans that stand in no other one, in order: give feedback here.
        parameters: the trainable prompts, by name.
        spans: what was read, by id.
    """

    nodes: Mapping[str, Node[Any]]
    outputs: tuple[Node[Any], ...]
    parameters: Mapping[str, Parameter[str]] = field(default_factory=dict)
    spans: Mapping[str, ReadSpan] = field(default_factory=dict)

    def named(self, name: str) -> list[Node[Any]]:
        """The nodes of the spans of that name, in order.

        Raises:
            HistoryError: there is none; the message names the nearest.
        """
        found = [self.nodes[span.id] for span in self.spans.values() if span.name == name]
        if not found:
            names = sorted({span.name for span in self.spans.values()})
            near = nearest(name, names) or ", ".join(names[:10])
            raise HistoryError(f"the trace has no span {name!r}; did you mean {near}?")
        return found


def import_spans(source: Any, *, prompts: bool | Collection[str] = False) -> ImportedTrace:
    """The trace graph of spans that any agent left.

    Args:
        source: what `tracegraph.history.read_spans.read_spans` takes: OTLP JSON, or the spans of
            OpenTelemetry's SDK.
        prompts: whether the prompts that models were given are trainable parameters: all, none, or
            those of the spans with these names. One prompt in several spans is one parameter.

    Raises:
        HistoryError: there are no spans, or no span of a name in `prompts` has a prompt.

    >>> def value(text):
    ...     return {"stringValue": text}
    >>> span = {"traceId": "a", "spanId": "b", "name": "chat", "attributes": [
    ...     {"key": "gen_ai.system_instructions", "value": value('[{"content": "Be kind."}]')},
    ...     {"key": "gen_ai.input.messages", "value": value('[{"role": "user", "content": "Hi"}]')},
    ...     {"key": "gen_ai.output.messages", "value": value('[{"role": "assistant", "content": "Go."}]')}]}
    >>> trace = import_spans({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}, prompts=True)
    >>> (answer,) = trace.outputs
    >>> answer.data, answer.inputs["prompt"].data, list(trace.parameters)
    ('Go.', 'Be kind.', ['chat_prompt'])
    """
    spans = {span.id: span for span in read_spans(source)}
    wanted = set() if isinstance(prompts, bool) else set(prompts)
    have = {span.name for span in spans.values() if span.prompt is not None}
    if wanted - have:
        raise HistoryError(
            f"no span named {', '.join(map(repr, sorted(wanted - have)))} has a prompt; those that "
            f"have one: {', '.join(map(repr, sorted(have))) or 'none'}"
        )
    return _Import(spans, prompts).run()


class _Import:
    def __init__(self, spans: dict[str, ReadSpan], prompts: bool | Collection[str]) -> None:
        self.spans, self.prompts = spans, prompts
        self.inside: dict[str | None, list[ReadSpan]] = {}
        for span in spans.values():
            above = span.parent if span.parent in spans else None
            self.inside.setdefault(above, []).append(span)
        self.leaves: dict[tuple[str, str], Node[Any]] = {}
        self.parameters: dict[str, Parameter[str]] = {}
        self.operations: dict[tuple[str, str], Operation] = {}
        self.nodes: dict[str, Node[Any]] = {}

    def run(self) -> ImportedTrace:
        before = self._before()
        for identity in self._order(before):
            self.nodes[identity] = self._node(self.spans[identity], before[identity])
        outputs = tuple(self.nodes[span.id] for span in self.inside[None])
        return ImportedTrace(
            {identity: self.nodes[identity] for identity in self.spans}, outputs, self.parameters,
            self.spans,
        )  # fmt: skip

    def _before(self) -> dict[str, list[tuple[str, str]]]:
        """What came before each span: the ids of others, and the argument where a link says it."""
        before: dict[str, list[tuple[str, str]]] = {}
        groups: list[str | None] = [None]
        while groups:
            above = groups.pop()
            beside = self.inside.get(above, [])
            for span, earlier in _ended_before(beside):
                around = self._around(span)
                links = [n for n in span.links if n[0] in self.spans and n[0] not in around]
                inherited = [] if above is None else before[above]
                before[span.id] = links or [(e.id, "") for e in earlier] or list(inherited)
                groups.append(span.id)
        lost = [span.name for span in self.spans.values() if span.id not in before]
        if lost:
            raise HistoryError(
                f"the spans {', '.join(lost[:5])} stand in each other: no trace does"
            )
        return before

    def _around(self, span: ReadSpan) -> set[str]:
        """The span and those around it: they had given nothing yet."""
        found = {span.id}
        while span.parent in self.spans and span.parent not in found:
            found.add(span.parent)
            span = self.spans[span.parent]
        return found

    def _order(self, before: dict[str, list[tuple[str, str]]]) -> list[str]:
        """The ids, each behind those that it needs; of links in a circle, one is dropped."""
        while True:
            sorter: TopologicalSorter[str] = TopologicalSorter()
            for identity, sources in before.items():
                within = (span.id for span in self.inside.get(identity, ()))
                sorter.add(identity, *within, *(source for source, _ in sources))
            try:
                return list(sorter.static_order())
            except CycleError as error:
                for source, user in pairwise(error.args[1]):
                    kept = [link for link in before[user] if link[0] != source]
                    if len(kept) < len(before[user]):
                        before[user] = kept
                        break

    def _node(self, span: ReadSpan, before: list[tuple[str, str]]) -> Node[Any]:
        inputs: list[tuple[str, Node[Any]]] = []
        if span.prompt is not None:
            inputs.append(("prompt", self._prompt(span, span.prompt)))
        if span.given is not None:
            inputs.append(("given", self._leaf("given", span.given)))
        for source, argument in before:
            name = argument or _identifier(self.spans[source].name)
            inputs.append((name, self.nodes[source]))
        for within in self.inside.get(span.id, ()):
            inputs.append((_identifier(within.name), self.nodes[within.id]))
        once: dict[int, tuple[str, Node[Any]]] = {}
        for name, each in inputs:
            once.setdefault(each.id, (name, each))
        names = distinct([name for name, _ in once.values()])
        extra, value = None, span.gave
        inside = self.inside.get(span.id)
        if value is None and inside:  # it does not say: what its last span gave
            value = self.nodes[max(inside, key=lambda each: each.ended).id].data
        if span.error is not None:
            failure = Failure(*span.error)
            extra, value = {"failure": failure}, str(failure)
        operation = self._operation(span, names)
        return record(operation, names, tuple(each for _, each in once.values()), value, extra)

    def _operation(self, span: ReadSpan, names: tuple[str, ...]) -> Operation:
        name, doc = _identifier(span.name), _doc(span)
        known = self.operations.get((name, doc))
        if known is None:
            known = self.operations[name, doc] = Operation(name, None, names, doc=doc)
        return known

    def _prompt(self, span: ReadSpan, text: str) -> Node[Any]:
        known = self.leaves.get(("prompt", text))
        if known is not None:
            return known
        base = f"{_identifier(span.name)}_prompt"
        number, name = 1, base
        while name in self.parameters:
            number += 1
            name = f"{base}_{number}"
        users = {each.name for each in self.spans.values() if each.prompt == text}
        chosen = (
            self.prompts if isinstance(self.prompts, bool) else not users.isdisjoint(self.prompts)
        )
        if not chosen:
            return self._leaf("prompt", text)
        made: Parameter[str] = node(text, trainable=True, name=name)
        self.parameters[name] = made
        self.leaves["prompt", text] = made._leaf()
        return made._leaf()

    def _leaf(self, name: str, value: Any) -> Node[Any]:
        """A leaf; what was given more than once is one."""
        key = (name, show(value, 100_000))
        if key not in self.leaves:
            self.leaves[key] = node(value, name=name)
        return self.leaves[key]


def _ended_before(beside: list[ReadSpan]) -> Iterator[tuple[ReadSpan, list[ReadSpan]]]:
    """Each span, with those that had ended when it began and behind which no other one came.

    `beside` is in the order of the beginnings.
    """
    going: list[tuple[int, int, ReadSpan]] = []
    front: list[ReadSpan] = []
    for place, span in enumerate(beside):
        while going and going[0][0] <= span.began and going[0][2].began < span.began:
            done = heapq.heappop(going)[2]
            front = [*(other for other in front if other.ended > done.began), done]
        yield span, front
        heapq.heappush(going, (span.ended, place, span))


def _doc(span: ReadSpan) -> str:
    facts = span.attributes
    said = facts.get("gen_ai.tool.description") or facts.get("tool.description")
    if said:
        return str(said)
    model = facts.get("gen_ai.request.model") or facts.get("llm.model_name")
    if model:
        return f"asks the model {model}"
    return "" if span.kind == "CHAIN" else span.kind.lower()


def _identifier(name: str) -> str:
    """A span's name as a name of Python, for prompts that show the graph as code."""
    made = re.sub(r"\W+", "_", name).strip("_") or "span"
    return f"_{made}" if made[0].isdigit() else made
