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
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tracegraph.graph import Graph
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["Suspects", "lines_run", "ochiai", "suspects"]

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
    runs = list(runs)
    code = {name: p for name, p in parameters.items() if p.kind.name == "code"}
    spectra = {
        name: [(lines_run(output, p), good) for output, good in runs] for name, p in code.items()
    }
    blamed = {
        name: _with_conditions(code[name].data, ochiai(spectrum))
        for name, spectrum in spectra.items()
    }
    return {name: lines for name, lines in blamed.items() if lines}


def _with_conditions(text: str, blamed: Mapping[int, float]) -> dict[int, float]:
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

    share(ast.parse(text).body, None)
    return {line: share for line, share in sorted(found.items()) if share > 0}


def lines_run(output: Node[Any], parameter: Parameter[Any]) -> frozenset[int]:
    """The lines of the text of `parameter` that the run behind `output` executed.

    None where its calls were not measured: ``@bundle(trainable=True, profile=True)`` measures them.
    """
    text = str(parameter.data).splitlines()
    found: set[int] = set()
    for node in Graph.of(output).nodes:
        profile = node.info.get("profile")
        if profile is None or not _runs(node, parameter):
            continue
        lines = {line.number: line.text.strip() for line in profile.lines}
        shift = _shift(lines, [line.strip() for line in text])
        found.update(number - shift for number in lines if 0 < number - shift <= len(text))
    return frozenset(found)


def _runs(node: Node[Any], parameter: Parameter[Any]) -> bool:
    return any(given.parameter is parameter for given in node.inputs.values())


def _shift(lines: Mapping[int, str], text: list[str]) -> int:
    """How far the numbers of lines lie behind those of the text: a function from a file keeps
    the file's numbers.
    """
    if not lines:
        return 0
    first = min(lines)
    for place, line in enumerate(text, 1):
        shift = first - place
        if line == lines[first] and all(
            0 < number - shift <= len(text) and text[number - shift - 1] == said
            for number, said in lines.items()
        ):
            return shift
    return 0
