"""A gradient through code that ran apart is the one that torch gives in place."""

import asyncio

import pytest

import tracegraph as tg
from tracegraph import Gradient, bundle, node
from tracegraph.errors import FeedbackError, NoRule
from tracegraph.sandbox import Policy

torch = pytest.importorskip("torch")


def written(body, *, head="def f(x, w):", **options):
    """A bundle whose code an optimizer wrote."""

    @bundle(trainable=True, **options)
    def f(x, w):
        return x

    text = f"{head}\n" + "".join(f"    {line}\n" for line in body.splitlines())
    f.parameter.assign(text, origin="optimizer")
    return f


def both(body, x, w, use, **options):
    """The value and the gradients of code, in place and apart."""
    found = []
    for trust in (True, False):
        parameter = node(w.clone(), trainable=True, name="w")
        given = node(x.clone(), trainable=True, name="x")
        result = written(body, trust=trust, **options)(given, parameter)
        assert ("ran" in result.info) is not trust
        loss = use(result)
        received = loss.backward(Gradient(torch.ones_like(loss.data)))
        gradients = [
            received[one][Gradient].value if one in received else None for one in (given, parameter)
        ]
        found.append((loss.data.detach(), *gradients))
    return found


def same(left, right):
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and torch.equal(left, right)


CODES = {
    "a product": ("return (x @ w).sin() * x.sum()", lambda r: r),
    "some of many results": (
        "y = x @ w\nreturn {'a': [y.exp(), 'text', 3], 'b': (y.tanh(), y.argmax())}",
        lambda r: r["a"][0].sum() + r["b"][0].mean() * 3,
    ),
    "an input that does not matter": ("return w * 2 + x.detach().sum()", lambda r: r),
    "its own argument": ("return x, w", lambda r: r[0].sum() * 2 + r[1].sum()),
    "an import of torch": ("import torch\nreturn torch.nn.functional.gelu(x @ w)", lambda r: r),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("code", CODES)
def test_gradients_equal_those_in_place_bit_for_bit(code, dtype):
    draw = torch.Generator().manual_seed(3)
    x, w = (torch.randn(shape, generator=draw).to(dtype) for shape in ((3, 4), (4, 2)))
    body, use = CODES[code]
    in_place, apart = both(body, x, w, use)
    assert all(map(same, in_place, apart)), (in_place, apart)
    assert any(one is not None and one.any() for one in apart[1:])


def test_one_tensor_given_twice_and_inside_containers_gets_the_sum():
    found = []
    for trust in (True, False):

        @bundle(trainable=True, trust=trust)
        def f(a, b, *, more):
            return a

        f.parameter.assign(
            "def f(a, b, *, more):\n    return a * b.sin() + more[0]['c'] ** 3\n",
            origin="optimizer",
        )
        w = node(torch.tensor([0.3, -2.0]), trainable=True, name="w")
        result = f(w, w, more=[{"c": w}])
        found.append(result.backward(Gradient(torch.tensor([1.0, 0.5])))[w][Gradient].value)
    assert torch.equal(*found)


def test_code_that_draws_runs_again_on_the_same_draws():
    body = (
        "import random, torch, numpy\nkeep = torch.rand(1000) < 0.5\n"
        "return x * (keep * random.random() * numpy.random.random())"
    )
    x = node(torch.ones(1000), trainable=True, name="x")
    f = written(body)
    first = f(x, 0)
    gradient = first.backward(Gradient(torch.ones(1000)))[x][Gradient].value
    assert torch.equal(gradient, first.data.detach())  # x is one, so each is the mask
    assert 0.0 < float(gradient.count_nonzero()) < 1000.0
    assert not torch.equal(f(x, 0).data, first.data)


def test_host_functions_are_called_once_and_told_again():
    asked = []

    def model(text):
        asked.append(text)
        return float(len(asked))

    x = node(torch.tensor([2.0]), trainable=True, name="x")
    f = written("return x * model('a') * model('b')", host={"model": model})
    result = f(x, 0)
    assert result.backward(Gradient(1.0))[x][Gradient].value.tolist() == [2.0]
    assert asked == ["a", "b"]


def test_async_code_and_generators_have_gradients_too():
    x = node(torch.tensor([2.0]), trainable=True, name="x")

    @bundle(trainable=True)
    async def f(x):
        return x

    @bundle(trainable=True)
    def g(x):
        yield x

    f.parameter.assign("async def f(x):\n    return x ** 2\n", origin="optimizer")
    g.parameter.assign("def g(x):\n    yield x\n    yield x ** 3\n", origin="optimizer")
    awaited = asyncio.run(f(x))
    _, cubed = list(g(x))
    assert awaited.backward(Gradient(1.0))[x][Gradient].value.tolist() == [4.0]
    x.zero_feedback()
    assert cubed.backward(Gradient(1.0))[x][Gradient].value.tolist() == [12.0]


def test_limits_of_ones_own_without_torch_run_the_code_and_refuse_a_gradient():
    f = written("return x * 2", sandbox=Policy(timeout=20, preload=("numpy",)))
    x = node(torch.tensor([2.0]), trainable=True, name="x")
    result = f(x, 0)
    assert result.data.tolist() == [4.0]
    with pytest.raises(NoRule, match=r"ran in the sandbox.*Policy\(preload=\('torch',\)"):
        result.backward(Gradient(1.0))


def test_limits_of_ones_own_with_torch_give_gradients():
    policy = Policy(timeout=20, cpu=20, preload=("torch",), memory_mb=2048)
    x = node(torch.tensor([2.0]), trainable=True, name="x")
    result = written("return x * x", sandbox=policy)(x, 0)
    assert result.backward(Gradient(1.0))[x][Gradient].value.tolist() == [4.0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "import torch\ntorch.autograd.grad = lambda *a, **k: [torch.ones(7)]\nreturn x * 2",
            "not gradients of the tensors",
        ),
        (
            "import torch\ntorch.autograd.grad = lambda *a, **k: ['forged']\nreturn x * 2",
            "not gradients of the tensors",
        ),
        (
            "import torch\ntorch.autograd.grad = lambda *a, **k: [torch.ones(1) * 1j]\nreturn x * 2",
            "not gradients of the tensors",
        ),
        ("if x.requires_grad:\n    raise KeyError('again')\nreturn x * 2", "KeyError: 'again'"),
        ("return [x * 2] * (2 if x.requires_grad else 1)", "ValueError"),
    ],
    ids=[
        "another shape",
        "no tensor",
        "complex",
        "fails when run again",
        "gives something else then",
    ],
)
def test_what_does_not_fit_is_refused(body, why):
    x = node(torch.tensor([2.0]), trainable=True, name="x")
    result = written(body)(x, 0)
    value = result[0] if isinstance(result.data, list) else result
    with pytest.raises(FeedbackError, match=f"no gradient comes back through f.*{why}"):
        value.backward(Gradient(1.0))
    assert x.feedback == {} or Gradient not in x.feedback


def test_an_argument_that_was_changed_in_place_is_noticed():
    x = node(torch.tensor([2.0]), trainable=True, name="x")
    result = written("return x * x")(x, 0)
    with torch.no_grad():
        x.data.add_(1.0)
    with pytest.raises(FeedbackError, match="changed in place after the call"):
        result.backward(Gradient(1.0))


def test_only_first_derivatives_are_known():
    x = node(torch.tensor([2.0]), trainable=True, name="x")
    result = written("return x ** 3")(x, 0)
    with pytest.raises(FeedbackError, match="only first derivatives"):
        result.backward(Gradient(1.0), create_graph=True)


def test_nothing_is_kept_where_no_gradient_is_wanted():
    f = written("return x * 2")
    assert f(torch.ones(2), 0).data.grad_fn is None
    x = node(torch.ones(2), trainable=True, name="x")
    with torch.no_grad():
        assert f(x, 0).data.grad_fn is None
    assert f(x, 0).data.grad_fn is not None


def test_a_failure_tells_the_line_as_without_a_gradient():
    x = node(torch.ones(2), trainable=True, name="x")
    with pytest.raises(ZeroDivisionError) as caught:
        written("y = x * 2\nreturn 1 / 0")(x, 0)
    told = tg.failed_node(caught.value).create_feedback("full")
    assert "3 |     return 1 / 0  <--- (ZeroDivisionError)" in told
    assert "y = tensor" in told
