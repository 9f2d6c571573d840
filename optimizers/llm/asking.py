"""What optimizers that ask a model share: problem -> prompt -> reply -> proposal.

A subclass says how a problem becomes messages. Here the model is asked once per step, the reply is
read, every value is checked, and what was rejected and why goes into the next prompt, or, with
`repairs`, back to the model at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from optimizers.base import Optimizer, Proposal, Rejection, Update, Usage
from optimizers.encoding import decoded, encoded
from optimizers.llm.memory import Memory
from optimizers.llm.questions import Questions, usage_of
from optimizers.llm.reply import ReadReply, read_reply
from tracegraph.errors import BudgetExceeded, ModelError, OptimizerError, Rejected, UnreadableReply
from tracegraph.kinds import show
from tracegraph.llm import LanguageModelLike, Message, Reply
from tracegraph.parameter import Parameter
from tracegraph.problem import Problem, Variable

__all__ = ["FORM", "ModelOptimizer"]

FORM = """\
Answer with one JSON object:
{"reasoning": "in a few sentences", "suggestion": {"variable name": new value, ...}}
Name only variables that shall change, as they are named. A value is whole: text as a JSON string, a
number as a number, code as its whole source with the same name and arguments. When nothing should
change, leave the suggestion empty."""
"""The form of the reply that every optimizer here asks for."""

_LONGEST_REPLY = 1_000_000


class ModelOptimizer(Questions, Optimizer):
    """An optimizer that asks a language model for new values.

    Args:
        parameters: what `Optimizer` takes.
        llm: a model's name for litellm (``"gpt-4o-mini"``, ``"ollama/llama3"``), a `LanguageModel`,
            any callable, or ``None`` for the one that the environment names.
        objective: what is wanted, in words.
        memory_size: how many facts of earlier problems are kept and shown; 0 for none.
        budget: about how many tokens a request may have, past facts included.
        repairs: how often the model is shown what is wrong with a reply and asked again, 0 to 2.
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
        memory_size: int = 100,
        budget: int = 4_000,
        repairs: int = 0,
        max_tokens: int = 4_096,
        mask: Iterable[str] = (),
        ignore_extraction_error: bool = True,
        **options: Any,
    ) -> None:
        Optimizer.__init__(self, parameters)
        Questions.__init__(self, llm, max_tokens=max_tokens, options=options)
        if objective is not None and not isinstance(objective, str):
            raise OptimizerError(f"objective= is a text, got {show(objective, 80)}")
        self.objective = objective or self.default_objective
        self.budget = budget
        self.mask = _sections(mask)
        self.ignore_extraction_error = ignore_extraction_error
        if not isinstance(repairs, int) or not 0 <= repairs <= 2:
            raise OptimizerError(
                f"repairs is how often a reply may be mended, 0 to 2, got {show(repairs, 40)}; a model "
                "that fails more often than that needs another prompt"
            )
        self.repairs = repairs
        self.memory = Memory(memory_size)
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
        values: dict[str, Any] = {}
        shared: dict[str, Any] = {}
        for number, variable in enumerate(problem.variables):
            values[variable.name] = _moved(_value_schema(variable), f"v{number}_", shared)
        whole: dict[str, Any] = {
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
        return {**whole, "$defs": shared} if shared else whole

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
        messages = self.messages(problem, (*self.mask, *_sections(mask)))
        usage, proposal = Usage(), Proposal({})
        for left in range(self.repairs, -1, -1):
            try:
                reply = self.exchange(
                    messages, schema=self.schema(problem), verbose=verbose, **options
                )
            except (BudgetExceeded, ModelError):
                if not usage.calls:
                    raise
                break  # the reply that could not be mended was paid for, and its reasons are told
            usage += usage_of(reply)
            try:
                read = self.read(reply)
            except UnreadableReply as error:
                if not left and not self.ignore_extraction_error:
                    raise
                rejections: tuple[Rejection, ...] = (Rejection("the reply", None, error.reason),)
                proposal = Proposal({}, rejections=rejections, usage=usage)
            else:
                values, rejections = self._values(read)
                note = "; ".join(read.problems)
                proposal = Proposal(values, read.reasoning or "", rejections, usage, note)
            if not rejections:
                break
            messages = [*messages, Message("assistant", reply.text), _mend(rejections)]
        self.learn(problem)
        return proposal

    def prepare(self, **options: Any) -> Usage:
        """Find out what several proposals by the same feedback share; says what that cost."""
        return Usage()

    def learn(self, problem: Problem) -> None:
        """Keep what a problem taught for the next one."""
        self.memory.learn(problem)

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

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """Keep a proposal that was tried and not kept, for the next problem."""
        self._rejected = tuple(
            Rejection(name, proposal.values[p], reason)
            for name, p in self.named_parameters.items()
            if p in proposal.values
        )

    def state_dict(self) -> dict[str, Any]:
        """The memory, what was rejected, and which questions were asked how often."""
        return {
            "memory": self.memory.state_dict(),
            "rejected": [[r.name, _stored(r.value), r.reason] for r in self._rejected],
            "asked": dict(self.asked),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave.

        Raises:
            OptimizerError: the state is none, or is damaged; nothing has changed.
        """
        try:
            rejected = tuple(
                Rejection(name, self._restored(name, value), why)
                for name, value, why in state["rejected"]
            )
            asked = Counter({str(key): int(count) for key, count in state["asked"].items()})
            self.memory.load_state_dict(state["memory"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizerError(
                f"this is no state of {type(self).__name__}: {show(state, 80)}"
            ) from error
        self._rejected, self.asked = rejected, asked

    def _restored(self, name: str, value: Any) -> Any:
        owner = self.named_parameters.get(name)
        return decoded(value, None if owner is None else owner.initial)

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


def _stored(value: Any) -> Any:
    try:
        return encoded(value)
    except OptimizerError:  # it holds what cannot be written down
        return None


def _sections(mask: Iterable[str]) -> tuple[str, ...]:
    return (mask,) if isinstance(mask, str) else tuple(mask)


def _mend(rejections: Iterable[Rejection]) -> Message:
    wrong = "\n".join(f"{r.name}: {r.reason}" for r in rejections)
    return Message(
        "user",
        f"Your reply cannot be used:\n{wrong}\nSend the whole reply again, in the form asked for.",
    )


def _value_schema(variable: Variable) -> Mapping[str, Any]:
    if variable.json_schema is not None:
        return variable.json_schema
    if variable.kind == "choice" and variable.value in ("True", "False"):
        return {"type": "boolean"}
    return _SCHEMAS.get(variable.kind, {})


_SCHEMAS: dict[str, Mapping[str, Any]] = {
    "text": {"type": "string"},
    "code": {"type": "string"},
    "number": {"type": "number"},
}
_DEFINED = "#/$defs/"


def _moved(schema: Any, prefix: str, shared: dict[str, Any]) -> Any:
    """A schema as a part of a larger one: its definitions go to `shared`, under names of their own."""
    if isinstance(schema, Mapping):
        for name, defined in schema.get("$defs", {}).items():
            shared[prefix + name] = _moved(defined, prefix, shared)
        return {
            key: _DEFINED + prefix + value.removeprefix(_DEFINED)
            if key == "$ref" and isinstance(value, str)
            else _moved(value, prefix, shared)
            for key, value in schema.items()
            if key != "$defs"
        }
    if isinstance(schema, list):
        return [_moved(item, prefix, shared) for item in schema]
    return schema
