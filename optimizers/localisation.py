"""Which lines of code are to blame: those that failing runs execute and passing runs do not.

Spectrum-based fault localisation with the coefficient of Ochiai (R. Abreu, P. Zoeteweij and A. van
Gemund, "On the accuracy of spectrum-based fault localization", TAIC PART 2007). The lines of a run are
read from its trace: the bundles whose code is blamed are made with ``profile=True``. A condition is as
suspicious as the most suspicious line that it leads to: a wrong condition is run by all, and its mistake
shows behind it.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tracegraph.graph import Graph
from tracegraph.node import Node
from tracegraph.parameter import Parameter
from tracegraph.parsing import tree_of
from tracegraph.spans import lines_of

__all__ = ["Suspects", "blamed_lines", "lines_run", "ochiai", "suspects"]

Suspects = Mapping[str, Mapping[int, float]]
"""How suspicious each line is, from 0 to 1, by the name of the parameter and the line's number."""


def ochiai(runs: Iterable[tuple[Collection[int], bool]]) -> dict[int, float]:
    """How suspicious each line is, from what runs executed and whether they passed.

    ``failed(line) / sqrt(failed * (failed(line) + passed(line)))``, from 0 to 1; where no run failed
    there is nothing to blame.

    Args:
        runs: the numbers of the lines that a run executed, and whether it passed.

    >>> ochiai([({1, 2}, True), ({1, 3}, False)])
    {1: 0.7071067811865475, 3: 1.0}
    """
    passed: Counter[int] = Counter()
    failed: Counter[int] = Counter()
    failures = 0
    for lines, good in runs:
        (passed if good else failed).update(set(lines))
        failures += not good
    return {
        line: count / math.sqrt(failures * (count + passed[line]))
        for line, count in sorted(failed.items())
    }


def suspects(
    runs: Iterable[tuple[Node[Any], bool]], parameters: Mapping[str, Parameter[Any]]
) -> dict[str, dict[int, float]]:
    """How suspicious the lines of code parameters are, from recorded runs.

    Args:
        runs: the output of a run (of one that failed: `failed_node` of its exception), and whether it passed.
        parameters: those whose code may be to blame, by name, as ``optimizer.named_parameters`` has
            them; parameters of other kinds are left out.

    >>> import tracegraph as tg
    >>> def larger(a, b):
    ...     if a > b:
    ...         return a
    ...     return a
    >>> larger = tg.bundle(trainable=True, profile=True)(larger)
    >>> runs = [(larger(a, b), larger(a, b).data == max(a, b)) for a, b in [(2, 1), (1, 2)]]
    >>> suspects(runs, {"larger": larger.parameter})
    {'larger': {2: 1.0, 4: 1.0}}
    """
    code = {name: p for name, p in parameters.items() if p.kind.name == "code"}
    walked = [(_lines(output, code), good) for output, good in runs]
    found = {}
    for name, parameter in code.items():
        spectrum = [(lines[name], good) for lines, good in walked]
        blamed = blamed_lines(parameter.data, spectrum)
        if blamed:
            found[name] = blamed
    return found


def blamed_lines(text: str, runs: Iterable[tuple[Collection[int], bool]]) -> dict[int, float]:
    """How suspicious the lines of a text are, from the lines of each run and whether it passed.

    As `ochiai`, and a condition with the lines that it leads to.
    """
    blamed = ochiai(runs)
    found = dict(blamed)

    def share(block: list[ast.stmt], behind: int | None) -> None:
        for place, item in enumerate(block):
            after = block[place + 1].lineno if place + 1 < len(block) else behind
            inner = [getattr(item, field, []) for field in ("body", "orelse", "finalbody")]
            if isinstance(item, ast.If | ast.While | ast.For):
                ends = [part[0].lineno if part else after for part in inner[:2]]
                found[item.lineno] = max(
                    blamed.get(line or 0, 0.0) for line in (item.lineno, *ends)
                )
            for part in (*inner, *(handler.body for handler in getattr(item, "handlers", []))):
                share(part, after)

    share(tree_of(text).body, None)
    return {line: share for line, share in sorted(found.items()) if share > 0}


def lines_run(output: Node[Any], parameter: Parameter[Any]) -> frozenset[int]:
    """The lines of the text of `parameter` that the run behind `output` executed.

    None where its calls were not measured: ``@bundle(trainable=True, profile=True)`` measures them.
    """
    return _lines(output, {"": parameter})[""]


def _lines(
    output: Node[Any], parameters: Mapping[str, Parameter[Any]]
) -> dict[str, frozenset[int]]:
    """What `lines_run` gives of several parameters, in one walk."""
    texts = {name: lines_of(str(p.data), ends=False) for name, p in parameters.items()}
    found: dict[str, set[int]] = {name: set() for name in parameters}
    for node in Graph.of(output).nodes:
        profile = node.info.get("profile")
        if profile is None:
            continue
        given = [node.parameter for node in node.inputs.values()]
        for name, parameter in parameters.items():
            if not any(one is parameter for one in given):
                continue
            lines = {line.number: line.text.strip() for line in profile.lines}
            text = [line.strip() for line in texts[name]]
            shift = _shift(lines, text, node)
            found[name].update(n - shift for n in lines if 0 < n - shift <= len(text))
    return {name: frozenset(lines) for name, lines in found.items()}


def _shift(lines: Mapping[int, str], text: list[str], node: Node[Any]) -> int:
    """How far the numbers of lines lie behind those of the text: a function from a file keeps
    the file's numbers.
    """

    def fits(shift: int) -> bool:
        return all(
            0 < number - shift <= len(text) and text[number - shift - 1] == said
            for number, said in lines.items()
        )

    if not lines or fits(0):
        return 0
    code = node.operation.code if node.operation is not None else None
    first = min(lines)
    shifts = [first - place for place in range(1, len(text) + 1) if fits(first - place)]
    if code is not None:  # where the same lines stand in the text twice
        shifts.sort(
            key=lambda shift: not _begins(text[max(code.co_firstlineno - shift - 1, 0) :], code)
        )
    return shifts[0] if shifts else 0


def _begins(text: list[str], code: Any) -> bool:
    """Whether the first function of these lines has the name of `code`."""
    head = next((line for line in text if re.match(r"(async )?def ", line)), "")
    return bool(re.search(rf"def {code.co_name}\b", head))
