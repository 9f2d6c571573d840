"""Where torch's record and the trace meet: numbers lifted into torch, and tensors cut from it.

Torch records what is made of tensors. A number or an array that flows into a torch operation, and
that a trainable parameter lies behind, goes in as a leaf of torch's record (it is lifted). A tensor
that an operation with a gradient rule of its own gives comes out as such a leaf (it is cut): what
lies behind it is the rule's to answer for. Gradients leave torch at these leaves, and the walk of
`propagate` carries them on.

Torch is never imported here: where no tensor is, there is nothing to do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tracegraph.arithmetic import is_real, smooth
from tracegraph.forking import new_lock
from tracegraph.kinds import is_array, is_tensor

if TYPE_CHECKING:
    from tracegraph.node import Node
    from tracegraph.operators import Operation

__all__ = ["CUT", "can_lift", "cut", "is_cut", "leaf_of", "lift", "lift_beside", "lifted"]

CUT: set[str] = set()
"""Names of the operations that were given a gradient rule by `register_rule`."""


_lifting = new_lock()


def is_cut(operation: Operation) -> bool:
    """Whether gradients go back through `operation` by a rule, not by torch."""
    return operation.cuts or operation.name in CUT


def can_lift(value: Any) -> bool:
    """Whether `value` is a number or an array with a derivative; quick for everything else."""
    kind = type(value)
    return kind is float or (kind.__module__ == "numpy" and is_real(value))


def leaf_of(node: Node[Any]) -> Any:
    """The tensor in torch's record at which gradients leave it for `node`, or ``None``."""
    extra = node._extra
    if extra is not None and extra.get("lifted") is not None:
        return extra["lifted"]
    data = node._data
    if not is_tensor(data) or not data.requires_grad:
        return None
    if extra is not None and extra.get("parameter") is not None:
        return data if extra["parameter"].trainable else None
    operation = node._operation
    return data if operation is not None and data.is_leaf and is_cut(operation) else None


def lifted(node: Node[Any]) -> Any:
    """The leaf of torch's record for `node`, made once; ``None`` where no gradient is wanted."""
    while node._extra is not None and "argument" in node._extra:
        node = node._extra["argument"]
    extra = node._extra
    if extra is not None and "lifted" in extra:
        return extra["lifted"]
    made = None
    if _reaches(node):
        torch = sys.modules["torch"]
        data = node._data
        if type(data) is float:  # the common case, in half the time of `torch.tensor`
            made = torch.scalar_tensor(data, dtype=torch.float64, device="cpu", requires_grad=True)
        else:
            dtype = None if is_array(data) else torch.float64
            made = torch.tensor(data, dtype=dtype, device="cpu", requires_grad=True)
    with _lifting:
        extra = node._extra or {}
        if "lifted" not in extra:  # else another thread was faster
            node._extra = extra = {**extra, "lifted": made}
            if type(node._data) is float and "parameter" in extra and made is not None:
                extra["parameter"]._lifted(node._data, made)
    return extra["lifted"]


def lift_beside(tensor: Any, number: Any, node: Node[Any]) -> Any:
    """`number` lifted for a binary operator with `tensor`; itself where no gradient is wanted."""
    if _constant(node) or not sys.modules["torch"].is_grad_enabled():
        return number
    made = lifted(node)
    if made is None:
        return number
    if made.dim() or (tensor.dim() and tensor.is_floating_point()):
        return made
    return (lift([(tensor, None), (number, node)]) or [tensor, number])[1]


def lift(nodes: Iterable[tuple[Any, Node[Any] | None]]) -> list[Any] | None:
    """The operands of an operation with their numbers lifted; ``None`` where that changes nothing.

    A number goes in with the dtype that torch would have given it: that of the first floating
    tensor beside it.

    Args:
        nodes: each operand's plain value, and its node where it has one.
    """
    pairs = list(nodes)
    tensors = [value for value, _ in pairs if is_tensor(value)]
    if not tensors:
        return None
    torch = sys.modules["torch"]
    if not torch.is_grad_enabled():
        return None
    dtype = next((t.dtype for t in tensors if t.is_floating_point() or t.is_complex()), None)
    dtype = (dtype or torch.get_default_dtype()).to_real()
    changed = False
    operands = []
    for value, node in pairs:
        made = None if node is None or _constant(node) or not can_lift(value) else lifted(node)
        if made is None:
            operands.append(value)
            continue
        changed = True
        operands.append(made.to(device=tensors[0].device, dtype=None if made.dim() else dtype))
    return operands if changed else None


def _constant(node: Node[Any]) -> bool:
    extra = node._extra
    return node._operation is None and (
        extra is None or ("parameter" not in extra and "argument" not in extra)
    )


def cut(value: Any, inputs: Iterable[Node[Any]]) -> Any:
    """`value` as a leaf of torch's record, where a gradient could go on behind it."""
    if not is_tensor(value) or not (value.is_floating_point() or value.is_complex()):
        return value
    if not sys.modules["torch"].is_grad_enabled() or not any(_reaches(node) for node in inputs):
        return value
    return value.detach().requires_grad_()


def _reaches(start: Node[Any]) -> bool:
    """Whether a gradient at `start` could come to a trainable parameter."""
    found = _ends(start)
    if found is not None:
        return found
    todo = list(start._inputs)
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if node.id in seen:
            continue
        seen.add(node.id)
        found = _ends(node)
        if found:
            return True
        if found is None:
            todo.extend(node._inputs)
    return False


def _ends(node: Node[Any]) -> bool | None:
    """Whether a gradient at `node` comes to a parameter; ``None`` where its inputs decide."""
    extra, data = node._extra, node._data
    if is_tensor(data):
        return bool(data.requires_grad)
    if extra is not None:
        if "argument" in extra:
            return _reaches(extra["argument"])
        if "lifted" in extra:
            return extra["lifted"] is not None
        if "parameter" in extra:
            return bool(extra["parameter"].trainable) and is_real(data)
    operation = node._operation
    return None if operation is not None and (is_cut(operation) or smooth(node)) else False
