"""What there is to say of a node: its value, how it was made, what came back to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tracegraph import profiling, view
from tracegraph.feedback import Gradient
from tracegraph.kinds import ATOMS, is_array, is_tensor, show
from tracegraph.node import Node
from tracegraph.parameter import Parameter

__all__ = ["arrived", "details", "given", "norm"]

_LOOKED_AT = 1_000_000  # elements of a tensor that its statistics read
_BINS = 24
_FEW = 64
_LEAST_SIDE, _LARGEST_SIDE, _SIDE = 8, 8_192, 160  # pixels of an array that is shown as a picture
_CHANNELS = (1, 3, 4)
_MEASURES = {
    "seconds": "time (s)", "tokens": "tokens", "tokens_in": "tokens in",
    "tokens_out": "tokens out", "cost": "cost ($)", "usage": "usage",
}  # fmt: skip


def details(
    node: Node[Any], said: Iterable[str] = (), constants: Mapping[str, str] | None = None
) -> tuple[view.Entry, ...]:
    """What to show of `node`; `said` is the feedback given at it, `constants` its plain inputs.

    >>> import tracegraph as tg
    >>> x = tg.node({"a": 1}, name="x")
    >>> [(entry.heading, entry.form) for entry in details(x)]
    [('About', 'facts'), ('Value', 'tree')]
    """
    return tuple(_entries(node, said, constants or {}))


def given(parameters: Iterable[Parameter[Any]]) -> dict[int, list[str]]:
    """The feedback that was given, as text, by the id of the output that it was given at."""
    found: dict[int, dict[str, None]] = {}
    for parameter in parameters:
        for message in parameter.feedback.values():
            outputs = getattr(message, "outputs", None)
            if isinstance(outputs, Mapping):
                for number, entries in outputs.items():
                    found.setdefault(number, {}).update({str(said): None for _, said in entries})
    return {number: list(texts) for number, texts in found.items()}


def arrived(parameter: Parameter[Any]) -> str:
    """What came back to `parameter`, and how much, on one line: a gradient by its norm.

    >>> import tracegraph as tg
    >>> x = tg.node("hi", trainable=True)
    >>> received = tg.backward([(x + "!", "too short"), (x + "?", "too odd")])
    >>> arrived(x)
    '2 × too short | too odd'
    """
    words = []
    for message in parameter.feedback.values():
        if isinstance(message, Gradient):
            words.append(f"gradient norm {norm(message.value)}")
            continue
        outputs = getattr(message, "outputs", None)
        times = sum(map(len, outputs.values())) if isinstance(outputs, Mapping) else 1
        said = " | ".join(str(message).splitlines())
        words.append(f"{times} × {said}" if times > 1 else said)
    return " | ".join(filter(None, words))


def _entries(
    node: Node[Any], said: Iterable[str], constants: Mapping[str, str]
) -> Iterator[view.Entry]:
    owner = node.parameter
    yield view.Entry("About", "facts", _about(node, owner))
    if node.failure is not None:
        yield view.Entry("Error", "error", node.failure.text())
    else:
        yield from _value(node, "" if owner is None else owner.kind.name)
    lines = profiling.told(node.info)
    if lines and node.failure is None:
        yield view.Entry("Time by line", "text", lines)
    ran = node.info.get("ran")
    if ran is not None and ran.lost and node.failure is None:
        yield view.Entry("Lost with the call", "text", ran.lost)
    for name in ("stdout", "stderr"):
        if ran is not None and getattr(ran, name):
            yield view.Entry(f"Printed ({name})", "text", getattr(ran, name))
    if owner is not None:
        for message in owner.feedback.values():
            if isinstance(message, Gradient):
                yield view.Entry("Gradient", "facts", {"norm": norm(message.value)})
                yield from _array("Gradient", message.value)
            elif said_of := str(message):
                yield view.Entry(f"Feedback ({type(message).__name__})", "text", said_of)
    words = "\n".join(said)
    if words:
        yield view.Entry("Feedback given here", "text", words)
    if constants:
        yield view.Entry("Constants", "facts", constants)
    if node.description:
        yield view.Entry("Documentation", "text", node.description)


def _about(node: Node[Any], owner: Parameter[Any] | None) -> dict[str, str]:
    info = node.info
    facts = {"name": node.name, "type": type(node._data).__name__}
    if node.op is not None:
        facts["operation"] = node.op
    if owner is not None:
        # What the leaf remembers of its version counts; the owner may hold another by now.
        origin = info.get("origin", owner.origin)
        facts |= {
            "kind": owner.kind.name,
            "version": str(node.version),
            "written by": f"{'a' if origin == 'person' else 'an'} {origin}",
            "trainable": "yes" if owner.trainable else "no, frozen",
        }
        if owner.kind.name == "code":
            facts["may run in place"] = (
                "yes" if info.get("trusted", owner.trusted) else "no, not trusted"
            )
    if node.captured:
        facts["read inside"] = ", ".join(node.captured)
    if info.get("ran") is not None:
        facts["ran isolated"] = f"{info['ran'].seconds:.3g} s"
    for key, words in _MEASURES.items():
        if key in info:
            facts[words] = show(info[key], 100)
    return facts


def _value(node: Node[Any], kind: str) -> Iterator[view.Entry]:
    value = node._data
    if is_tensor(value) or is_array(value):
        yield from _array("Value", value)
    elif kind == "code" and isinstance(value, str):
        yield view.Entry("Value", "code", value)
    elif isinstance(value, str):
        yield view.Entry("Value", "text", value)
    elif isinstance(value, (list, tuple, Mapping)):
        # A container may have changed since: then the words of that time are what counts.
        kept = (node._extra or {}).get("preview")
        if kept is not None and kept != show(value, 200):
            yield view.Entry("Value when recorded (it changed since)", "text", kept)
        else:
            yield view.Entry("Value", "tree", view.tree(value, _leaf))
    elif type(value) in ATOMS:
        yield view.Entry("Value", "text", show(value, 2_000))
    else:
        yield view.Entry("Value", "text", show(value, 2_000))
        fields = _fields(value)
        if fields:
            yield view.Entry("Parts", "tree", view.tree(fields, _leaf))


def _fields(value: object) -> dict[str, Any]:
    """The fields of a dataclass or a pydantic model."""
    names = getattr(type(value), "__dataclass_fields__", None) or getattr(
        type(value), "model_fields", None
    )
    if not isinstance(names, Mapping):
        return {}
    held = getattr(value, "__dict__", {})
    return {name: held[name] for name in names if name in held}


def _leaf(value: object) -> str:
    return show(value, 200)


def norm(value: Any) -> str:
    """The length of a gradient, as a word."""
    import numpy

    try:
        if is_tensor(value):
            return f"{float(value.detach().norm()):.6g}"
        return f"{float(numpy.linalg.norm(numpy.asarray(value).reshape(-1))):.6g}"
    except (TypeError, ValueError, RuntimeError) as error:
        return f"unknown: {error}"


def _numbers(value: Any) -> tuple[Any, int]:
    """The numbers of a tensor or array as float64, every so many of a large one; and how many."""
    import numpy

    if is_tensor(value):
        value = value.detach().reshape(-1)
        count = value.shape[0]
        value = value[:: max(1, -(-count // _LOOKED_AT))]
        if value.is_complex():
            value = value.abs()
        return value.double().cpu().numpy(), count
    flat = numpy.asarray(value).reshape(-1)
    count = flat.shape[0]
    flat = flat[:: max(1, -(-count // _LOOKED_AT))]
    if flat.dtype.kind == "c":
        flat = abs(flat)
    return flat.astype(numpy.float64), count


def _array(heading: str, value: Any) -> Iterator[view.Entry]:
    """Shape, statistics and histogram of a tensor or an array, a number among them."""
    import numpy

    facts = {}
    if hasattr(value, "shape"):
        shape = " × ".join(str(int(n)) for n in value.shape)
        facts = {"shape": shape or "scalar", "dtype": str(value.dtype).removeprefix("torch.")}
    if is_tensor(value):
        facts["device"] = str(value.device)
        facts["requires grad"] = "yes" if value.requires_grad else "no"
    try:
        numbers, count = _numbers(value)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        facts["statistics"] = f"none: {error}"
        yield view.Entry(heading, "facts", facts)
        return
    finite = numbers[numpy.isfinite(numbers)]
    facts["elements"] = f"{count:,}"
    if numbers.size < count:
        facts["statistics of"] = f"{numbers.size:,} of them, evenly taken"
    if finite.size:
        with numpy.errstate(all="ignore"):  # sums of huge numbers are infinite, and say so
            facts |= {
                "mean": f"{finite.mean():.6g}",
                "standard deviation": f"{finite.std():.6g}",
                "smallest": f"{finite.min():.6g}",
                "largest": f"{finite.max():.6g}",
                "zeros": f"{int((finite == 0).sum()):,}",
            }
    if finite.size < numbers.size:
        facts["not finite"] = (
            f"{int(numpy.isnan(numbers).sum()):,} NaN, {int(numpy.isinf(numbers).sum()):,} infinite"
        )
    yield view.Entry(heading, "facts", facts)
    histogram = _histogram(finite)
    if histogram is not None:
        yield view.Entry(f"{heading}: histogram", "histogram", histogram)
    picture = _picture(value)
    if picture is not None:
        yield view.Entry(f"{heading}: picture", "image", picture)
    if 0 < count <= _FEW and not (count == 1 and not hasattr(value, "shape")):
        yield view.Entry(f"{heading}: numbers", "tree", view.tree(value.tolist(), _leaf))


def _picture(value: Any) -> bytes | None:
    """A PNG of an array that can be seen as one: height x width, or that with 1, 3 or 4 channels.

    Bytes and numbers from 0 to 1 are shown as they are; others from the smallest to the largest.
    """
    import numpy

    shape = tuple(int(n) for n in getattr(value, "shape", ()))
    if len(shape) == 3 and shape[0] in _CHANNELS and shape[2] not in _CHANNELS:
        value = value.permute(1, 2, 0) if is_tensor(value) else value.transpose(1, 2, 0)
        shape = (*shape[1:], shape[0])
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _CHANNELS):
        return None
    if not all(_LEAST_SIDE <= n <= _LARGEST_SIDE for n in shape[:2]):
        return None
    value = value[:: -(-shape[0] // _SIDE), :: -(-shape[1] // _SIDE)]
    whole = str(value.dtype).removeprefix("torch.") == "uint8"
    if is_tensor(value):
        if value.is_complex():
            return None
        value = value.detach().double().cpu().numpy()
    pixels = numpy.asarray(value)
    if pixels.dtype.kind not in "biuf":
        return None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = pixels.astype(numpy.float64)
    finite = pixels[numpy.isfinite(pixels)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if whole:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    span = high - low
    with numpy.errstate(all="ignore"):
        levels = (pixels - low) / (span if 0 < span < math.inf else 1.0) * 255
    grey = numpy.nan_to_num(levels, nan=0, posinf=255, neginf=0).clip(0, 255).astype(numpy.uint8)
    height, width, channels = grey.shape
    return view.png(grey.tobytes(), width, height, channels)


def _histogram(finite: Any) -> view.Histogram | None:
    """The histogram of finite numbers; None where they are all the same or too far apart."""
    import numpy

    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if not 0 < high - low < math.inf:
        return None
    # numpy.histogram refuses ranges of a few steps of the last digit; a place in it is enough.
    at = ((finite - low) / (high - low) * _BINS).astype(numpy.int64).clip(0, _BINS - 1)
    return view.Histogram(low, high, tuple(numpy.bincount(at, minlength=_BINS).tolist()))
