"""Other projects' optimizers in the hidden-rule world, inside the very loop that ours run in.

A peer gets each example's text, what the model answered and what was said of it, builds its own graph or
data set of them, and asks the world's model in its own words. The loop around it (the examples, the test
on the same examples, the validation, the budget) is `optimizers.fit`, as for ours. Examples that are right
already are not shown to it, which saves it calls. `gepa_alone` is GEPA with its own loop.

The world's model answers every peer in the form that it asks for, and reads its requests as they are: what
a peer shows in its own notation is put into the one that the reader knows, and nothing is added.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from random import Random
from types import SimpleNamespace
from typing import Any

from optimizers.base import Optimizer, Proposal, Rejection, Usage
from optimizers.demo.learning import followed
from optimizers.records import records_of
from tests.worlds.facts import variables_in
from tests.worlds.hidden_rules import START, HiddenRules
from tests.worlds.world import TASK

__all__ = [
    "Gepa",
    "Polyglot",
    "TextGradPeer",
    "TraceOptoPrime",
    "gepa_alone",
    "in_our_notation",
    "installed",
]

_WORDS = r"[a-z]+(?: [a-z]+){2,}"


def installed(package: str) -> bool:
    """Whether a peer is there."""
    return find_spec(package) is not None


class Polyglot(HiddenRules):
    """The hidden-rule world whose model also speaks the forms of the peers."""

    def proposed(self, text: str, random: Random) -> str:
        """The answer in the form that is asked for: JSON, a tag, a fenced block, or words."""
        if "Send ONLY the improved variable" in text:
            form = "<IMPROVED_VARIABLE>{}</IMPROVED_VARIABLE>"
        elif "Provide the new instructions within ``` blocks" in text:
            form = "```\n{}\n```"
        else:
            return super().proposed(in_our_notation(text), random)
        request = in_our_notation(text)
        good = self.improved(request, random)
        whole = form.format(good.get("prompt", START))
        if random.random() >= self.sabotage:
            return whole
        harm = form.format(self.harmful(request, good, random).get("prompt", START))
        return random.choice(
            [
                whole[: len(whole) * 2 // 3],
                "I am sorry, I cannot see what to change here.",
                "",
                whole.replace("<", "[").replace("```", "'''"),
                harm,
                harm,
            ]
        )

    def criticism(self, request: str) -> str:
        """What is wrong, with the text where the request shows it, else the answer alone."""
        found = super().criticism(request)
        answer = re.search(r'answer is "([a-z]+)"', request)
        if "the answer is" in found or answer is None:
            return found
        return f'The answer is "{answer[1]}".'


def in_our_notation(text: str) -> str:
    """A peer's request, with its values, names and blocks written as the reader knows them."""
    text = text.replace('\\"', '"').replace("\\n", "\n")
    text = re.sub(r"^\(str\) (prompt\w*)=", r"(text) \1 = ", text, flags=re.M)
    text = re.sub(rf"^\(str\) (\w+)=({_WORDS})$", r"\1 = '\2'", text, flags=re.M)
    joined = re.search(r"^\w+ = join\((.*)\)$", text, re.M)
    if joined:
        names = re.findall(r"=(\w+)", joined[1])
        before, mark, now = text.partition("#Feedback\n")
        now, memory, past = now.partition("Below are some variables and their feedbacks")
        now = re.sub(r"^ID \[(\d+)\]: ", lambda m: f"{names[int(m[1])]}: ", now, flags=re.M)
        text = before + mark + now + memory + past
    text = re.sub(rf"<LM_INPUT>\s*{TASK}({_WORDS})\s*</LM_INPUT>\s*", r"text '\1' ", text)
    text = re.sub(r"<LM_OUTPUT> .*? </LM_OUTPUT>\s*", "", text, flags=re.S)
    text = re.sub(
        rf"## Inputs\n({_WORDS})\s+## Generated Outputs\n.*?\n\s*## Feedback\n", r"'\1' ", text,
        flags=re.S,
    )  # fmt: skip
    present = re.search(r"<LM_SYSTEM_PROMPT> (.*?) </LM_SYSTEM_PROMPT>", text, re.S)
    present = present or re.search(
        r"following instructions to perform.*?```\n(.*?)\n```", text, re.S
    )
    present = present or re.search(r"<VARIABLE> (.*?) </VARIABLE>", text, re.S)
    if present and not variables_in(text):
        text += f"\n\n(text) prompt = {present[1]}\n"
    return re.sub(
        rf"(text '{_WORDS}' )\n*This conversation is part of a larger system\.[^\n]*\n+",
        r"\1",
        text,
    )


class _Peer(Optimizer):
    """An optimizer of another project, as one of ours: it proposes by the feedback that has arrived."""

    def __init__(self, parameters: Any, *, llm: Any, **options: Any) -> None:
        super().__init__(parameters)
        self.llm, self.options = llm, options
        (self.prompt,) = self.parameters
        self.calls = 0

    def asked(self, messages: list[dict[str, str]]) -> str:
        self.calls += 1
        return str(self.llm(messages=messages))

    def wrong(self) -> Iterator[tuple[str, str, str]]:
        """Text, answer and remark of each example that is not right."""
        for record in records_of(self.prompt):
            text = dict(record.inputs).get("text", "")
            if record.remarks:
                yield text.strip("'"), record.output.strip("'"), "\n".join(record.remarks)

    def propose(self, **options: Any) -> Proposal:
        """What the peer suggests; where it raises, why there is nothing."""
        before = self.calls
        try:
            value = self.suggested(list(self.wrong()))
        except Exception as error:  # whatever another project raises on a reply it cannot read
            rejection = Rejection("prompt", None, f"{type(error).__name__}: {error}")
            return Proposal({}, rejections=(rejection,), usage=Usage(self.calls - before))
        values = {} if value is None else {self.prompt: value}
        return Proposal(values, usage=Usage(self.calls - before))

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """The peers are not told what was refused: their loops have no place for it."""

    def suggested(self, wrong: list[tuple[str, str, str]]) -> str | None:
        """The new prompt, by the examples that are wrong; ``None`` for no change."""
        raise NotImplementedError


class TraceOptoPrime(_Peer):
    """OptoPrime of trace-opt (Microsoft Trace) over a batch, joined as its own examples do it."""

    def __init__(self, parameters: Any, *, llm: Any, memory_size: int = 0) -> None:
        super().__init__(parameters, llm=llm)
        opto = import_module("opto.trace")
        self._graph = import_module("opto.trace.nodes").GRAPH
        self._prompt = opto.node(self.prompt.data, name="prompt", trainable=True)
        optimizer = import_module("opto.optimizers.optoprime").OptoPrime
        self._optimizer = optimizer(
            [self._prompt], llm=self._reply, memory_size=memory_size, log=False
        )
        self._recorded: dict[str, str] = {}

        def respond(prompt: Any, text: Any) -> Any:
            return self._recorded[text]

        def join(*answers: Any) -> Any:
            return "\n".join(f"ID [{i}]: {answer}" for i, answer in enumerate(answers))

        respond.__qualname__, join.__qualname__ = "respond", "join"  # as at the top of a module
        self._respond = opto.bundle("[respond] Ask a model for the answer to a text.")(respond)
        self._join = opto.bundle("[join] The answers one below the other.")(join)

    def _reply(self, messages: Any, **options: Any) -> Any:
        message = SimpleNamespace(content=self.asked(messages))
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    def suggested(self, wrong: list[tuple[str, str, str]]) -> str | None:
        """One step of its optimizer over the batch."""
        self._prompt._data = self.prompt.data
        self._recorded = {text: answer for text, answer, _ in wrong}
        answers = [self._respond(self._prompt, text) for text, _, _ in wrong]
        remarks = "\n".join(f"ID [{i}]: {remark}" for i, (_, _, remark) in enumerate(wrong))
        self._optimizer.zero_feedback()
        self._optimizer.backward(self._join(*answers), remarks)
        update = self._optimizer.propose()
        found = update.get(self._prompt)
        self._optimizer.zero_feedback()
        return None if found is None else str(found)


class TextGradPeer(_Peer):
    """TextGrad 0.1: a critique of each wrong answer, one of the prompt, then one step."""

    def suggested(self, wrong: list[tuple[str, str, str]]) -> str | None:
        """Backward through each example, then one step of textual gradient descent."""
        os.environ.setdefault("TEXTGRAD_LOG_DIR", tempfile.mkdtemp())  # else it writes to ./logs
        textgrad = import_module("textgrad")
        engine_base = import_module("textgrad.engine").EngineLM
        string_function = import_module("textgrad.autograd").StringBasedFunction
        peer = self

        class Engine(engine_base):  # type: ignore[misc, valid-type]
            model_string = "world"

            def generate(
                self, prompt: str, system_prompt: str | None = None, **options: Any
            ) -> str:
                turns = (("system", system_prompt or ""), ("user", prompt))
                return peer.asked([{"role": role, "content": words} for role, words in turns])

            __call__ = generate

        recorded = {text: answer for text, answer, _ in wrong}

        class Recorded(Engine):
            def generate(
                self, prompt: str, system_prompt: str | None = None, **options: Any
            ) -> str:
                return recorded[prompt.removeprefix(TASK)]

            __call__ = generate

        engine = Engine()
        prompt = textgrad.Variable(
            self.prompt.data, requires_grad=True, role_description="the prompt of the model"
        )
        model = textgrad.BlackboxLLM(Recorded(), prompt)
        optimizer = textgrad.TextualGradientDescent([prompt], engine=engine)
        for text, _, remark in wrong:
            question = textgrad.Variable(
                TASK + text, requires_grad=False, role_description="the question"
            )
            judge = string_function(
                lambda prediction, said=remark: said, "says whether it is right"
            )
            judge(inputs={"prediction": model(question)}).backward(engine)
        optimizer.step()
        return str(prompt.value)


class Gepa(_Peer):
    """GEPA's reflective mutation in our loop: its request and its reading of the reply."""

    def suggested(self, wrong: list[tuple[str, str, str]]) -> str | None:
        """One reflection on the wrong examples."""
        signature = import_module(
            "gepa.strategies.instruction_proposal"
        ).InstructionProposalSignature
        shown = [
            {"Inputs": text, "Generated Outputs": answer, "Feedback": remark}
            for text, answer, remark in wrong
        ]
        request = signature.prompt_renderer(
            {"current_instruction_doc": self.prompt.data, "dataset_with_feedback": shown}
        )
        reply = self.asked([{"role": "user", "content": request}])
        return str(signature.output_extractor(reply)["new_instruction"])


def gepa_alone(world: HiddenRules, *, runs: int, batch_size: int, seed: int) -> str:
    """The prompt that GEPA finds with its own loop: Pareto selection, strict acceptance."""
    gepa = import_module("gepa")
    batch_type = import_module("gepa.core.adapter").EvaluationBatch

    class Adapter:
        propose_new_texts = None

        def evaluate(self, batch: Any, candidate: Any, capture_traces: bool = False) -> Any:
            outputs = [followed(candidate["prompt"], case.text) for case in batch]
            world.calls["task"] += len(outputs)
            said = [world.guide(case, out) for case, out in zip(batch, outputs, strict=True)]
            traces = [
                {"Inputs": case.text, "Generated Outputs": out, "Feedback": words or "Correct."}
                for case, out, (_, words) in zip(batch, outputs, said, strict=True)
            ]
            return batch_type(outputs, [score for score, _ in said], traces)

        def make_reflective_dataset(self, candidate: Any, done: Any, components: Any) -> Any:
            return {"prompt": [t for t in done.trajectories if t["Feedback"] != "Correct."]}

    def reflect(prompt: Any) -> str:
        return world.ask([{"role": "user", "content": str(prompt)}])

    class Silent:
        def log(self, message: str) -> None:
            pass

    result = gepa.optimize(
        {"prompt": START}, world.train, world.validation, adapter=Adapter(), reflection_lm=reflect,
        max_metric_calls=runs, reflection_minibatch_size=batch_size, seed=seed, logger=Silent(),
        raise_on_exception=True,
    )  # fmt: skip
    return str(result.best_candidate["prompt"])
