"""What stays of a function that is written anew: its name, its parameters, its documentation."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tracegraph.errors import OptimizerError
from tracegraph.kinds import show
from tracegraph.parsing import expression_of, tree_of

__all__ = ["Example", "Header", "tidied"]

Example = tuple[Mapping[str, Any], Any]
"""The arguments of a call by name, and what it must return."""

_CONSTANTS: Final = (bool, int, float, str)
_TAKEN: Final = frozenset({"_", "math", *dir(builtins)})  # what is written may use these itself
_GO_THROUGH: Final = frozenset({"all", "any", "join", "max", "min", "prod", "sorted", "sum"})


class Header:
    """The one plain function of a text, to be given another body.

    Raises:
        OptimizerError: `text` is not one plain function.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        function = self._function(tree_of(text))
        self._name = function.name
        self._names = [item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)]
        nodes = [node for item in function.body for node in ast.walk(item)]
        constants = (node.value for node in nodes if isinstance(node, ast.Constant))
        self.constants = [value for value in constants if type(value) in _CONSTANTS]
        """What the function's own body names."""
        self.unpacked = dict(filter(None, map(_parts_of, nodes)))
        """How it calls the parts of tuples that it goes through, by how many they are."""

    def _function(self, tree: ast.Module) -> ast.FunctionDef:
        functions = [item for item in tree.body if isinstance(item, ast.FunctionDef)]
        if len(functions) != 1:
            raise OptimizerError(
                f"a body is found for one plain function, and the text defines {len(functions)}: "
                f"{show(self._text, 80)}"
            )
        return functions[0]

    def checked(self, examples: Iterable[Example]) -> list[Example]:
        """The examples, if they are calls of this function.

        Raises:
            OptimizerError: an argument is none of its parameters.
        """
        known = list(examples)
        for arguments, _ in known:
            if not set(arguments) <= set(self._names):
                raise OptimizerError(
                    f"an example gives {', '.join(sorted(arguments))}, and the parameters of "
                    f"{self._name} are {', '.join(self._names)}"
                )
        return known

    def returning(self, expression: str) -> str:
        """The text with a body that returns this expression; it may use `math`."""
        tree = tree_of(self._text)
        function = self._function(tree)
        documented = ast.get_docstring(function) is not None
        needs = "import math\n" if "math." in expression else ""
        body = tree_of(f"{needs}return {expression}").body
        function.body = [*function.body[:1], *body] if documented else body
        return ast.unparse(ast.fix_missing_locations(tree))


def _parts_of(node: ast.AST) -> tuple[int, str] | None:
    """How many parts a loop takes its items apart into, and their names."""
    target = getattr(node, "target", None)
    if not isinstance(node, ast.For | ast.comprehension) or not isinstance(target, ast.Tuple):
        return None
    names = [item.id for item in target.elts if isinstance(item, ast.Name)]
    names = [name for name in names if name not in _TAKEN]
    return (len(names), ", ".join(names)) if len({*names}) == len(target.elts) else None


class _Plain(ast.NodeTransformer):
    """Writes what is gone through once without making a list of it first."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in ("max", "min") and len(node.args) == 1 and isinstance(node.args[0], ast.List):
            node.args = node.args[0].elts
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


def tidied(expression: str) -> str:
    """An expression as a person writes it."""
    return ast.unparse(ast.fix_missing_locations(_Plain().visit(expression_of(expression))))
