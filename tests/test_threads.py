"""Several threads at once: each of these interleavings lost or mixed something once.

Where it can be, the other thread is let in at the very moment that matters, so that a test fails
always or never.
"""

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest

import tracegraph as tg
from optimizers import records
from optimizers.base import Optimizer, Proposal
from optimizers.llm.memory import Memory
from tests.interleaving import Once, elsewhere
from tracegraph import cell, failure, linemeter, parameter, tensor
from tracegraph.codechecks import PassesTests
from tracegraph.history import capture, checkpoint
from tracegraph.history.at_hand import AtHand
from tracegraph.parameter import Parameter
from tracegraph.problem import Problem
from tracegraph.recorder import Frame
from tracegraph.source import Source
from tracegraph.speed import Faster, IsFaster

# Feedback


@dataclass(frozen=True)
class Noted(tg.Feedback):
    words: tuple[str, ...]

    def merge(self, other):
        meanwhile()
        return Noted((*self.words, *other.words))


meanwhile: Any = Once()


def test_feedback_that_arrives_while_other_feedback_is_merged_stays(monkeypatch):
    word = tg.node("w", trainable=True, name="word")
    out = word + "!"
    monkeypatch.setitem(globals(), "meanwhile", Once(lambda: out.backward(Noted(("meanwhile",)))))
    out.backward(Noted(("first",)))
    out.backward(Noted(("second",)))
    assert sorted(word.feedback[Noted].words) == ["first", "meanwhile", "second"]


def test_feedback_that_is_forgotten_while_more_is_merged_is_gone(monkeypatch):
    word = tg.node("w", trainable=True, name="word")
    out = word + "!"
    monkeypatch.setitem(globals(), "meanwhile", Once(word.zero_feedback))
    out.backward(Noted(("first",)))
    out.backward(Noted(("second",)))
    assert word.feedback[Noted].words == ("second",)


def test_feedback_that_comes_too_late_takes_nothing_from_that_about_the_new_value():
    word = tg.node("w", trainable=True, name="word")

    def change():
        word.assign("v")
        (word + "?").backward("about the new value")

    once = Once(change)

    def rule(visited, message):
        once()
        return {}

    @tg.bundle(rules={tg.Remark: rule})
    def first(x):
        return x

    out = first("x") + word
    with pytest.warns(tg.StaleFeedbackWarning, match="version 0 of 'word'"):
        received = out.backward("about the old value")
    assert word not in received
    assert str(word.feedback[tg.Remark]) == "about the new value"
    assert word.feedback.version == 1


def test_a_gradient_finds_the_value_that_it_is_about_when_another_one_has_come():
    torch = pytest.importorskip("torch")
    weight = tg.node(torch.ones(2), trainable=True, name="weight")
    first_tensor, other = weight.data, torch.zeros(2)
    once = Once(lambda: weight.assign(other))

    def rule(visited, message):
        once()
        return {}

    @tg.bundle(rules={tg.Gradient: rule})
    def first(x):
        return x

    out = first(torch.ones(2, requires_grad=True)) * weight
    with pytest.warns(tg.StaleFeedbackWarning, match="weight"):
        out.sum().backward()
    assert other.grad is None
    assert first_tensor.grad is None


def test_gradients_of_two_threads_are_both_added_to_grad():
    torch = pytest.importorskip("torch")
    mine = torch.zeros(3, requires_grad=True)
    once = Once(lambda: tensor.accumulate(mine, torch.ones(3)))

    class Slow(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.Tensor.add:
                once()
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))

    tensor.accumulate(mine, torch.ones(3))
    tensor.accumulate(mine, torch.full((3,), 2.0).as_subclass(Slow))
    assert once.done
    assert mine.grad.tolist() == [4.0, 4.0, 4.0]


def test_a_number_is_lifted_into_torch_once_for_all_threads(monkeypatch):
    torch = pytest.importorskip("torch")
    rate = tg.node(2.0, trainable=True, name="rate")
    held = rate + 0.0  # keeps the leaf
    ones, outs = torch.ones(3), []

    def multiplied():
        outs.append((rate * ones).sum())

    once, made = Once(multiplied), torch.scalar_tensor

    def scalar(*args, **kwargs):
        once()
        return made(*args, **kwargs)

    monkeypatch.setattr(torch, "scalar_tensor", scalar)
    multiplied()
    assert len(outs) == 2
    assert held.data == 2.0
    for out in outs:
        out.backward()
    assert rate.feedback[tg.Gradient].value == 6.0


@pytest.mark.parametrize(
    "look",
    [
        lambda word: records.score_of([word]),
        lambda word: capture.mean_score([word]),
        lambda word: len(Problem.of({"word": word}).feedback) / 2,
    ],
    ids=["score_of", "mean_score", "Problem"],
)
def test_feedback_is_looked_at_once(monkeypatch, look):
    """What is forgotten between two looks would be half there."""
    word = tg.node("w", trainable=True, name="word")
    out = word + "!"
    out.backward([0.5, "too short"])
    look(word)
    once, feedback = Once(word.zero_feedback), Parameter.feedback.fget

    def arrived(self):
        found = feedback(self)
        once()
        return found

    expected = look(word)
    monkeypatch.setattr(Parameter, "feedback", property(arrived))
    assert look(word) == expected
    assert once.done


# Values


def test_one_version_has_one_leaf(monkeypatch):
    word = tg.node("w", trainable=True, name="word")
    once = Once(lambda: outs.append(word + "?"))
    outs: list[Any] = []

    def leaf(value):
        once()
        return made(value)

    made = parameter.leaf
    monkeypatch.setattr(parameter, "leaf", leaf)
    outs.append(word + "!")
    first, second = (out.inputs["x"] for out in outs)
    assert first is second


def test_what_a_call_reads_is_what_is_recorded_as_read(monkeypatch):
    word = tg.node("old", trainable=True, name="word")
    once, read = Once(lambda: word.assign("new")), Frame.read

    def reading(self, found):
        read(self, found)
        once()

    monkeypatch.setattr(Frame, "read", reading)

    @tg.bundle
    def f():
        return word.data

    call = f()
    assert call.data == call.inputs["word"].data == "old"
    assert call.inputs["word"].version == 0


MINE = "def f(x):\n    return x\n"
THEIRS = "def f(x):\n    return x + 1\n"


def untrusted():
    """A function with a text that nobody has trusted, and another one about to be trusted."""

    @tg.bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign(THEIRS, origin="optimizer")
    return f


@pytest.fixture
def at_the_check(monkeypatch):
    """A task for another thread at the moment in which a parameter checks a value."""
    once, check = Once(), Parameter.check
    once.done = True

    def checking(self, value):
        once()
        return check(self, value)

    monkeypatch.setattr(Parameter, "check", checking)

    def when_checked(task):
        once.task, once.done = task, False

    return when_checked


def test_a_copy_has_the_trust_of_the_text_that_it_has(at_the_check):
    f = untrusted()
    at_the_check(lambda: f.parameter.assign(MINE))
    twin = copy.deepcopy(f.parameter)
    assert f.parameter.data == MINE
    assert (twin.data, twin.trusted, twin.origin) == (THEIRS, False, "optimizer")


@pytest.fixture
def at_trust(monkeypatch):
    """A task for another thread at the moment in which a parameter is asked for its trust alone."""
    trusted = Parameter.trusted.fget

    def when_asked(task, *, before):
        once = Once(task)

        def asked(self):
            if before:
                once()
            answer = trusted(self)
            once()
            return answer

        monkeypatch.setattr(Parameter, "trusted", property(asked))

    return when_asked


def test_an_overlay_trusts_no_text_that_came_after_the_trusted_one(at_trust):
    @tg.bundle(trainable=True)
    def f(x):
        return x

    at_trust(lambda: f.parameter.assign(THEIRS, origin="optimizer"), before=False)
    with tg.Overlay({f.parameter: THEIRS}):
        assert not f.parameter._cell().now.trusted


def test_a_file_has_the_trust_of_the_text_that_it_has(at_trust, tmp_path):
    f = untrusted()
    at_trust(lambda: f.parameter.assign(MINE), before=True)
    f.save(tmp_path / "f.json")
    (entry,) = json.loads((tmp_path / "f.json").read_text()).values()
    assert (entry["value"], entry["trusted"]) == (THEIRS, False)


def test_a_checkpoint_has_the_trust_of_the_text_that_it_has(at_trust, tmp_path):
    @tg.bundle(trainable=True)
    def f(x):
        return x

    at_trust(lambda: f.parameter.assign(THEIRS, origin="optimizer"), before=False)
    path = checkpoint.save(tmp_path, step=1, parameters=[f])
    checkpoint.load(path, parameters=[f])
    now = f.parameter._cell().now
    assert now.trusted == (now.data != THEIRS)


def test_loading_trusts_no_text_for_one_that_was_trusted_before(at_trust, tmp_path):
    @tg.bundle(trainable=True)
    def f(x):
        return x

    untrusted().save(tmp_path / "f.json")
    at_trust(lambda: f.parameter.assign(THEIRS, origin="optimizer"), before=False)
    f.load(tmp_path / "f.json")
    assert f.parameter.data == THEIRS
    assert not f.parameter._cell().now.trusted


# Steps


class Given(Optimizer):
    """Proposes what it was given."""

    def __init__(self, parameters, values):
        super().__init__(parameters)
        self.values = values

    def propose(self, **options):
        return Proposal(self.values)


def test_a_step_asks_each_check_once_and_then_assigns_all():
    """A check may look at what changes meanwhile, as one for speed does."""
    asked = []

    def check(value):
        asked.append(value)
        return value != "new" or asked.count("new") < 2

    first = tg.node("old", trainable=True, name="first")
    second = tg.node("old", trainable=True, name="second", constraint=check)
    (first + second).backward("change both")
    update = Given([first, second], {first: "new", second: "new"}).step()
    assert [c.name for c in update.changes] == ["first", "second"]
    assert (first.data, second.data) == ("new", "new")


def test_a_step_that_is_interrupted_changes_nothing(monkeypatch):
    names = ["first", "second", "third"]
    parameters = [tg.node("old", trainable=True, name=name) for name in names]
    (parameters[0] + parameters[1] + parameters[2]).backward("change all")
    made, values = [], cell.Value

    class Interrupted(values):
        __slots__ = ()

        def __init__(self, *args, **kwargs):
            made.append(args)
            if len(made) == 2:
                raise KeyboardInterrupt
            super().__init__(*args, **kwargs)

    optimizer = Given(parameters, dict.fromkeys(parameters, "new"))
    monkeypatch.setattr(cell, "Value", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    monkeypatch.undo()
    assert [(p.data, p.version) for p in parameters] == [("old", 0)] * 3
    assert all(p.feedback for p in parameters)
    other = tg.node("old", trainable=True, name="other")
    elsewhere(lambda: other.assign("nobody keeps it from that"))
    assert optimizer.step()
    assert [p.data for p in parameters] == ["new"] * 3


def test_a_step_forgets_the_feedback_that_it_used_and_none_about_the_new_value(monkeypatch):
    word = tg.node("old", trainable=True, name="word")
    (word + "!").backward("change it")
    once = Once(lambda: (word + "!").backward("about the new value"))
    begin = parameter.assign_all

    def begun(*args, **kwargs):
        versions = begin(*args, **kwargs)
        once()
        return versions

    monkeypatch.setattr("optimizers.base.assign_all", begun)
    Given([word], {word: "new"}).step()
    assert word.data == "new"
    assert str(word.feedback[tg.Remark]) == "about the new value"


# Code


def test_an_object_runs_the_text_that_it_has(at_the_check):
    class Thing:
        @tg.bundle(trainable=True)
        def f(self, x):
            return "first"

    bundled = vars(Thing)["f"]
    second = "def f(self, x):\n    return 'second'\n"
    bundled.parameter.assign(second)
    Thing().f(1)

    def change():
        bundled.parameter.assign(second.replace("second", "third"))
        bundled(None, 1)

    at_the_check(change)
    thing = Thing()
    said = thing.f(1).data
    assert "third" in bundled.parameter.data
    assert f"'{said}'" in thing.f.__func__.parameter.data


def test_an_object_with_slots_has_one_code_for_all_threads(at_the_check):
    class Thing:
        __slots__ = ("__weakref__",)

        @tg.bundle(trainable=True)
        def f(self, x):
            return x

    thing, found = Thing(), []
    at_the_check(lambda: found.append(thing.f.__func__))
    found.append(thing.f.__func__)
    assert len(found) == 2
    assert found[0] is found[1] is thing.f.__func__


def test_a_text_is_run_once_for_all_threads(monkeypatch):
    @tg.bundle(trainable=True)
    def f():
        return 0

    f.parameter.assign("seen = []\ndef f():\n    seen.append(1)\n    return len(seen)\n")
    said: list[int] = []
    once, replaced = Once(lambda: said.append(f().data)), Source.replaced

    def replacing(self, text):
        once()
        return replaced(self, text)

    monkeypatch.setattr(Source, "replaced", replacing)
    said.append(f().data)
    assert said == [1, 2]


def test_lines_of_a_text_are_known_while_other_texts_come_and_go():
    @tg.bundle(trainable=True)
    def f(x):
        return x

    texts = [f"def f(x):\n    return 1 / (x - x)  # {n}\n" for n in range(40)]
    for text in texts:
        f.parameter.assign(text)
        with pytest.raises(ZeroDivisionError) as caught:
            f(1)
        shown = tg.failed_node(caught.value).failure.text()
        assert text.splitlines()[1].strip() in shown
    assert len(f._compiled) <= 33
    assert len(f._sources) <= 33


class Name(str):
    """The name of an attribute; a method of the object is called while it is looked at."""

    __slots__ = ("task",)

    def startswith(self, *args):
        self.task()
        return super().startswith(*args)

    def __format__(self, spec):
        self.task()
        return super().__format__(spec)


def test_parameters_are_found_while_a_method_makes_its_own():
    class Thing(tg.Module):
        def __init__(self):
            self.first = tg.node("a", trainable=True, name="first")
            self.last = tg.node("b", trainable=True, name="last")

        @tg.bundle(trainable=True)
        def f(self, x):
            return x

    thing = Thing()
    name = Name("middle")
    name.task = Once(lambda: thing.f(1))
    vars(thing)[name] = tg.node("c", trainable=True, name="middle")
    assert {"first", "middle", "last"} <= thing.named_parameters().keys()


def test_what_is_at_hand_is_found_while_another_thread_adds_to_it():
    class Thing:
        pass

    thing, last = Thing(), object()
    name = Name("first")
    name.task = Once(lambda: setattr(thing, "added", 1))
    vars(thing)[name] = object()
    thing.last = last
    assert AtHand({"thing": thing}).way_to(last) == "thing.last"


# The rest


def test_a_memory_is_read_while_another_thread_adds_to_it():
    class Fact(str):
        __slots__ = ()

        def __len__(self):
            once()
            return super().__len__()

    memory = Memory(3)
    once = Once(lambda: memory.add(["d", "e"]))
    memory.add(["a", "b", Fact("c")])
    assert memory.lines(room=100) == ["a", "b", "c"]
    assert memory.state_dict() == ["c", "d", "e"]


def test_an_exception_has_one_joined_class_for_all_threads(monkeypatch):
    class Broken(Exception):
        pass

    @tg.bundle
    def f():
        raise Broken("no")

    def caught():
        with pytest.raises(Broken) as error:
            f()
        return type(error.value)

    kinds = []
    once, new_class = Once(lambda: kinds.append(caught())), failure.types.new_class

    def made(*args, **kwargs):
        once()
        return new_class(*args, **kwargs)

    monkeypatch.setattr(failure.types, "new_class", made)
    kinds.append(caught())
    assert kinds[0] is kinds[1]


class Forgetful(dict):
    """A memory that another thread empties at once."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self.clear()


def test_a_check_for_speed_needs_no_verdict_of_another_thread():
    check = IsFaster(
        Faster(lambda f: f()), made=lambda text: (lambda: None), first="old",
        clock=iter(range(10**6)).__next__, _known=Forgetful(),
    )  # fmt: skip
    with pytest.raises(ValueError, match="not faster"):
        check("new")


def test_a_test_of_code_needs_no_verdict_of_another_thread():
    check = PassesTests([lambda f: False], made=lambda text: lambda: None, first="old")
    check._known = Forgetful()
    with pytest.raises(ValueError, match="said no"):
        check("new")


def test_a_refusal_that_is_remembered_is_raised_anew():
    """One exception in two threads at once would have the traceback of both."""
    check = PassesTests([lambda f: False], made=lambda text: lambda: None, first="old")
    raised = []
    for _ in range(2):
        with pytest.raises(ValueError, match="said no") as error:
            check("new")
        raised.append(error.value)
    assert raised[0] is not raised[1]
    assert str(raised[0]) == str(raised[1])


def test_memory_is_no_longer_counted_when_the_last_of_several_ends():
    tracemalloc = linemeter.tracemalloc
    assert not tracemalloc.is_tracing()
    linemeter._memory_on()
    linemeter._memory_on()
    linemeter._memory_off()
    assert tracemalloc.is_tracing()
    linemeter._memory_off()
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        linemeter._memory_on()
        linemeter._memory_off()
        assert tracemalloc.is_tracing()  # somebody else's
    finally:
        tracemalloc.stop()
