"""A trace graph that was kept: its nodes as words, long after they are gone."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, final

from tracegraph.history.display import duration, tokens

if TYPE_CHECKING:
    from tracegraph import view

__all__ = ["KeptGraph", "KeptNode"]

_CUT: Final = re.compile(r"(.*) (\(\+[\d,]+ characters\))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeptNode:
    """One node; its inputs are (number, argument, captured). `value` is text of bounded length.

    Of a call it is known when it `began` (seconds since 1970) and how many `seconds` it took, the
    calls inside it included; and the tokens and dollars of the questions to models in it, if any.
    Operators, as in ``x + y``, are not timed.
    """

    number: int
    label: str
    op: str | None
    kind: str | None
    inputs: tuple[tuple[int, str, bool], ...]
    value: str
    version: int | None = None
    failure: str | None = None
    began: float | None = None
    seconds: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None

    @property
    def spent(self) -> dict[str, str]:
        """What it took, in words; of operators, which are not timed, it says so."""
        untimed = "" if self.op is None else "not timed"
        facts = {
            "time": untimed if self.seconds is None else duration(self.seconds),
            "tokens": tokens(self.tokens_in, self.tokens_out),
            "cost": "" if self.cost is None else f"${self.cost:.6g}",
        }
        return {name: said for name, said in facts.items() if said}


@final
@dataclass(frozen=True, slots=True)
class KeptGraph:
    """A graph as it was at a step; `cut` says that only the nodes nearest to the outputs are here."""

    nodes: tuple[KeptNode, ...]
    outputs: tuple[int, ...]
    documentation: Mapping[str, str]
    cut: bool
    title: str = ""

    @classmethod
    def read(
        cls,
        structure: Mapping[str, Any],
        shown: Mapping[str, Any],
        title: str,
        *,
        spent: Mapping[str, Iterable[Any]] | None = None,
        began: float = 0.0,
    ) -> KeptGraph:
        """The graph of a step that `began` then, from the parts that `capture` kept."""
        spent = spent or {}
        versions, failures = shown.get("versions", {}), shown.get("failures", {})
        nodes = tuple(
            KeptNode(
                number, label, op, kind,
                tuple((source, name, bool(rest)) for source, name, *rest in inputs),
                value, versions.get(str(number)), failures.get(str(number)),
                *_since(began, *spent.get(str(number), ())),
            )
            for number, ((label, op, kind, inputs), value) in enumerate(
                zip(structure["nodes"], shown["values"], strict=True)
            )
        )  # fmt: skip
        return cls(
            nodes, tuple(structure["outputs"]), structure["documentation"], structure["cut"], title
        )

    def __len__(self) -> int:
        return len(self.nodes)

    def picture(self, feedback: Mapping[int, str] | None = None) -> view.Picture:
        """The graph as boxes and arrows, to be drawn.

        `feedback` says by number what was given at a node: the way from there to the parameters is marked.
        """
        from tracegraph import view  # drawing is loaded when something is drawn

        given = feedback or {}
        path = self._path(given)
        return view.Picture(
            tuple(self._box(node, given.get(node.number, ""), path) for node in self.nodes),
            tuple(
                view.Arrow(
                    tail=source,
                    head=node.number,
                    label=name,
                    captured=captured,
                    on_path=source in path and node.number in path,
                )
                for node in self.nodes
                for source, name, captured in node.inputs
            ),
            self.title,
        )

    def details(self) -> dict[int, tuple[view.Entry, ...]]:
        """What there is to say of each node, by its number."""
        from tracegraph import view  # drawing is loaded when something is drawn

        told = {}
        for node in self.nodes:
            value, kind = _read(node.value) if node.failure is None else (None, "")
            facts = {
                "operation": node.op or "", "kind": node.kind or "", "type": kind,
                "version": "" if node.version is None else str(node.version), **node.spent,
            }  # fmt: skip
            facts = {name: fact for name, fact in facts.items() if fact}
            entries = [view.Entry("About", "facts", facts)] if facts else []
            if node.failure is not None:
                entries.append(view.Entry("Error", "error", node.failure))
            elif isinstance(value, str):
                form: Literal["code", "text"] = "code" if node.kind == "code" else "text"
                entries.append(view.Entry("Value", form, value))
            else:
                entries.append(view.Entry("Value", "tree", view.tree(value, repr)))
            said = self.documentation.get(node.op or "")
            if said:
                entries.append(view.Entry("Documentation", "text", said))
            told[node.number] = tuple(entries)
        return told

    def to_svg(self) -> str:
        """The graph as one self-contained SVG."""
        from tracegraph import view  # drawing is loaded when something is drawn

        return view.svg(self.picture())

    def to_text(self, *, width: int = 80) -> str:
        """The graph as a tree of lines for a terminal."""
        from tracegraph import view  # drawing is loaded when something is drawn

        return view.text(self.picture(), width=width)

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def _path(self, given: Iterable[int]) -> set[int]:
        """The nodes between the parameters and those that feedback was given at."""
        behind = set(given)
        for node in reversed(self.nodes):
            if node.number in behind:
                behind.update(source for source, _, _ in node.inputs)
        reached: set[int] = set()
        for node in self.nodes:
            if node.kind is not None or any(source in reached for source, _, _ in node.inputs):
                reached.add(node.number)
        return behind & reached

    def _box(self, node: KeptNode, feedback: str, path: Collection[int]) -> view.Box:
        from tracegraph import view

        role: view.Role = "operation"
        if node.failure is not None:
            role = "failure"
        elif node.kind is not None:
            role = "parameter"
        elif node.number in self.outputs:
            role = "output"
        elif node.op is None:
            role = "input"
        said = self.documentation.get(node.op or "", "")
        return view.Box(
            key=node.number,
            title=node.label,
            lines=(node.failure or node.value,),
            role=role,
            kind=node.kind or "",
            feedback=feedback,
            on_path=node.number in path,
            tooltip="\n".join(filter(None, (node.label, said, node.failure or node.value))),
        )


def _since(start: float, began: float | None = None, *rest: Any) -> tuple[Any, ...]:
    return (None if began is None else start + began, *rest)


@lru_cache(4_096)
def _read(shown: str) -> tuple[Any, str]:
    """What was kept of a value as it was, and its type: a text without quotes, a container; else as shown."""
    if not shown.startswith(("'", '"', "[", "(", "{")):
        return shown, ""
    cut = _CUT.fullmatch(shown)
    try:
        with warnings.catch_warnings(action="ignore"):  # of strange escapes in words of others
            value = ast.literal_eval(shown if cut is None else cut[1])
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return shown, ""  # what something else says of itself, or the beginning of a container
    if cut is not None:
        return (f"{value} {cut[2]}", "str") if isinstance(value, str) else (shown, "")
    if not isinstance(value, (str, list, tuple, dict)):
        return shown, ""
    return value, type(value).__name__
