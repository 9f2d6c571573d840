"""One walk carries every kind of feedback."""

import time
import warnings

import pytest
import torch

import tracegraph as tg
from tracegraph import backward, bundle, node, register_rule
from tracegraph.feedback import UnknownFeedback


def two():
    a = node("a", trainable=True, name="a")
    b = node("b", trainable=True, name="b")
    return a, b


def test_every_parameter_behind_an_output_receives():
    a, b = two()
    c = node("c", trainable=True, name="c")
    out = a + b
    received = out.backward("too long")
    assert set(received) == {a, b}
    assert str(a.feedback[tg.Remark]) == "too long"
    assert not c.feedback
    assert a.feedback.outputs == {out.id: out}


def test_several_outputs_with_weights_go_back_in_one_walk():
    a, b = two()
    x, y = a + "1", (a + b) + "2"
    received = backward([(x, "good", 2.0), (y, "bad"), (x, 0.5)])
    assert received[a][tg.Remark].outputs == {x.id: [(2.0, "good")], y.id: [(1.0, "bad")]}
    assert received[b][tg.Remark].outputs == {y.id: [(1.0, "bad")]}
    assert received[a][tg.Score].mean == 0.5


def test_feedback_accumulates_over_several_backwards():
    a, _ = two()
    x, y = a + "1", a + "2"
    x.backward("first")
    y.backward("second")
    x.backward("third")
    assert a.feedback[tg.Remark].outputs == {
        x.id: [(1.0, "first"), (1.0, "third")],
        y.id: [(1.0, "second")],
    }
    a.zero_feedback()
    assert not a.feedback
    assert x.backward("again")[a]


def test_the_same_output_may_be_walked_again():
    a, _ = two()
    x = a + "1"
    for _ in range(3):
        assert x.backward("same")[a]
    assert str(a.feedback[tg.Remark]) == "same"


def test_nothing_is_written_onto_the_graph():
    a, b = two()
    out = (a + b) + "!"
    before = [(n.id, n.inputs, n.info) for n in tg.Graph.of(out)]
    out.backward("x")
    assert [(n.id, n.inputs, n.info) for n in tg.Graph.of(out)] == before


def test_a_parameter_may_be_the_output_itself():
    a, _ = two()
    assert a.backward("shorter")[a]
    assert str(a.feedback[tg.Remark]) == "shorter"


def test_nothing_behind_gives_an_empty_mapping():
    assert node(1).backward("x") == {}
    assert (node(1) + 1).backward("x") == {}
    assert backward([]) == {}


def test_empty_feedback_is_feedback():
    a, _ = two()
    assert (a + "b").backward()[a]


WRONG = [object(), b"bytes", {1: 2}, set(), [], (), None, Exception, lambda: 1, 1j]


@pytest.mark.parametrize("given", WRONG, ids=[repr(w)[:20] for w in WRONG])
def test_feedback_of_an_unknown_type_is_refused_and_nothing_arrives(given):
    a, _ = two()
    x = a + "b"
    with pytest.raises(UnknownFeedback) as caught:
        backward([(x, "fine"), (x, given)])
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, tg.FeedbackError)
    assert not a.feedback


@pytest.mark.parametrize(
    "entry", ["x", (1,), ("plain value", "bad"), (3, "bad"), None, [node(1), "x"], ()]
)
def test_a_wrong_output_is_refused(entry):
    with pytest.raises(TypeError):
        backward([entry])


def test_kinds_of_feedback():
    a, _ = two()
    x = a + "b"
    x.backward(("words", 0.5, tg.Preference("other", better=True), tg.Ranking(1, of=3), True))
    assert {k.__name__ for k in a.feedback} == {"Remark", "Score", "Preference", "Ranking"}
    a.zero_feedback()
    x.backward(node("from a judge"))
    assert str(a.feedback[tg.Remark]) == "from a judge"
    a.zero_feedback()
    try:
        x / 2
    except TypeError as error:
        x.backward(error)
    assert "TypeError" in str(a.feedback[tg.Remark])


def test_a_failed_node_carries_feedback_to_its_causes():
    a, _ = two()

    @bundle
    def call(x):
        raise ValueError("bad " + x)

    try:
        call(a)
    except ValueError as error:
        tg.failed_node(error).backward(error)
    assert "(ValueError) bad a" in str(a.feedback[tg.Remark])


class Cost(tg.Feedback):
    """A feedback type of a test: dollars that add up."""

    def __init__(self, dollars):
        self.dollars = dollars

    def merge(self, other):
        return Cost(self.dollars + other.dollars)


def test_a_new_type_of_feedback_needs_only_merge():
    a, b = two()
    x = a + b
    received = backward([(x, Cost(1)), (x + "!", Cost(2))])
    assert received[a][Cost].dollars == 3
    x.backward(Cost(5))
    assert a.feedback[Cost].dollars == 8


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("upper", tg.Remark, 3), "an operation's name, a type of feedback and a function"),
        ((str.upper, tg.Remark, print), "an operation's name"),
        (("upper", str, print), "a type of feedback, such as Remark"),
        (("upper", "Remark", print), "a type of feedback, such as Remark"),
    ],
)
def test_what_is_no_rule_is_refused_where_it_is_given(wrong, said):
    with pytest.raises(TypeError, match=said):
        register_rule(*wrong)
    a = node("a", trainable=True)
    assert a.upper().backward("x")[a]


def test_rules_of_bundles_and_of_operations():
    a, b = two()

    @bundle(rules={tg.Remark: lambda made, said: {"x": tg.Remark(f"x: {said}")}})
    def call(x, y):
        return x + y

    out = call(a, b)
    out.backward("bad")
    assert str(a.feedback[tg.Remark]) == "x: bad"
    assert not b.feedback
    seen = []

    def rule(made, said):
        seen.append(made)
        return dict.fromkeys(made.inputs, said)

    register_rule("swapcase", Cost, rule)
    made = a.swapcase()
    made.backward(Cost(1))
    assert seen == [made]
    made.backward("words take the default way")
    assert seen == [made]


def test_a_rule_may_answer_with_plain_values():
    a, b = two()

    @bundle(rules={tg.Remark: lambda made, said: {"x": "plain", "y": None}})
    def call(x, y):
        return x + y

    call(a, b).backward("bad")
    assert str(a.feedback[tg.Remark]) == "plain"
    assert not b.feedback


@pytest.mark.parametrize("kind", [IndexError, KeyError, StopIteration, RuntimeError])
def test_the_exception_of_a_rule_is_never_swallowed(kind):
    a, _ = two()

    def bad(made, said):
        raise kind("in the rule")

    @bundle(rules={tg.Remark: bad})
    def call(x):
        return x

    out = call(a)
    with pytest.raises(kind, match="in the rule"):
        out.backward("x")
    assert not a.feedback


@pytest.mark.parametrize("answer", [None, 3, {"z": "x"}, {"x": object()}, ["x"]])
def test_a_wrong_answer_of_a_rule_is_named(answer):
    a, _ = two()

    @bundle(rules={tg.Remark: lambda made, said: answer})
    def call(x):
        return x

    with pytest.raises(tg.FeedbackError):
        call(a).backward("x")
    assert not a.feedback


def test_a_chain_of_a_hundred_thousand_is_linear_and_does_not_recurse():
    a = node(0, trainable=True)
    x = a
    for _ in range(100_000):
        x = x + 1
    start = time.process_time()
    assert x.backward("x")[a]
    assert time.process_time() - start < 20  # a quadratic walk takes hours


def test_a_ladder_visits_every_node_once():
    visits = []

    def rule(made, said):
        visits.append(made.id)
        return dict.fromkeys(made.inputs, said)

    @bundle(rules={Cost: rule})
    def rung(x, y):
        return x + y

    a = node(1, trainable=True)
    x = a
    for _ in range(60):
        x = rung(x, x + 0)
    x.backward(Cost(1))
    assert len(visits) == len(set(visits)) == 60


def test_merging_at_a_ladder_sums_the_paths():
    class Paths(Cost):
        def merge(self, other):
            return Paths(self.dollars + other.dollars)

    a = node(1, trainable=True)
    x = a
    for _ in range(30):
        x = x + (x * 1)
    assert x.backward(Paths(1))[a][Paths].dollars == 2**30


# Gradients


def test_gradients_equal_plain_torch_bit_for_bit():
    torch.manual_seed(0)
    start = torch.randn(5)
    plain = start.clone().requires_grad_()
    loss = ((plain * 3).sin() @ plain.exp()) + plain.sum()
    loss.backward()
    tensor = start.clone().requires_grad_()
    w = node(tensor, trainable=True, name="w")

    @bundle
    def act(x):
        return x.sin()

    out = (act(w * 3) @ torch.exp(w)) + w.sum()
    received = out.backward(1.0)
    assert torch.equal(tensor.grad, plain.grad)
    assert torch.equal(received[w][tg.Gradient].value, plain.grad)
    out.backward(1.0)
    plain_again = start.clone().requires_grad_()
    (((plain_again * 3).sin() @ plain_again.exp()) + plain_again.sum()).backward()
    assert torch.equal(tensor.grad, plain_again.grad * 2)


def test_a_loss_without_feedback_has_the_gradient_one_as_torch_has_it():
    w = node(torch.arange(3.0), trainable=True, name="w")
    loss = (w * w).sum()
    assert torch.equal(loss.backward()[w][tg.Gradient].value, 2 * torch.arange(3.0))
    tg.backward([(loss, "", 0.5), (loss.reshape(1), "")])
    assert torch.equal(w.data.grad, 5 * torch.arange(3.0))
    assert set(w.feedback) == {tg.Gradient}
    for output in (w * w, tg.bundle(str)(loss)):
        assert set(output.backward()[w]) == {tg.Remark}


def test_words_and_gradients_in_one_walk():
    w = node(torch.ones(2, requires_grad=True), trainable=True, name="w")
    prompt = node("p", trainable=True, name="prompt")

    @bundle
    def embed(text, weight):
        return weight * len(text)

    loss = embed(prompt, w).sum()
    received = backward([(loss, 1.0), (loss, "in words")])
    assert received[w][tg.Gradient].value.tolist() == [1, 1]
    assert str(received[w][tg.Remark]) == "in words"
    assert set(received[prompt]) == {tg.Remark}


def test_weights_scale_gradients():
    w = node(torch.ones(2, requires_grad=True), trainable=True)
    out = (w * 2).sum()
    assert backward([(out, 1.0, 3.0)])[w][tg.Gradient].value.tolist() == [6, 6]


def test_a_gradient_that_meets_no_tensor_is_named():
    w = node(torch.ones(2, requires_grad=True), trainable=True, name="w")
    prompt = node("p", trainable=True)
    with pytest.raises(tg.NoRule, match="rule"):
        (prompt + "x").backward(tg.Gradient(1.0))
    out = w.sum()
    number = tg.node([out])  # no tensor, and a parameter behind it
    with pytest.raises(tg.NoRule):
        number.backward(tg.Gradient(1.0))
    assert not w.feedback
    assert w.data.grad is None


def test_a_rule_carries_a_gradient_across_plain_python():
    w = node(torch.tensor(3.0, requires_grad=True), trainable=True)

    @bundle(rules={tg.Gradient: lambda made, g: {"x": tg.Gradient(2.0 * g.value)}})
    def double(x):
        return 2.0 * float(x.detach())

    out = double(w * 1)
    received = out.backward(tg.Gradient(1.0))
    assert received[w][tg.Gradient].value.item() == 2.0
    assert w.data.grad.item() == 2.0


def test_gradients_of_plain_numbers_by_a_rule():
    x = node(3.0, trainable=True, name="x")

    @bundle(
        rules={tg.Gradient: lambda made, g: {"x": tg.Gradient(2 * made.inputs["x"].data * g.value)}}
    )
    def square(x):
        return x * x

    assert square(x).backward(tg.Gradient(1.0))[x][tg.Gradient].value == 6.0


def test_frozen_and_detached_parameters_get_none():
    w = node(torch.ones(2, requires_grad=True), trainable=True)
    v = node(torch.ones(2, requires_grad=True), trainable=True)
    v.freeze()
    received = (w * v).sum().backward(1.0)
    assert set(received) == {w}
    assert v.data.grad is None


def test_a_tensor_without_requires_grad_receives_no_gradient_and_says_so_by_absence():
    w = node(torch.ones(2), trainable=True)
    w.data.requires_grad_(False)
    assert w.sum().backward(1.0) == {}


def test_create_graph():
    w = node(torch.tensor(3.0, requires_grad=True), trainable=True)
    gradient = (w**3).backward(1.0, create_graph=True)[w][tg.Gradient].value
    assert torch.autograd.grad(gradient, w.data)[0].item() == 18.0


def test_a_wrong_shape_of_gradient_changes_nothing():
    w = node(torch.ones(2, requires_grad=True), trainable=True)
    with pytest.raises((ValueError, RuntimeError)):
        (w * 2).backward(torch.ones(3))
    assert w.data.grad is None
    assert not w.feedback


def test_stale_feedback_of_one_parameter_does_not_keep_others_from_theirs():
    a, b = two()
    out = a + b
    a.assign("new")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert set(out.backward("x")) == {b}
    assert ["'a'" in str(w.message) for w in said] == [True]
    out = a + b
    b.assign("newer")
    with pytest.raises(tg.StaleFeedback):
        out.backward("x", strict=True)
    assert not a.feedback


def test_the_optimizers_reach():
    import optimizers

    class Nothing(optimizers.Optimizer):
        def propose(self):
            return optimizers.Proposal({})

    a, b = two()
    opt = Nothing([a])
    with pytest.raises(tg.NotReached, match="'a'"):
        opt.backward(b + "x", "bad")
    opt.backward(a + "x", "bad")
    assert a.feedback
    opt.zero_grad()
    assert not a.feedback


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "heavy", None, [1]])
def test_a_weight_is_a_finite_number(weight):
    a, _ = two()
    with pytest.raises(ValueError, match="weight"):
        backward([(a + "b", "x", weight)])
    assert not a.feedback


def test_options_of_microsoft_trace_pass_or_say_what_to_use():
    a, b = two()
    assert a in (a + b).backward("again", retain_graph=True)
    for option, hint in (
        ("visualize", "Graph.of"),
        ("propagator", "register_rule"),
        ("stict", "strict"),
    ):
        a.zero_feedback()
        with pytest.raises(TypeError, match=hint):
            (a + b).backward("no", **{option: True})
        with pytest.raises(TypeError, match=option):
            backward([(a + b, "no")], **{option: True})
        assert not a.feedback
