"""DSPy modules as traced workflows, with the real package and a model that reads its prompt."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, OptoPrime, fit
from optimizers.records import records_of
from tracegraph.adapters import from_dspy
from tracegraph.errors import MissingExtra, ParameterError
from tracegraph.llm import Scripted

dspy = pytest.importorskip("dspy", reason="the package dspy is optional: tracegraph[dspy]")
lm15 = dspy.lm15


class Reader:
    """A model that does what its prompt says: each mark in its instructions is put behind the text."""

    def complete(self, request: Any) -> Any:
        text = re.findall(r"\[\[ ## text ## \]\]\n(.*?)\n", request.messages[-1].text, re.DOTALL)[
            -1
        ]
        if "boom" in text:
            raise ConnectionError("the model is down")
        said = [text, *re.findall(r"#\w+", request.system.split("objective is:")[-1])]
        if any("as shown" in message.text for message in request.messages[:-1]):
            said.append("as shown")
        content = f"[[ ## reply ## ]]\n{' '.join(said)}\n\n[[ ## completed ## ]]"
        return lm15.Response(
            id=None, model="reader", message=lm15.Message.assistant([lm15.TextPart(content)]),
            finish_reason="stop", usage=lm15.Usage(input_tokens=0, output_tokens=0, total_tokens=0),
        )  # fmt: skip


class AsyncReader:
    async def complete(self, request: Any) -> Any:
        await asyncio.sleep(0)
        return Reader().complete(request)


class Letter(dspy.Module):  # type: ignore[misc]
    """Draft a letter and polish it."""

    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("text -> reply")
        self.polish = dspy.Predict("text -> reply")

    def forward(self, text: str) -> Any:
        return self.polish(text=self.draft(text=text).reply)

    async def aforward(self, text: str) -> Any:
        return await self.polish.acall(text=(await self.draft.acall(text=text)).reply)


@pytest.fixture
def model() -> Iterator[None]:
    model = dspy.LM("test/reader", engine=Reader(), async_engine=AsyncReader(), cache=False)
    with dspy.context(lm=model, adapter=dspy.ChatAdapter(), disable_history=True):
        yield


def ops(output: Any) -> list[str]:
    return [n.op for n in tg.Graph.of(output).nodes if n.op not in (None, "getitem")]


def changed(letter: Any, **marks: str) -> Any:
    return tg.Overlay({getattr(letter, f"{k}.instructions"): mark for k, mark in marks.items()})


def test_a_call_is_recorded_with_one_node_for_each_predictor(model: None) -> None:
    letter = from_dspy(Letter())
    output = letter(text="cats")
    assert output.data.reply == "cats"
    assert ops(output) == ["draft", "polish", "Letter"]
    assert list(letter.named_parameters()) == ["draft.instructions", "polish.instructions"]
    polish = output.inputs["polish"]
    assert (
        polish.inputs["text"].inputs["x"] is output.inputs["draft"]
    )  # the value went on as it was
    assert output.inputs["draft"].inputs["text"] is output.inputs["text"]


def test_awaiting_records_the_same(model: None) -> None:
    letter = from_dspy(Letter())
    plain = letter(text="cats")
    awaited = asyncio.run(letter.acall(text="cats"))
    assert ops(awaited) == ops(plain)
    assert awaited.data.reply == plain.data.reply
    assert awaited.inputs["polish"].inputs["text"].inputs["x"] is awaited.inputs["draft"]


def test_instructions_reach_the_model_and_the_given_module_stays(model: None) -> None:
    given = Letter()
    before = given.draft.signature.instructions
    letter = from_dspy(given)
    with changed(letter, draft="Draft. #plain", polish="Polish. #short"):
        assert letter(text="cats").data.reply == "cats #plain #short"
    assert letter(text="cats").data.reply == "cats"
    letter.load_state_dict({"draft.instructions": "Draft. #plain", "polish.instructions": "P."})
    assert letter.to_dspy()(text="cats").reply == "cats #plain"
    assert given(text="cats").reply == "cats"
    assert given.draft.signature.instructions == before


def test_a_predictor_keeps_its_own_language_model() -> None:
    given = Letter()
    given.set_lm(dspy.LM("test/reader", engine=Reader(), cache=False))
    letter = from_dspy(given)
    assert letter(text="cats").data.reply == "cats"
    assert letter.to_dspy().draft.lm is given.draft.lm
    assert letter._twin.draft.lm is given.draft.lm  # a copy would keep a history and a cache apart


def test_two_predictors_of_one_signature_never_share_credit(model: None) -> None:
    letter = from_dspy(Letter())
    with changed(letter, draft="Write. #one", polish="Write. #two"):
        output = letter(text="cats")
        output.backward("too long")
        draft, polish = letter.parameters()
        (first,), (second,) = records_of(draft), records_of(polish)
    assert (first.operation, first.inputs) == ("draft", (("text", "'cats'"),))
    assert (second.operation, second.inputs) == ("polish", (("text", "'cats #one'"),))
    assert first.node is output.inputs["draft"]
    assert second.node is output.inputs["polish"]


def test_an_optimizer_improves_a_module(model: None) -> None:
    letter = from_dspy(Letter())
    reply = '{"suggestion": {"polish.instructions": "Polish. #short"}}'

    def guide(text: str, prediction: Any) -> tuple[float, str]:
        return float("#short" in prediction.reply), "must be #short"

    result = fit(
        lambda text: letter(text=text), ["cats", "dogs"], guide,
        optimizer=OptoPrime(letter.parameters(), llm=Scripted([reply])),
        budget=Budget(steps=1), workers=2,
    )  # fmt: skip
    assert (result.baseline, result.score) == (0.0, 1.0)
    assert letter.to_dspy().polish.signature.instructions == "Polish. #short"


def test_demos_are_a_parameter_if_wanted(model: None) -> None:
    given = Letter()
    given.draft.demos = [dspy.Example(text="birds", reply="never seen")]
    letter = from_dspy(given, demos=True, name="letter")
    assert list(letter.named_parameters())[:2] == [
        "letter.draft.instructions",
        "letter.draft.demos",
    ]
    demos = letter.named_parameters()["letter.draft.demos"]
    assert demos.data == [{"text": "birds", "reply": "never seen"}]
    assert letter(text="cats").data.reply == "cats"
    demos.assign([{"text": "birds", "reply": "as shown"}])
    assert letter(text="cats").data.reply == "cats as shown"
    assert letter.to_dspy()(text="cats").reply == "cats as shown"
    assert dict(given.draft.demos[0])["reply"] == "never seen"


def test_demos_that_json_cannot_hold_are_refused() -> None:
    given = Letter()
    given.draft.demos = [dspy.Example(text=object(), reply="x")]
    with pytest.raises(ParameterError, match=r"draft\.demos hold what JSON cannot.*demos=False"):
        from_dspy(given, demos=True)


def test_copies_that_dspy_makes_as_it_runs_keep_the_parameters(model: None) -> None:
    best = dspy.BestOfN(
        module=Letter(), N=2, reward_fn=lambda args, made: float("#b" in made.reply), threshold=1.0
    )
    letter = from_dspy(best)
    named = letter.named_parameters()
    assert list(named) == ["module.draft.instructions", "module.polish.instructions"]
    with tg.Overlay({named["module.polish.instructions"]: "Polish. #b"}):
        output = letter(text="cats")
        assert output.data.reply == "cats #b"
        output.backward("good")
        assert all(parameter.feedback for parameter in named.values())


def test_threads_that_dspy_starts_see_the_candidate_and_are_recorded(model: None) -> None:
    class Both(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("text -> reply")

        def forward(self, text: str) -> Any:
            runs = dspy.Parallel(num_threads=2, disable_progress_bar=True)
            pairs = [(self.ask, dspy.Example(text=t).with_inputs("text")) for t in text.split()]
            return dspy.Prediction(reply=" + ".join(made.reply for made in runs(pairs)))

    both = from_dspy(Both())
    with tg.Overlay({both.parameters()[0]: "Ask. #x"}):
        output = both(text="cats dogs")
        assert output.data.reply == "cats #x + dogs #x"
        assert ops(output) == ["ask", "ask", "Both"]
        output.backward("good")
        assert len(records_of(both.parameters()[0])) == 2


def test_operations_have_names_that_can_stand_in_a_program(model: None) -> None:
    class Steps(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps = [dspy.Predict("text -> reply"), dspy.Predict("text -> reply")]

        def forward(self, text: str) -> Any:
            return self.steps[1](text=self.steps[0](text=text).reply)

    assert ops(from_dspy(Steps())(text="cats")) == ["steps_0", "steps_1", "Steps"]


class Rewriting(dspy.Module):  # type: ignore[misc]
    """Predictors whose outputs the module puts into texts and lists of its own."""

    def __init__(self, join: Any) -> None:
        super().__init__()
        self.first = dspy.Predict("text -> reply")
        self.second = dspy.Predict("text -> reply")
        self.last = dspy.Predict("text -> reply")
        self.join = join

    def forward(self, text: str) -> Any:
        one, two = self.first(text=text).reply, self.second(text=text + " again").reply
        return self.last(text=self.join(one, two))


def behind(node: Any) -> set[str]:
    """The predictors behind the text that the last one was given."""
    return {n.op for n in tg.Graph.of(node.inputs["last"].inputs["text"]).nodes} & {
        "first", "second"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("join", "wanted"),
    [
        (lambda one, two: f"Compare:\n{one}\nand {two}", {"first", "second"}),
        (lambda one, two: "Look at this: " + two.strip() + "!", {"second"}),
        (lambda one, two: (one + "!")[:-1], {"first"}),
        (lambda one, two: "Nothing of what was said.", set()),
        (lambda one, two: one.upper(), set()),
    ],
    ids=["f-string", "one of two", "an equal copy", "none", "changed"],
)
def test_a_text_that_the_module_makes_is_linked_to_what_stands_in_it(
    model: None, join: Any, wanted: set[str]
) -> None:
    module = from_dspy(Rewriting(join))
    marks = {"first": "Ask. #one", "second": "Ask. #two"}
    with changed(module, **marks):
        output = module(text="The cats sleep.")
    assert behind(output) == wanted
    made = output.inputs["last"].inputs["text"]
    assert made.data == join("The cats sleep. #one", "The cats sleep. again #two")
    assert (made.op == "composed") == bool(wanted)
    if wanted:
        assert "word for word" in made.info["inferred"]


def test_what_stands_in_a_longer_value_only_is_no_part_and_short_values_are_none(
    model: None,
) -> None:
    module = from_dspy(Rewriting(lambda one, two: f"See: {two}"))
    with changed(module, second="Ask. #two"):
        made = module(text="The cats sleep.").inputs["last"].inputs["text"]
    assert made.data == "See: The cats sleep. again #two"
    (part,) = (n for name, n in made.inputs.items() if name != "text")
    assert part.data == "The cats sleep. again #two"
    output = from_dspy(Rewriting(lambda one, two: f"See: {one}, {two}"))(text="no")
    assert behind(output) == {
        "second"
    }  # "no again" is long enough to be told from chance, "no" is not


def test_values_in_a_list_are_linked_exactly(model: None) -> None:
    class Several(Rewriting):
        def forward(self, text: str) -> Any:
            found = [self.first(text=text).reply, self.second(text=text).reply]
            return self.last(text="both", notes=found)

    several = Several(None)
    several.last = dspy.Predict("text, notes: list[str] -> reply")
    output = from_dspy(several)(text="cats")
    last = output.inputs["last"]
    ops_behind = {n.op for n in tg.Graph.of(last).nodes}
    assert {"first", "second"} <= ops_behind
    assert "composed" not in ops_behind


def test_dropping_the_output_frees_the_graph(model: None) -> None:
    letter = from_dspy(Letter())
    output = letter(text="cats")
    nodes = [weakref.ref(n) for n in tg.Graph.of(output).nodes]
    del output
    gc.collect()
    assert [n() for n in nodes] == [None] * len(nodes)


def test_candidates_run_side_by_side_without_seeing_each_other(model: None) -> None:
    letter = from_dspy(Letter())
    found: dict[str, str] = {}

    def run(mark: str) -> None:
        with changed(letter, draft=f"Draft. #{mark}"):
            found[mark] = letter(text="cats").data.reply

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, f"m{n}"))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"m{n}": f"cats #m{n}" for n in range(4)}


def test_a_failure_is_an_instance_of_its_type_and_leads_to_the_predictor(model: None) -> None:
    letter = from_dspy(Letter())
    with pytest.raises(Exception, match="the model is down") as caught:
        letter(text="boom")
    failed = tg.failed_node(caught.value)
    assert failed is not None
    failed.backward("the model is down")
    draft, polish = letter.parameters()
    assert draft.feedback
    assert not polish.feedback  # it was never asked


def test_inside_a_call_that_records_nothing_the_parameters_are_read_by_that_call(
    model: None,
) -> None:
    letter = from_dspy(Letter())

    @tg.bundle
    def shout(text: str) -> str:
        return str(letter(text=text).reply.upper())

    output = shout("cats")
    assert output.data == "CATS"
    output.backward("quieter")
    assert all(parameter.feedback for parameter in letter.parameters())


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a dspy\.Module, got 'question -> answer'"):
        from_dspy("question -> answer")


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dspy", None)
    with pytest.raises(MissingExtra, match=r"tracegraph\[dspy\]"):
        from_dspy(None)
