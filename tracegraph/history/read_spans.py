"""Read spans of OpenTelemetry from OTLP JSON or from its SDK: one form, whoever wrote them.

What a span was given and what it gave stand under the names of OpenInference, of the GenAI
conventions, of their older form with numbered attributes, or in events; here they are told apart
once. A prompt is what a model was told before any question: its system messages or its template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracegraph.errors import HistoryError
from tracegraph.kinds import show

__all__ = ["ReadSpan", "read_spans"]

_INPUTS = (
    "input.value", "gen_ai.tool.call.arguments", "gen_ai.retrieval.query.text", "tool.parameters",
    "traceloop.entity.input", "gen_ai.prompt",
)  # fmt: skip
_OUTPUTS = (
    "output.value", "gen_ai.tool.call.result", "gen_ai.retrieval.documents",
    "traceloop.entity.output", "gen_ai.completion",
)  # fmt: skip
_MESSAGES = {"input": ("llm.input_messages", "gen_ai.prompt"),
             "output": ("llm.output_messages", "gen_ai.completion")}  # fmt: skip
_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """A span: what it was, when (in nanoseconds), what it was given and gave.

    `parent` is the id of the span around it, if any; `links` are the ids of those that it used, with
    the argument where that is known; `prompt` is what a model was told first, and is no part of
    `given`. `given` and `gave` are ``None`` where the trace does not say.
    """

    id: str
    trace: str
    parent: str | None
    name: str
    kind: str
    began: int
    ended: int
    given: Any = None
    gave: Any = None
    prompt: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


def read_spans(source: Any) -> list[ReadSpan]:
    """The spans of `source`, in the order of their beginnings.

    Args:
        source: a path of a file of OTLP JSON (one object, or one on each line), such an object, or
            an iterable of spans of OpenTelemetry's SDK (``ReadableSpan``).

    Raises:
        HistoryError: it is none of these, holds no span, or holds two of one id.
    """
    found = [_read(raw) for raw in _raw(source)]
    if not found:
        raise HistoryError(f"there are no spans in {show(source, 80)}")
    known: set[str] = set()
    for span in found:
        if span.id in known:
            raise HistoryError(f"two spans have the id {span.id}; give each span once")
        known.add(span.id)
    return sorted(found, key=lambda span: (span.began, -span.ended))


# From the two forms to one


@dataclass(slots=True)
class _Raw:
    id: str
    trace: str
    parent: str | None
    name: str
    began: int
    ended: int
    attributes: dict[str, Any]
    links: list[tuple[str, dict[str, Any]]]
    events: list[tuple[str, dict[str, Any]]]
    failed: bool
    message: str


def _raw(source: Any) -> Iterator[_Raw]:
    if isinstance(source, (str, Path)):
        yield from _from_file(Path(source))
    elif isinstance(source, Mapping):
        yield from _from_json(source, "what was given")
    elif isinstance(source, Iterable):
        for span in source:
            if isinstance(span, Mapping):
                yield from _from_json(span, "what was given")
            else:
                yield _from_sdk(span)
    else:
        raise HistoryError(
            f"spans come from a file of OTLP JSON, from such an object, or from a list of spans of "
            f"OpenTelemetry's SDK, got {show(source, 80)}"
        )


def _from_file(path: Path) -> Iterator[_Raw]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path} cannot be read as OTLP JSON: {error}") from error
    try:
        objects = [(1, json.loads(text))]
    except ValueError:
        objects = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    objects.append((number, json.loads(line)))
                except ValueError as error:
                    raise HistoryError(f"line {number} of {path} is no JSON: {error}") from error
    for number, found in objects:
        for each in found if isinstance(found, list) else [found]:
            yield from _from_json(each, f"line {number} of {path}")


def _from_json(found: Any, where: str) -> Iterator[_Raw]:
    resources = _either(found, "resourceSpans") if isinstance(found, Mapping) else None
    if not isinstance(resources, list):
        raise HistoryError(
            f"{where} is no OTLP JSON: it is an object with resourceSpans, got {show(found, 80)}"
        )
    try:
        for resource in resources:
            for scope in _either(resource, "scopeSpans") or ():
                for span in scope.get("spans", ()):
                    yield _span_of_json(span)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"{where} is damaged OTLP JSON: {error!r}") from error


def _span_of_json(span: Mapping[str, Any]) -> _Raw:
    status = span.get("status") or {}
    return _Raw(
        _either(span, "spanId"), _either(span, "traceId") or "",
        _either(span, "parentSpanId") or None, span.get("name", ""),
        int(_either(span, "startTimeUnixNano") or 0), int(_either(span, "endTimeUnixNano") or 0),
        _attributes(span),
        [(_either(link, "spanId"), _attributes(link)) for link in span.get("links") or ()],
        [(event.get("name", ""), _attributes(event)) for event in span.get("events") or ()],
        status.get("code") in (2, "STATUS_CODE_ERROR"), status.get("message", ""),
    )  # fmt: skip


def _either(holder: Mapping[str, Any], name: str) -> Any:
    """A field by the name that JSON has, or by the one that protocol buffers have."""
    return holder.get(name, holder.get(re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()))


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {item["key"]: _value(item.get("value")) for item in holder.get("attributes") or ()}


def _value(value: Any) -> Any:
    for name, found in (value or {}).items():
        kind = name.replace("_", "").lower()
        if kind == "intvalue":
            return int(found)
        if kind == "arrayvalue":
            return [_value(item) for item in found.get("values", ())]
        if kind == "kvlistvalue":
            return {item["key"]: _value(item.get("value")) for item in found.get("values", ())}
        return found
    return None


def _from_sdk(span: Any) -> _Raw:
    try:
        own, above, status = span.get_span_context(), span.parent, span.status
        return _Raw(
            f"{own.span_id:016x}", f"{own.trace_id:032x}",
            None if above is None else f"{above.span_id:016x}", span.name,
            span.start_time or 0, span.end_time or span.start_time or 0,
            dict(span.attributes or {}),
            [(f"{link.context.span_id:016x}", dict(link.attributes or {})) for link in span.links],
            [(event.name, dict(event.attributes or {})) for event in span.events],
            status.status_code.name == "ERROR", status.description or "",
        )  # fmt: skip
    except AttributeError as error:
        raise HistoryError(
            f"{show(span, 80)} is no span of OpenTelemetry's SDK (ReadableSpan): {error}"
        ) from error


# What a span says


def _read(raw: _Raw) -> ReadSpan:
    facts = dict(raw.attributes)
    for name, more in raw.events:
        if name.startswith("gen_ai.") and name != "gen_ai.evaluation.result":
            facts |= {key: value for key, value in more.items() if key not in facts}
    asked = _messages(facts, "input")
    prompt, given = _prompt(facts, asked), None
    if asked:
        rest = [turn for turn in asked if turn[0] not in _SYSTEM]
        given = (
            rest[0][1] if len(rest) == 1 else [{"role": r, "content": t} for r, t in rest] or None
        )
    template = _json(facts.get("llm.prompt_template.variables"))
    if isinstance(facts.get("llm.prompt_template.template"), str) and template is not None:
        given = template
    if given is None:
        given = _first(facts, _INPUTS)
    replied = "\n".join(text for _, text in _messages(facts, "output"))
    gave = replied or _first(facts, _OUTPUTS)
    if gave is None:
        gave = _documents(facts)
    return ReadSpan(
        raw.id, raw.trace, raw.parent, raw.name, _kind(facts, bool(asked)), raw.began, raw.ended,
        given, gave, prompt, tuple((i, str(_argument(more))) for i, more in raw.links),
        _error(raw), facts,
    )  # fmt: skip


def _kind(facts: Mapping[str, Any], asked: bool) -> str:
    kind = facts.get("openinference.span.kind") or facts.get("traceloop.span.kind")
    if kind:
        return str(kind).upper()
    operation = facts.get("gen_ai.operation.name")
    known = {"execute_tool": "TOOL", "invoke_agent": "AGENT", "create_agent": "AGENT",
             "embeddings": "EMBEDDING", "retrieval": "RETRIEVER"}  # fmt: skip
    return known.get(str(operation), "LLM" if operation or asked else "CHAIN")


def _prompt(facts: Mapping[str, Any], asked: list[tuple[str, str]]) -> str | None:
    template = facts.get("llm.prompt_template.template")
    if isinstance(template, str):
        return template
    texts = [text for role, text in asked if role in _SYSTEM]
    told = _json(facts.get("gen_ai.system_instructions"))
    if told is not None:
        texts.append(_words(told))
    return "\n\n".join(filter(None, texts)) or None


def _messages(facts: Mapping[str, Any], side: str) -> list[tuple[str, str]]:
    """Roles and texts, in whichever of the conventions they stand."""
    listed = _json(facts.get(f"gen_ai.{side}.messages"))
    if isinstance(listed, list):
        return [(str(m.get("role", "")), _words(m)) for m in listed if isinstance(m, Mapping)]
    for base in _MESSAGES[side]:
        found: dict[int, dict[str, Any]] = {}
        for name, value in facts.items():
            head, _, rest = name.removeprefix(f"{base}.").partition(".")
            if name.startswith(f"{base}.") and head.isdecimal():
                found.setdefault(int(head), {})[rest.removeprefix("message.")] = value
        if found:
            return [(str(m.get("role", "")), _numbered(m)) for _, m in sorted(found.items())]
    return []


def _numbered(message: Mapping[str, Any]) -> str:
    """The words of a message whose parts are numbered attributes."""
    if "content" in message:
        return str(message["content"])
    parts = [
        v for n, v in message.items() if re.fullmatch(r"contents\.\d+\.message_content\.text", n)
    ]
    calls = [v for n, v in message.items() if n.endswith(("function.name", "function.arguments"))]
    return "\n".join(str(part) for part in parts or calls)


def _words(found: Any) -> str:
    """The text in a message of the GenAI conventions: its parts, or its content."""
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        return "\n".join(filter(None, map(_words, found)))
    if not isinstance(found, Mapping):
        return ""
    for name in ("content", "parts", "text", "result", "response"):
        if found.get(name):
            return _words(found[name])
    if "arguments" in found:
        return f"{found.get('name', '')}({json.dumps(found['arguments'])})"
    return ""


def _documents(facts: Mapping[str, Any]) -> list[Any] | None:
    name = re.compile(r"retrieval\.documents\.(\d+)\.document\.content")
    found = {int(m[1]): value for key, value in facts.items() if (m := name.fullmatch(key))}
    return [found[number] for number in sorted(found)] or None


def _first(facts: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if name in facts:
            mime = facts.get(name.replace(".value", ".mime_type"))
            value = facts[name]
            return (
                _json(value) if mime == "application/json" or name.endswith("arguments") else value
            )
    return None


def _json(value: Any) -> Any:
    """What a text of JSON says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _argument(facts: Mapping[str, Any]) -> Any:
    return facts.get("tracegraph.argument", "")


def _error(raw: _Raw) -> tuple[str, str] | None:
    for name, facts in raw.events:
        if name == "exception":
            message = str(facts.get("exception.message", raw.message))
            return str(facts.get("exception.type", "Exception")), message
    return (str(raw.attributes.get("error.type", "Error")), raw.message) if raw.failed else None
