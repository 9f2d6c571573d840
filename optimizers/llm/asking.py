"""What optimizers that ask a model share: problem -> prompt -> reply -> proposal.

A subclass says how a problem becomes messages. Here the model is asked once per step, the reply is
read, every value is checked, and what was rejected and why goes into the next prompt.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optimizers.base import Optimizer, Proposal, Rejection, Update, Usage
from optimizers.llm.reply import ReadReply, read_reply
from tracegraph.errors import Rejected, UnreadableReply
from tracegraph.llm import LanguageModelLike, Message, Reply, Request, as_language_model
from tracegraph.parameter import Parameter
from tracegraph.problem import Problem

__all__ = ["Exchange", "ModelOptimizer", "Past"]

logger = logging.getLogger("optimizers")

_LONGEST_REPLY = 1_000_000


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question to the model and its answer."""

    messages: tuple[Message, ...]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Past:
    """Values that were tried before, and what was said of them."""

    values: Mapping[str, str]
    feedback: tuple[str, ...]
    score: float | None = None


class ModelOptimizer(Optimizer):
    """An optimizer that asks a language model for new values.

    Args:
        parameters: what `Optimizer` takes.
        llm: a model's name for litellm (``"gpt-4o-mini"``, ``"ollama/llama3"``), a `LanguageModel`,
            any callable, or ``None`` for the one that the environment names.
        objective: what is wanted, in words.
        memory_size: how many past attempts the model is shown; 0 for none.
        budget: about how many tokens the problem may have.
        max_tokens: how long the model's reply may be.
        mask: names of sections that are left out of every problem.
        ignore_extraction_error: ``True`` reports an unreadable reply in the `Update`; ``False``
            raises `UnreadableReply`.
        **options: sent with every request, such as ``temperature=0``.
    """

    def __init__(
        self,
        parameters: Any,
        llm: LanguageModelLike = None,
        *,
        objective: str | None = None,
        memory_size: int = 5,
        budget: int = 4_000,
        max_tokens: int = 4_096,
        mask: Iterable[str] = (),
        ignore_extraction_error: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(parameters)
        self.llm = as_language_model(llm)
        self.objective = objective or self.default_objective
        self.budget = budget
        self.max_tokens = max_tokens
        self.mask = tuple(mask)
        self.ignore_extraction_error = ignore_extraction_error
        self.options = _options(options)
        self.memory: deque[Past] = deque(maxlen=max(memory_size, 0))
        self.log: deque[Exchange] = deque(maxlen=100)
        self._rejected: tuple[Rejection, ...] = ()

    default_objective = "Change the values of the variables so that the feedback improves."

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.named_parameters)}, llm={self.llm!r})"

    def problem(self) -> Problem:
        """The problem as it stands now: what the next step would ask about."""
        return Problem.of(
            {n: p for n, p in self.named_parameters.items() if p.trainable},
            instruction=self.objective,
            budget=self.budget,
        )

    @abstractmethod
    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """What is said to the model about `problem`."""

    def schema(self, problem: Problem) -> Mapping[str, Any]:
        """The JSON schema of the reply."""
        values: dict[str, Any] = {v.name: _value_schema(v) for v in problem.variables}
        return {
            "type": "object",
            "properties": {
                "reasoning": {"type": "string"},
                "suggestion": {
                    "type": "object",
                    "properties": values,
                    "additionalProperties": False,
                },
            },
            "required": ["reasoning", "suggestion"],
            "additionalProperties": False,
        }

    def propose(
        self, *, mask: Iterable[str] = (), verbose: bool = False, **options: Any
    ) -> Proposal:
        """Ask the model once and read what it suggests.

        Args:
            mask: names of sections to leave out of this problem.
            verbose: log the prompt and the reply at level INFO (logger ``optimizers``).
            **options: sent with this request, such as ``temperature=1``.

        Raises:
            UnreadableReply: the reply could not be read and `ignore_extraction_error` is false.
            OptimizerError: the model could not be asked; the feedback stays for the next try.
        """
        problem = self.problem()
        messages = self.messages(problem, (*self.mask, *mask))
        request = Request.of(
            messages,
            schema=self.schema(problem),
            max_tokens=self.max_tokens,
            **{**self.options, **options},
        )
        reply = self.llm.ask(request)
        self.log.append(Exchange(tuple(messages), reply))
        if verbose:
            logger.info(
                "asked %s:\n%s\nit replied:\n%s", self.llm.name, messages[-1].text, reply.text
            )
        usage = _usage(reply)
        try:
            read = self.read(reply)
        except UnreadableReply as error:
            if not self.ignore_extraction_error:
                raise
            return self._unread(error.reason, usage)
        values, rejections = self._values(read)
        self._remember(problem)
        return Proposal(
            values, read.reasoning or "", rejections, usage, note="; ".join(read.problems)
        )

    def read(self, reply: Reply) -> ReadReply:
        """What a reply suggests, by parameter name."""
        if len(reply.text) > _LONGEST_REPLY:
            raise UnreadableReply(
                reply=reply.text[:1_000],
                reason=f"the reply has {len(reply.text):,} characters, more than {_LONGEST_REPLY:,}",
            )
        return read_reply(
            reply.text,
            {
                name: "text" if p.kind.name in ("text", "code") else "json"
                for name, p in self.named_parameters.items()
            },
        )

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Update:
        """Assign all values or none, and keep what was rejected for the next problem."""
        update = super().settle(proposal, bypassing=bypassing)
        self._rejected = update.rejections
        return update

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """What the last step rejected; the next problem says so."""
        return self._rejected

    def _values(self, read: ReadReply) -> tuple[dict[Parameter[Any], Any], tuple[Rejection, ...]]:
        values: dict[Parameter[Any], Any] = {}
        rejections = []
        for name, raw in read.suggestions.items():
            parameter = self.named_parameters[name]
            if not parameter.trainable:
                continue
            try:
                values[parameter] = parameter.read(raw)
            except Rejected as error:
                rejections.append(Rejection(name, raw, error.reason))
        return values, tuple(rejections)

    def _unread(self, reason: str, usage: Usage) -> Proposal:
        rejection = Rejection("the reply", None, reason)
        return Proposal({}, rejections=(rejection,), usage=usage)

    def _remember(self, problem: Problem) -> None:
        if not self.memory.maxlen:
            return
        past = Past(
            {v.name: v.value for v in problem.variables},
            tuple(f"{s.text}" for s in problem.feedback),
            problem.score,
        )
        if past not in self.memory:
            self.memory.append(past)


_ELSEWHERE = {
    "propagator": "rules belong to operations: tracegraph.register_rule or @bundle(rules=...)",
    "prompt_symbols": "override messages() to say it in other words",
    "json_keys": "the reply's form is fixed and read leniently",
    "include_example": "the form of the reply is described by a schema",
    "highlight_variables": "variables have a section of their own",
    "use_json_object_format": "a schema is sent where the model supports one",
    "log": "the last exchanges are in .log",
}


def _options(options: dict[str, Any]) -> dict[str, Any]:
    quiet = {"log", "use_json_object_format", "include_example"}
    for name in options.keys() & _ELSEWHERE.keys() - quiet:
        raise TypeError(f"there is no option {name!r} here: {_ELSEWHERE[name]}")
    return {k: v for k, v in options.items() if k not in _ELSEWHERE}


def _usage(reply: Reply) -> Usage:
    if reply.usage is None:
        return Usage(calls=1, cost=reply.cost)
    return Usage(1, reply.usage.prompt, reply.usage.completion, reply.cost)


def _value_schema(variable: Any) -> Mapping[str, Any]:
    if variable.json_schema is not None:
        return dict(variable.json_schema)
    return dict(_SCHEMAS.get(variable.kind, {}))


_SCHEMAS: dict[str, Mapping[str, Any]] = {
    "text": {"type": "string"},
    "code": {"type": "string"},
    "number": {"type": "number"},
}
