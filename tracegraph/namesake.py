"""Tell a user whose own ``optimizers`` hides ours, naming both files.

A script's directory comes first when Python looks for a module, so a user's ``optimizers.py`` beside
the script is imported in place of the package that stands beside this one. That may be meant, so it
loads as it is; only when one of our public names is asked of it, the answer is an error that says
what happened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tracegraph.errors import Shadowed

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["watch"]

_NAME = "optimizers"


def watch() -> None:
    """From now on, and for what is imported already, explain a hidden ``optimizers``."""
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
    present = sys.modules.get(_NAME)
    if present is not None:
        _explain(present)


class _Watch:
    """Looks on while Python finds ``optimizers``; every other name passes by."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find; a namesake is explained once it is loaded."""
        if name != _NAME:
            return None
        spec = _found(self, path, target)
        if spec is None or spec.loader is None or _is_ours(spec.origin):
            return spec
        run: Callable[[ModuleType], None] | None = getattr(spec.loader, "exec_module", None)
        if run is None:
            return spec

        def exec_module(module: ModuleType) -> None:
            run(module)
            if module.__name__ == _NAME:  # some loaders load many modules
                _explain(module)

        with suppress(AttributeError):  # a loader that takes no attribute loads as it always did
            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _found(
    watch: _Watch, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None
        if find is not None and finder is not watch:
            spec = find(_NAME, path, target)
        if spec is not None:
            return spec
    return None


def _explain(module: ModuleType) -> None:
    """Let a module that is not ours say so when it is asked for one of our names."""
    theirs = getattr(module, "__file__", None)
    if theirs is None or _is_ours(theirs) or "__getattr__" in vars(module):
        return

    def missing(name: str) -> Any:
        if name in _public_names():
            raise Shadowed(
                f"{name!r} was asked of {theirs}, which Python found under the name {_NAME!r} before "
                f"{_ours()}, where {name!r} is: rename {theirs} (and what imports it), or keep it "
                "out of the directories where Python looks first",
                name=_NAME,
                path=theirs,
            )
        raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")

    vars(module)["__getattr__"] = missing


def _ours() -> str:
    """The file of the package that stands beside this one."""
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.join(os.path.dirname(here), _NAME, "__init__.py")


def _is_ours(file: str | None) -> bool:
    import os

    return file is not None and os.path.realpath(file) == os.path.realpath(_ours())


def _public_names() -> frozenset[str]:
    """What our package offers, read from its text: it cannot be imported under a taken name."""
    import ast

    try:
        with open(_ours(), encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError):
        return frozenset()
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets
        ):
            return frozenset(ast.literal_eval(statement.value))
    return frozenset()
