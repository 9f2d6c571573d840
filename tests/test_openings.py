"""One test per behaviour that the reference system gets wrong, named after it.

A: wrong or lost results. B: crashes. C: cost and scale. D: safety, concurrency, operations.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import itertools
import json
import pickle
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

import tracegraph as tg
from optimizers import Evolve, Optimizer, OptoPrime, Partition, Proposal, fit
from optimizers.llm.reply import read_reply
from tracegraph import Graph, Node, Score, bundle, model, node, stop_tracing
from tracegraph.llm import Budgeted, Cached, LiteLLM, Retrying, Scripted
from tracegraph.llm.tokens import count_tokens
from tracegraph.problem import Problem

ROOT = Path(__file__).resolve().parents[1]


def suggesting(**values: Any) -> str:
    """A reply of a model that suggests `values`."""
    return json.dumps({"reasoning": "because", "suggestion": values})


def stepped(parameters: Any, reply: str, **options: Any) -> tuple[OptoPrime, Any]:
    """Feedback at every parameter, and one step with a scripted reply."""
    optimizer = OptoPrime(parameters, llm=Scripted([reply]), **options)
    for parameter in optimizer.parameters:
        parameter.backward("improve")
    return optimizer, optimizer.step()


class Still(Optimizer):
    """An optimizer that suggests what it was given."""

    def __init__(self, parameters: Any, values: dict[str, Any]) -> None:
        super().__init__(parameters)
        self.values = values
        self.asked = 0

    def propose(self, **options: Any) -> Proposal:
        self.asked += 1
        return Proposal({self.named_parameters[n]: v for n, v in self.values.items()})


# A. Wrong or lost results, silently


def test_opening_01_nodes_inside_containers_are_inputs() -> None:
    n1, n2, n3 = (node(f"t{i}", trainable=True, name=f"n{i}") for i in range(3))

    @bundle
    def agent(messages: list[Any], tools: dict[str, Any]) -> str:
        assert all(type(m["content"]) is str for m in messages)
        return " ".join(m["content"] for m in messages) + tools["search"]

    out = agent(
        [{"role": "user", "content": n1}, {"role": "system", "content": n2}], {"search": n3}
    )
    assert out.data == "t0 t1t2"
    assert set(Graph.of(out).parameters) == {n1, n2, n3}
    assert set(out.backward("bad")) == {n1, n2, n3}


def test_opening_02_a_second_loss_through_a_shared_node_arrives() -> None:
    a = node(1, trainable=True, name="a")
    shared = a + 1
    b, c = shared * 2, shared * 3
    assert b.backward("on b")[a]
    assert c.backward("on c")[a]
    assert b.backward("on b again")[a]
    assert set(str(a.feedback[tg.Remark]).splitlines()) == {"on b", "on c", "on b again"}


@pytest.mark.parametrize("value", [2, np.zeros(3), torch.zeros(3)], ids=["int", "array", "tensor"])
def test_opening_03_equal_outputs_are_told_apart_by_identity(value: Any) -> None:
    a = node(value, trainable=True, name="a")
    first, second = a * 1, a * 1
    second.backward("on second")
    first.backward("on first")
    said = a.feedback[tg.Remark].outputs
    assert said == {first.id: [(1.0, "on first")], second.id: [(1.0, "on second")]}


def test_opening_04_methods_of_one_operation_name_do_not_mix() -> None:
    class Tools:
        @bundle(description="[work] one", trainable=True)
        def f(self) -> str:
            return "f"

        @bundle(description="[work] two", trainable=True)
        def g(self) -> str:
            return "g"

    tools = Tools()
    assert (tools.f().data, tools.g().data) == ("f", "g")
    assert tools.f.parameter is not tools.g.parameter


def test_opening_05_names_never_collide() -> None:
    x1 = [node(i, trainable=True, name="x1") for i in range(11)]
    x = [node(i, trainable=True, name="x") for i in range(111)]
    assert len({p.py_name for p in [*x1, *x]}) == 122
    one, ten = node(0, trainable=True, name="x1"), node(0, trainable=True, name="x10")
    other = node(0, trainable=True, name="x")
    _, update = stepped([one, ten, other], suggesting(x10=5))
    assert (one.data, ten.data, other.data) == (0, 5, 0)
    assert [c.parameter for c in update.changes] == [ten]
    with pytest.raises(tg.DuplicateName):
        OptoPrime(
            [node(1, trainable=True, name="x"), node(2, trainable=True, name="x")], Scripted([])
        )


def test_opening_06_an_earlier_call_keeps_its_inputs() -> None:
    @bundle(traceable=True)
    def f(x: Any) -> Any:
        return x + 1

    first = f(node(1))
    inputs, info, inner = first.inputs, first.info, first.inner
    f(node(2))
    assert first.inputs == inputs
    assert first.inputs["x"].data == 1
    assert first.info == info
    assert inner is not None
    assert Graph.of(inner).nodes[-1].data == 2


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        ([1, 2], "one, two"), (True, "no"), (1, 2.9), ({"a": 1}, "text"), (0.5, "fast"),
        (np.zeros(2), [1, 2]), ((1, 2), "12"), (1, True), ("text", 5),
    ],
)  # fmt: skip
def test_opening_07_a_suggestion_is_never_converted_into_something_else(
    value: Any, reply: Any
) -> None:
    parameter = node(value, trainable=True, name="p")
    _, update = stepped([parameter], suggesting(p=reply))
    assert parameter.data is value
    assert not update.changes
    assert update.rejections[0].name == "p"
    assert update.rejections[0].reason


@pytest.mark.parametrize(
    "text", ["default", "a def is 'here'", "def f(x):\n  return  'x'", " def "]
)
def test_opening_08_a_text_is_taken_letter_by_letter(text: str) -> None:
    prompt = node("a", trainable=True, name="prompt")
    stepped([prompt], suggesting(prompt=text))
    assert prompt.data == text


def test_opening_09_terminate_inside_a_value_is_only_a_word() -> None:
    prompt = node("a", trainable=True, name="prompt")
    stepped([prompt], suggesting(prompt="Say TERMINATE when done."))
    assert prompt.data == "Say TERMINATE when done."


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (suggesting(p="use ```python\nx\n``` fences"), "use ```python\nx\n``` fences"),
        ("```json\n" + suggesting(p="a ``` b") + "\n```", "a ``` b"),
        (suggesting(p="</value> stays"), "</value> stays"),
        (suggesting(p="  spaces stay  \n"), "  spaces stay  \n"),
        ('<reasoning>never closed\n<variable><name>p</name><value>got</value></variable>', "got"),
        (suggesting(p="def f():\n    if x:\n        return 1\n"), "def f():\n    if x:\n        return 1\n"),
    ],
)  # fmt: skip
def test_opening_10_values_survive_fences_tags_and_indentation(reply: str, value: str) -> None:
    assert read_reply(reply, {"p": "text"}).suggestions == {"p": value}


def test_opening_10_the_memory_keeps_indentation_and_a_mask_hides_one_section() -> None:
    code = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    prompt = node(code, trainable=True, name="prompt")
    llm = Scripted([suggesting(prompt="new"), suggesting(prompt="newer")])
    optimizer = OptoPrime([prompt], llm=llm)
    for said in (f"write it like this:\n{code}", "bad"):
        optimizer.backward(prompt + "!", said)
        optimizer.step()
    assert "\n        return 1\n" in llm.requests[1].messages[-1].text
    long = node("y" * 100, name="long")
    optimizer.backward(prompt + long, "bad")
    text = optimizer.problem().text(mask=["#Inputs"])
    assert "#Code" in text
    assert "#Inputs" not in text
    assert "#Inputs" in optimizer.problem().text()


def test_opening_11_recorded_history_does_not_change_with_its_values() -> None:
    given = [1]

    @bundle
    def push(items: list[int]) -> int:
        items.append(2)
        return len(items)

    x = node(given, name="items")
    out = push(x)
    given.append(3)
    assert x.preview == "[1]"
    assert out.inputs["items"].preview == "[1]"
    assert x.append(9).data[-1] == 9
    assert given == [1, 2, 3]


def test_opening_12_a_saved_text_is_never_code(tmp_path: Path) -> None:
    @model
    class Agent:
        def __init__(self) -> None:
            self.prompt = node("a", trainable=True, name="prompt")

    one: Any = Agent()
    one.prompt.assign('__import__("os").system("echo no")', origin="optimizer")
    one.save(tmp_path / "agent.json")
    stored = json.loads((tmp_path / "agent.json").read_text())
    assert stored["prompt"]["value"] == '__import__("os").system("echo no")'
    two: Any = Agent()
    two.load(tmp_path / "agent.json")
    assert two.prompt.data == one.prompt.data
    assert type(two.prompt.data) is str


def test_opening_13_code_stands_in_the_order_in_which_it_ran() -> None:
    x = node(0, trainable=True, name="x")
    total = x
    for _ in range(12):
        total = total + 1
    total.backward("bad")
    lines = [step.line for step in Problem.of({"x": x}).steps]
    numbers = [int(re.match(r"add(\d+) = ", line)[1]) for line in lines]  # type: ignore[index]
    assert numbers == list(range(12))


# B. Crashes


def test_opening_14_abs_and_round() -> None:
    assert abs(node(-3)).data == 3
    assert round(node(2.567), 1).data == 2.6
    assert round(node(2.5)).data == 2


def test_opening_15_different_feedback_accumulates_with_weights() -> None:
    prompt = node("a", trainable=True, name="prompt")
    outputs = [prompt + str(i) for i in range(3)]
    for i, output in enumerate(outputs):
        output.backward(f"said {i}", weight=float(i + 1))
    tg.backward([(o, Score(i)) for i, o in enumerate(outputs)])
    text = Problem.of({"prompt": prompt}).text()
    assert "add0: said 0" in text
    assert "add1 (weight 2): said 1" in text
    assert "add2 (weight 3): said 2" in text
    assert prompt.feedback[Score].mean == 1.0


def test_opening_16_functions_of_every_kind_can_be_bundled() -> None:
    @bundle(description="an unbalanced ( bracket", trainable=True)
    def odd(x: int, /, y: int = 2) -> int:
        """Unbalanced ) too."""
        return x + y

    class Slots:
        __slots__ = ("x",)

        @bundle
        def get(self) -> int:
            return 5

        @bundle
        @staticmethod
        def fixed(x: int) -> int:
            return x

    namespace: dict[str, Any] = {"bundle": bundle}
    exec("@bundle\ndef typed(x):\n    return x", namespace)
    assert odd(node(1)).data == 3
    assert odd.parameter.data.startswith("def odd(x: int, /, y: int = 2)")
    assert (odd.__name__, list(inspect.signature(odd).parameters)) == ("odd", ["x", "y"])
    assert callable(odd.__wrapped__)
    assert Slots().get().data == 5
    assert Slots.fixed(4).data == 4
    assert namespace["typed"](3).data == 3
    assert bundle(lambda x: -x)(1).data == -1
    assert bundle(len)(node("abc")).data == 3
    assert bundle(functools.partial(max, 5))(node(7)).data == 7


def test_opening_17_an_exception_stays_what_it_is() -> None:
    class Empty(Exception):
        pass

    @bundle
    def f(x: Any) -> Any:
        if x == 1:
            raise Empty
        return {}["missing"]

    with pytest.raises(Empty) as caught:
        f(node(1))
    assert caught.value.args == ()
    with pytest.raises(KeyError) as missing:
        f(node(2))
    assert isinstance(missing.value, tg.ExecutionError)
    assert type(missing.value.__cause__) is KeyError
    failed = tg.failed_node(missing.value)
    assert failed is not None
    assert failed.data == "(KeyError) 'missing'"


@pytest.mark.parametrize("kind", [IndexError, StopIteration, AttributeError])
def test_opening_18_an_error_in_a_rule_is_raised(kind: type[Exception]) -> None:
    def rule(made: Node[Any], said: Any) -> Any:
        raise kind("mine")

    @bundle(rules={tg.Remark: rule})
    def f(x: Any) -> Any:
        return x

    with pytest.raises(kind, match="mine"):
        f(node(1, trainable=True)).backward("x")


def test_opening_19_null_answers_odd_values_and_other_signatures_end_well() -> None:
    @bundle(trainable=True)
    def f(x: int) -> int:
        return x

    before = f.parameter.data
    _, update = stepped(f.parameters(), suggesting(f=None))
    assert not update.changes
    odd = node({1, 2}, trainable=True, name="odd")
    optimizer = OptoPrime([odd, node(np.zeros(2), trainable=True, name="array")],
                          llm=Scripted(["no answer at all", suggesting()]), memory_size=3)  # fmt: skip
    for _ in range(2):
        optimizer.backward(odd.union({3}), "bad")
        assert not optimizer.step().changes
    _, update = stepped(f.parameters(), suggesting(f="def f(x, y):\n    return x"))
    assert "signature" in update.rejections[0].reason
    assert f.parameter.data == before
    with pytest.raises(TypeError) as caught:
        f()
    assert isinstance(caught.value, tg.ExecutionError)


def test_opening_20_one_step_updates_several_functions_with_any_backend() -> None:
    @bundle(trainable=True, trust=True)
    def first(x: int) -> int:
        return x

    @bundle(trainable=True, trust=True)
    def second(x: int) -> int:
        return x

    reply = suggesting(
        first="def first(x):\n    return x + 1", second="def second(x):\n    return 2 * x"
    )
    seen: list[Any] = []

    def backend(messages: Any, **options: Any) -> str:
        seen.append(messages)
        return reply

    optimizer = OptoPrime([first, second], llm=backend)
    optimizer.backward(second(first(3)), "larger")
    update = optimizer.step()
    assert [c.name for c in update.changes] == ["first", "second"]
    assert second(first(3)).data == 8
    assert "object at 0x" not in str(seen)


def test_opening_21_optimizers_share_nothing_and_their_words_are_whole() -> None:
    a, b = node("a", trainable=True, name="a"), node("b", trainable=True, name="b")
    one = OptoPrime([a], llm=Scripted([suggesting(a="x")]), objective="only mine", memory_size=2)
    two = OptoPrime([b], llm=Scripted([suggesting(b="y")]))
    for optimizer, parameter in ((one, a), (two, b)):
        optimizer.backward(parameter + "!", "bad")
        optimizer.step()
    said = two.llm.requests[0].messages  # type: ignore[attr-defined]
    assert "only mine" not in said[-1].text
    assert "only mine" in one.llm.requests[0].messages[-1].text  # type: ignore[attr-defined]
    for message in said:
        assert "{{" not in message.text
        assert not re.search(r"\{\w+\}", message.text), "a placeholder was left open"


def test_opening_22_wrong_options_are_named_and_a_bad_proposal_ends_nothing() -> None:
    prompt = node("a", trainable=True, name="prompt")
    with pytest.raises((TypeError, tg.OptimizerError)):
        Evolve([prompt], colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="rules"):
        OptoPrime([prompt], llm=Scripted([]), propagator=object())
    llm = Scripted([RuntimeError("the model is down"), "prose only", suggesting(prompt="good")])
    optimizer = OptoPrime([prompt], llm=llm)
    optimizer.backward(prompt + "!", "bad")
    with pytest.raises(RuntimeError, match="the model is down"):
        optimizer.step()
    assert prompt.feedback, "a failed call loses no feedback"
    assert optimizer.step().rejections
    if not prompt.feedback:
        optimizer.backward(prompt + "!", "bad")
    assert optimizer.step().changes


def test_opening_22_a_training_runs_by_default_and_an_error_in_the_workflow_ends_nothing() -> None:
    word = node("a", trainable=True, name="word", constraint=Literal["a", "b"])

    @bundle
    def workflow(x: int) -> str:
        if x == 2:
            raise RuntimeError("this example fails")
        return f"{word}{x}"

    def guide(x: int, out: Any) -> tuple[float, str]:
        good = str(out).startswith("b")
        return float(good), "good" if good else "start with b"

    optimizer = OptoPrime([word], llm=Scripted([suggesting(word="b")] * 50))
    fit(workflow, [1, 2, 3], guide, optimizer=optimizer, budget=60, progress=False)
    assert word.data == "b"
    with pytest.raises(TypeError):
        fit(workflow, [1], guide, epoch=3)  # type: ignore[call-arg]


# C. Cost and scale


def test_opening_23_backward_visits_every_edge_once() -> None:
    merges = itertools.count()

    class Counted(tg.Feedback):
        def merge(self, other: Any) -> Any:
            next(merges)
            return self

    a = node(0, trainable=True, name="a")
    x: Any = a
    for _ in range(2_000):
        x = x + (x * 1)
    assert x.backward(Counted())[a]
    assert next(merges) == 2_000
    deep: Any = a
    for _ in range(3_000):
        deep = deep + 1
    assert copy.deepcopy(deep).data == 3_000
    with pytest.raises(TypeError, match=r"node\.data"):
        pickle.dumps(deep)
    Graph.of(deep).between([a], [deep])


def test_opening_24_an_operation_costs_little_memory_and_no_inspection() -> None:
    calls = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    @bundle
    def f(x: Any) -> Any:
        return x

    x = node(1)
    f(x)
    sys.setprofile(profile)
    f(x)
    bundled = len(calls)
    x + 1
    sys.setprofile(None)
    assert not {"signature", "getfullargspec", "getsource"} & set(calls)
    assert bundled < 30
    assert len(calls) - bundled < 10


def test_opening_25_code_is_compiled_once_per_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    @bundle(trainable=True)
    def f(x: int) -> int:
        return x

    f.parameter.assign("def f(x):\n    return x + 1")
    f(1)
    compiled = []
    plain = builtins.compile
    monkeypatch.setattr(builtins, "compile", lambda *a, **k: compiled.append(a) or plain(*a, **k))
    assert [f(i).data for i in range(100)] == list(range(1, 101))
    assert not compiled
    f.parameter.assign("def f(x):\n    return x + 2")
    assert f(1).data == 3
    assert compiled


def test_opening_26_a_dropped_forward_is_freed_at_once() -> None:
    prompt = node("a", trainable=True, name="prompt")
    gc.collect()
    gc.disable()
    try:
        refs = [weakref.ref(prompt + str(i)) for i in range(1_000)]
        assert not any(r() for r in refs)
        out = prompt + "b"
        out.backward("bad")
        prompt.zero_feedback()
        ref = weakref.ref(out)
        del out
        assert ref() is None
    finally:
        gc.enable()


def test_opening_27_importing_is_light() -> None:
    program = "import tracegraph, optimizers, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    heavy = {"torch", "litellm", "networkx", "graphviz", "triton", "pytest", "black", "sklearn"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}


def test_opening_28_a_problem_stays_within_its_budget_and_says_what_it_left_out() -> None:
    prompt = node("Read this.", trainable=True, name="prompt")
    page = node("word " * 200_000, name="page")
    out: Any = prompt + page
    for _ in range(2_000):
        out = out[:].strip()
    out.backward("bad")
    problem = Problem.of({"prompt": prompt}, budget=1_000)
    assert count_tokens(problem.text()) < 2_000
    assert "left out" in problem.text()
    assert "Read this." in problem.text()
    assert "bad" in problem.text()


def test_opening_29_a_copy_of_an_agent_shares_what_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither recording nor training copies what it is given."""
    table = {i: i for i in range(1_000)}

    class Agent:
        def __init__(self) -> None:
            self.table = table
            self.prompt = node("a", trainable=True, name="prompt")

        @bundle
        def look(self, i: int, again: Any) -> int:
            assert again is table
            return int(self.table[i])

    copied = []
    plain = copy.deepcopy
    monkeypatch.setattr(copy, "deepcopy", lambda *a, **k: copied.append(a) or plain(*a, **k))
    agent = Agent()
    assert [agent.look(i, table).data for i in range(20)] == list(range(20))
    assert not copied
    fit(
        lambda i: agent.prompt + str(agent.look(i, table)), list(range(20)),
        lambda i, out: (float(out[0] == "b"), "start with b"), progress=False, budget=60,
        optimizer=OptoPrime([agent.prompt], llm=Scripted([suggesting(prompt="b")] * 50)),
    )  # fmt: skip
    assert not any(args[0] is agent or args[0] is table for args in copied)


# D. Safety, concurrency, operations


def test_opening_30_code_of_a_model_runs_in_the_sandbox(tmp_path: Path) -> None:
    @bundle(trainable=True)
    def f(x: int) -> int:
        return x

    marker = tmp_path / "written"
    text = f"def f(x):\n    open({str(marker)!r}, 'w').write('no')\n    return x"
    _, update = stepped(f.parameters(), suggesting(f=text))
    if update.changes:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the box says
            f(1)
        assert tg.failed_node(caught.value) is not None
    assert not marker.exists()
    f.parameter.assign("def f(x):\n    return x + 1", origin="optimizer")
    assert f(1).data == 2
    f.parameter.trust()
    assert f(1).data == 2


def test_opening_30_nothing_in_the_library_unpickles() -> None:
    for package in ("tracegraph", "optimizers"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\bimport (pickle|dill|cloudpickle|marshal|shelve)\b", text), path
            assert not re.search(r"torch\.load\(", text), path


def test_opening_31_tracing_and_names_are_safe_in_threads() -> None:
    barrier = threading.Barrier(16)
    made: list[list[Any]] = []

    def work(quiet: bool) -> None:
        barrier.wait(10)
        mine = []
        for _ in range(200):
            if quiet:
                with stop_tracing(), stop_tracing():
                    mine.append(node(1, name="x") + 1)
            else:
                mine.append(node(1, name="x") + 1)
        made.append(mine)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len([n for n in mine if n.op]) for mine in made) == [0] * 8 + [200] * 8
    assert len({n.name for mine in made for n in mine}) == 3_200


def test_opening_31_nothing_is_left_installed_after_an_exception() -> None:
    @bundle(trainable=True)
    def f(n: int) -> int:
        return f(n - 1) if n else 1 // n

    before = sys.gettrace(), sys.getprofile()
    with pytest.raises(ZeroDivisionError):
        f(3)
    assert (sys.gettrace(), sys.getprofile()) == before


def test_opening_32_retries_go_by_type_the_cache_caches_and_costs_are_known() -> None:
    flaky = Scripted([TimeoutError("slow"), "done"])
    assert Retrying(flaky, wait=0.0)("Go").text == "done"
    wrong = Scripted([ValueError("rate limit exceeded, retry, timeout 429"), "never"])
    with pytest.raises(ValueError, match="rate limit"):
        Retrying(wrong, wait=0.0)("Go")
    assert len(wrong.requests) == 1
    once = Scripted(["only once"])
    cached = Cached(once)
    assert [cached("same").text for _ in range(3)] == ["only once"] * 3
    prompt = node("a", trainable=True, name="prompt")
    optimizer = OptoPrime([prompt], llm=Budgeted(Scripted([suggesting(prompt="b")] * 2), calls=1))
    optimizer.backward(prompt + "!", "bad")
    assert optimizer.step().usage.calls == 1
    optimizer.backward(prompt + "!", "bad")
    with pytest.raises(tg.BudgetExceeded):
        optimizer.step()
    assert prompt.feedback


def test_opening_33_a_run_is_saved_as_json_with_its_seed() -> None:
    """A search keeps its state; for a training see tests/optimizers/training/test_loop.py."""
    x = node(4.0, trainable=True, name="x")
    one = Evolve([x], seed=1)
    for candidate in one.ask(4):
        one.tell(candidate, -abs(candidate.values["x"]))
    stored = json.loads(json.dumps(one.state_dict()))
    two = Evolve([x], seed=1)
    two.load_state_dict(stored)
    assert [c.values for c in two.ask(4)] == [c.values for c in one.ask(4)]


def test_opening_34_after_saving_and_loading_the_parameters_are_there(tmp_path: Path) -> None:
    @model
    class Agent:
        def __init__(self) -> None:
            self.prompt = node("a", trainable=True, name="prompt")

        @bundle(trainable=True)
        def act(self, x: str) -> str:
            return f"{self.prompt}{x}"

    one: Any = Agent()
    one.prompt.assign("saved")
    one.save(tmp_path / "agent.json")
    two: Any = Agent()
    optimizer = OptoPrime(two, llm=Scripted([suggesting(prompt="better")]))
    two.load(tmp_path / "agent.json")
    assert optimizer.parameters == two.parameters()
    assert two.prompt.data == "saved"
    optimizer.backward(two.act("x"), "bad")
    assert optimizer.step().changes
    assert two.prompt.data == "better"


def test_opening_35_constraints_are_typed_and_a_step_is_all_or_none() -> None:
    rate = node(0.5, trainable=True, name="rate", constraint=Annotated[float, Field(ge=0, le=1)])
    style = node("short", trainable=True, name="style", constraint=Literal["short", "long"])
    _, update = stepped([rate, style], suggesting(rate=7.0, style="long"))
    assert (rate.data, style.data) == (0.5, "short")
    assert [r.name for r in update.rejections] == ["rate"]
    assert "less than or equal to 1" in update.rejections[0].reason
    optimizer = Still([rate, style], {"rate": 0.7, "style": "medium"})
    rate.backward("x")
    assert not optimizer.step().changes
    assert (rate.version, style.version) == (0, 0)
    rate.backward("x")
    text = Problem.of({"rate": rate, "style": style}).text()
    assert "#Constraints" in text
    assert "'short', 'long'" in text


def test_opening_36_arrays_tensors_and_every_operator_are_recorded() -> None:
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    w = node(tensor, trainable=True, name="w")
    loss = (torch.ones(2) @ w).sin()
    loss.backward(1.0)
    plain = torch.tensor([1.0, 2.0], requires_grad=True)
    (torch.ones(2) @ plain).sin().backward()
    assert torch.equal(tensor.grad, plain.grad)  # type: ignore[arg-type]
    array = np.ones(3) + node(2.0)
    assert isinstance(array, Node)
    assert array.data.dtype == float
    assert tg.setitem(node([1, 2]), 0, 9).data == [9, 2]
    for method in (m for m in dir(str) if not m.startswith("_")):
        assert callable(getattr(node("a"), method))
    assert isinstance(tg.eq(node(1), 1), Node)
    assert isinstance(tg.in_(node(1), [1]), Node)


def test_opening_37_trainable_functions_keep_their_closures() -> None:
    class Base:
        def act(self) -> int:
            return 1

    def outer() -> Any:
        limit = 1

        class Child(Base):
            @bundle(trainable=True)
            def act(self) -> int:
                return super().act() + limit + later()

        def later() -> int:
            return 100

        def change(to: int) -> None:
            nonlocal limit
            limit = to

        return Child(), change

    child, change = outer()
    assert child.act().data == 102
    child.act.parameter.assign("def act(self):\n    return super().act() + limit + later() + 1000")
    assert child.act().data == 1102
    change(5)
    assert child.act().data == 1106


def test_opening_38_without_feedback_nothing_is_asked() -> None:
    prompt = node("a", trainable=True, name="prompt")
    llm = Scripted([])
    optimizer = OptoPrime([prompt], llm=llm)
    update = optimizer.step()
    assert not update
    assert not llm.requests
    assert "no feedback" in update.note
    still = Still([prompt], {"prompt": "b"})
    both = Partition(still)
    both.step()
    assert still.asked == 0


def test_no_key_is_a_clear_error_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    prompt = node("a", trainable=True, name="prompt")
    optimizer = OptoPrime([prompt], llm=LiteLLM("gpt-4o-mini"))
    optimizer.backward(prompt + "!", "bad")
    with pytest.raises(tg.TracegraphError, match="OPENAI_API_KEY"):
        optimizer.step()
    assert prompt.feedback
    assert prompt.data == "a"


@pytest.mark.parametrize("number", range(1, 39))
def test_every_opening_has_its_test(number: int) -> None:
    assert any(name.startswith(f"test_opening_{number:02}_") for name in globals())


def test_async_agents_end_to_end() -> None:
    prompt = node("p", trainable=True, name="prompt")

    @bundle
    async def ask(question: str) -> str:
        await asyncio.sleep(0)
        return f"{prompt}: {question}"

    async def batch() -> list[Any]:
        return await asyncio.gather(*(ask(f"q{i}") for i in range(4)))

    outputs = asyncio.run(batch())
    optimizer = OptoPrime([prompt], llm=Scripted([suggesting(prompt="better")]))
    optimizer.backward([(o, f"said {i}") for i, o in enumerate(outputs)])
    assert optimizer.step().changes[0].after == "better"
