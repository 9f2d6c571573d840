"""Tensors whose gradients live in torch: written as what they were, and made again by their operation.

Torch's own record of how a tensor came to be cannot be written down. So the operation that made it is
called once more, on the inputs that were kept. It is believed only where it comes to the same value, bit
for bit, by the same last step of torch, from the same inputs; else nothing is given back.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tracegraph.array_calls import arranged
from tracegraph.bundle import Bundle
from tracegraph.errors import HistoryError
from tracegraph.history.at_hand import AtHand
from tracegraph.history.values import pack
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.node import Node, apply
from tracegraph.operators import BINARY, Operation

__all__ = [
    "bundle_at",
    "is_followed",
    "laid_out",
    "layouts_of",
    "made_again",
    "mark_of",
    "numbers_inside",
    "tensors_inside",
]

_LINE = 64  # bytes: as far as vector instructions look at where a number lies
_ARITHMETIC = frozenset(map(id, BINARY.values()))


def tensors_inside(value: Any) -> Iterator[Any]:
    """The tensors in a value, and in lists, tuples and dicts.

    >>> list(tensors_inside([1, {"a": "text"}]))
    []
    """
    return filter(is_tensor, numbers_inside(value))


def numbers_inside(value: Any) -> Iterator[Any]:
    """The tensors and arrays in a value, and in lists, tuples and dicts."""
    kind = type(value)
    if is_tensor(value) or is_array(value):
        yield value
    elif kind is list or kind is tuple or kind is dict:
        for item in value.values() if kind is dict else value:
            yield from numbers_inside(item)


def is_followed(value: Any) -> bool:
    """Whether torch knows how a tensor in `value` was made, so that its gradients go on from there."""
    return any(tensor.grad_fn is not None for tensor in tensors_inside(value))


def mark_of(value: Any) -> list[str]:
    """A digest of the numbers and their types, and which steps of torch the tensors came from.

    Raises:
        HistoryError: something in it has no numbers on this machine's processor to be compared.
    """
    digest = hashlib.sha256()
    if not is_tensor(value):
        digest.update(json.dumps(pack(value, {})).encode("utf-8", "surrogatepass"))
    for numbers in numbers_inside(value):
        digest.update(f"{numbers.dtype} {tuple(numbers.shape)}".encode())
        digest.update(_bytes(numbers))
    steps = (type(tensor.grad_fn).__name__ for tensor in tensors_inside(value))
    return [digest.hexdigest()[:32], *steps]


def _bytes(numbers: Any) -> Any:
    if not is_tensor(numbers):
        return numbers.tobytes()
    try:
        return numbers.detach().contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    except (RuntimeError, TypeError) as error:
        raise HistoryError(f"a {numbers.dtype} tensor cannot be compared: {error}") from error


def layouts_of(value: Any) -> list[list[Any] | None]:
    """How each tensor in a value lies in memory, on which the last bit of a sum may depend.

    Returns:
        The strides, and how far behind a multiple of 64 bytes it begins; ``None`` for what any
        tensor has that torch makes.
    """
    return [_layout(tensor) for tensor in {id(t): t for t in tensors_inside(value)}.values()]


def _layout(tensor: Any) -> list[Any] | None:
    behind = tensor.data_ptr() % _LINE
    return [list(tensor.stride()), behind] if behind or not tensor.is_contiguous() else None


def laid_out(tensor: Any, layout: Sequence[Any] | None) -> Any:
    """A tensor as it is, or a copy that lies in memory as another one lay.

    >>> import torch
    >>> row = torch.arange(12.0).reshape(4, 3)[1]
    >>> laid_out(torch.tensor([3.0, 4.0, 5.0]), _layout(row)).data_ptr() % 64
    12
    """
    if layout is None or not tensor.numel():
        return tensor
    strides, behind = layout
    extent = sum((n - 1) * step for n, step in zip(tensor.shape, strides, strict=True)) + 1
    size = tensor.element_size()
    memory = tensor.new_empty(extent + 2 * _LINE // size)
    first = (behind - memory.data_ptr()) % _LINE // size
    made = memory.as_strided(tensor.shape, strides, first)
    one, data = made, tensor
    for dim, step in enumerate(strides):
        if step == 0:  # it was expanded: all along are one number
            one, data = one.narrow(dim, 0, 1), data.narrow(dim, 0, 1)
    one.copy_(data.detach())
    return made.requires_grad_(tensor.requires_grad)


def bundle_at(way: str, hand: AtHand) -> str:
    """The way to the bundle whose operation is at the end of `way`.

    Raises:
        HistoryError: it cannot be called again: it is async, or of an object that is not the only one.
    """
    home = way.removesuffix(".operation")
    bundle = hand.at(home)
    if not isinstance(bundle, Bundle) or home == way or bundle._mode is not None:
        raise HistoryError(f"{way} is of no bundle that can be called again")
    if _needs_self(bundle):
        owner = hand.at(home.rpartition(".")[0]) if home.rpartition(".")[0] else None
        if owner is None or len(hand.all_of(type(owner))) != 1:
            raise HistoryError(f"{way} is a method, and of which object is not known")
    return home


def made_again(
    operation: Operation,
    home: str | None,
    inputs: Mapping[str, Node[Any]],
    mark: Sequence[str],
    captured: Sequence[str],
    hand: AtHand,
) -> Node[Any]:
    """The node that an operation makes of `inputs`, if it is the one that `mark` was made of.

    Args:
        operation: what made it.
        home: the way to its bundle, for one that a person wrote.
        inputs: by name, as they were recorded.
        mark: see `mark_of`.
        captured: which inputs were read by the call without being given to it.
        hand: knows the bundle.

    Raises:
        HistoryError: it comes to something else now, or fails.
    """
    given = {n: i for n, i in inputs.items() if n not in captured and n != "__code"}
    calls = _own(operation, given) if home is None else [_call(home, given, hand)]
    why = "nothing is known that would make it"
    for call in calls:
        try:
            made: Node[Any] = call()
            same = isinstance(made, Node) and mark_of(made._data) == list(mark)
        except Exception as error:  # whatever a person's function raises
            why = f"{type(error).__name__}: {error}"
            continue
        if same and _from(made, inputs):
            made._inputs = tuple(inputs.values())
            return made
        why = f"it comes to {show(getattr(made, '_data', made), 60)} now"
    raise HistoryError(f"{operation.name} does not make the same again: {why}")


def _from(made: Node[Any], inputs: Mapping[str, Node[Any]]) -> bool:
    """Whether a node has these inputs; constants are as good as others of their value."""
    if made._names != tuple(inputs):
        return False
    return all(
        mine is kept or _same_constant(mine, kept)
        for mine, kept in zip(made._inputs, inputs.values(), strict=True)
    )


def _same_constant(mine: Node[Any], kept: Node[Any]) -> bool:
    plain = mine._operation is None and kept._operation is None and mine.parameter is None
    return plain and kept.parameter is None and mine._data is kept._data


def _needs_self(bundle: Bundle[Any, Any]) -> bool:
    return bundle._method or bundle._binding.skip


def _call(home: str, given: Mapping[str, Node[Any]], hand: AtHand) -> Callable[[], Any]:
    """The call of a bundle: the first inputs by position, as far as they are called so, the rest by name."""
    bundle = hand.at(home)
    binding = bundle._binding
    owned = _needs_self(bundle)
    function = (
        getattr(hand.at(home.rpartition(".")[0]), home.rpartition(".")[2]) if owned else bundle
    )
    positional: list[Node[Any]] = []
    rest = dict(given)
    while rest and next(iter(rest)) == binding.name(len(positional) + owned):
        positional.append(rest.pop(next(iter(rest))))
    return lambda: function(*positional, **rest)


def _own(operation: Operation, given: Mapping[str, Node[Any]]) -> Iterator[Callable[[], Any]]:
    """What may have made a node of an operation of Python's or a library's, likeliest first."""
    if id(operation) in _ARITHMETIC:
        yield lambda: operation.function(*given.values())  # type: ignore[misc]
        return
    if operation.function is not None:
        yield lambda: apply(operation, tuple(given.values()))
        return
    args, kwargs = arranged(given, operation.parameters)
    name = operation.name
    yield lambda: getattr(args[0], name)(*args[1:], **kwargs)
    for place in ("torch", "torch.nn.functional", "torch.linalg"):
        function = getattr(sys.modules.get(place), name, None)
        if callable(function):
            yield functools.partial(function, *args, **kwargs)
