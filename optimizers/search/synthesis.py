"""Write a small pure function from examples, smallest expressions first, without a model.

Bottom-up enumeration up to observational equivalence (A. Albarghouthi, S. Gulwani and Z. Kincaid,
"Recursive program synthesis", CAV 2013): expressions are built from smaller ones and kept when their
values on the examples are new, so that of all ways to say the same only the shortest is pursued. Where
no single expression fits, a condition chooses between two that fit a part of the examples each (R. Alur,
A. Radhakrishna and A. Udupa, "Scaling enumerative program synthesis via divide and conquer", TACAS
2017). Only the operations of the table below are ever run, never a text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any, Final

from optimizers.search.decisions import decided
from optimizers.search.pool import Budget, Found, Pool
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.parsing import expression_of, tree_of

__all__ = ["Example", "expression_for", "synthesized"]

Example = tuple[Mapping[str, Any], Any]
"""The arguments of a call by name, and what it must return."""

_MOST: Final = 500_000
_KEPT: Final = 60_000
_DEEPEST: Final = 14
_SIZE_OF_CHOICE: Final = 1.75  # of a choice, relative to the expressions that were tried
_SIZE_PER_EXAMPLE: Final = 2.3  # many examples justify a larger one
_MANY: Final = 6
_GO_THROUGH: Final = frozenset({"all", "any", "join", "max", "min", "prod", "sorted", "sum"})
_CONSTANTS: Final = (bool, int, float, str)


def synthesized(
    text: str, examples: Iterable[Example], *, constants: Iterable[Any] = (), most: int = _MOST
) -> str | None:
    """The function of `text` with a body that fits all the examples; None where none was found.

    Its name, parameters and documentation stay. No text is run, neither `text` nor what is found.

    Args:
        text: Python that defines one function.
        examples: the arguments of calls by name, and what they must return. Few examples are fitted by
            many functions: keep some back, and see whether what was found fits them too.
        constants: values to build from, besides the function's own, 0, 1 and 2.
        most: how many expressions are tried before giving up.

    Raises:
        OptimizerError: `text` is not one plain function, there are no examples, or an example's
            arguments are none of its parameters.

    >>> shipping = "def shipping(weight, express):\\n    return 5"
    >>> known = [({"weight": w, "express": e}, 4 + 2 * w if e else 4) for w in (1, 3) for e in (True, False)]
    >>> print(synthesized(shipping, known, constants=[4]))
    def shipping(weight, express):
        return weight + (weight + 4) if express else 4
    """
    tree = tree_of(text)
    functions = [item for item in tree.body if isinstance(item, ast.FunctionDef)]
    if len(functions) != 1:
        raise OptimizerError(
            f"a body is found for one plain function, and the text defines {len(functions)}: "
            f"{show(text, 80)}"
        )
    (function,) = functions
    names = [item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)]
    known = list(examples)
    for arguments, _ in known:
        if not set(arguments) <= set(names):
            raise OptimizerError(
                f"an example gives {', '.join(sorted(arguments))}, and the parameters of "
                f"{function.name} are {', '.join(names)}"
            )
    nodes = [node for item in function.body for node in ast.walk(item)]
    own = [n.value for n in nodes if isinstance(n, ast.Constant) and type(n.value) in _CONSTANTS]
    found = expression_for(known, constants=[*constants, *own], most=most)
    if found is None:
        return None
    documented = ast.get_docstring(function) is not None
    needs = "import math\n" if "math." in found else ""
    body = tree_of(f"{needs}return {found}").body
    function.body = [*function.body[:1], *body] if documented else body
    return ast.unparse(ast.fix_missing_locations(tree))


def expression_for(
    examples: Iterable[Example], *, constants: Iterable[Any] = (), most: int = _MOST
) -> str | None:
    """The smallest expression that was found to fit all the examples, or None; it may use `math`.

    >>> expression_for([({"x": 3}, 9), ({"x": 4}, 16)])
    'x * x'
    """
    known = list(examples)
    if not known:
        raise OptimizerError("a function is written from examples, and there are none")
    wanted = tuple(result for _, result in known)
    seeds: list[tuple[str, list[Any]]] = [
        (name, [arguments[name] for arguments, _ in known])
        for name in known[0][0]
        if all(name in arguments for arguments, _ in known)
    ]
    twice = [v for n, v in enumerate(wanted) if type(v) in (int, str) and v in wanted[:n]]
    texts = ("", " ") if "'" in repr(known) else ()
    for value in (*constants, 0, 1, 2, *texts, *twice):
        seeds.append((repr(value), [value] * len(known)))
    pool = Pool(seeds, Budget(most), most=_KEPT, wanted=wanted)
    for value in (True, False):
        pool.leaves.append(Found(repr(value), True, 1, (value,) * len(known)))
    enough = _SIZE_PER_EXAMPLE * len(known) if len(known) >= _MANY else 0
    for size in range(2, _DEEPEST):
        pool.grow(size)
        bound = max(_SIZE_OF_CHOICE * size, enough)
        found = pool.answer.text if pool.answer is not None else decided(pool, wanted, int(bound))
        if found or pool.full:
            return _tidied(found) if found else None
    return None


class _Plain(ast.NodeTransformer):
    """Writes what is gone through once without making a list of it first."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in _GO_THROUGH and len(node.args) == 1:
            node.args = [_unlisted(node.args[0])]
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.iter = _unlisted(node.iter)
        return node


def _unlisted(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.ListComp):
        return ast.GeneratorExp(node.elt, node.generators)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "list":
        return node.args[0]
    return node


def _tidied(found: str) -> str:
    tree = _Plain().visit(expression_of(found))
    return ast.unparse(ast.fix_missing_locations(tree))
