"""Which decorator is called and above which function: known by position, whatever it is named."""

import functools

import pytest

import tracegraph as tg
from tracegraph import ParameterError, bundle

LIMIT = 5
trainable = functools.partial(bundle, trainable=True)


def own(function):
    """A decorator of the program's that makes functions trainable."""
    return bundle(
        trainable=True,
    )(function)


def plain(function):
    def run(*args):
        return function(*args)

    return run


def wrapping(function):
    @functools.wraps(function)
    def run(*args):
        return function(*args) + 1

    return run


class Counted:
    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)


class Telling(Counted):
    def __init__(self, function):
        super().__init__(function)
        functools.update_wrapper(self, function)


def shifted(function):
    return functools.partial(function, 1)


@pytest.mark.parametrize(
    ("decorator", "gives"),
    [
        (plain, "the function 'plain.<locals>.run'"),
        (Counted, "an object of 'Counted'"),
        (shifted, "an object of 'partial'"),
        (lambda _: len, "an object of 'builtin_function_or_method'"),
        (lambda _: original, "the function 'original'"),
    ],
)
def test_a_decorator_below_that_hides_the_function_is_refused(decorator, gives):
    with pytest.raises(ParameterError) as caught:

        @bundle(
            trainable=True,
            name="it",
        )
        @decorator
        def price(x):
            return x

    said = str(caught.value)
    assert f"@decorator gives {gives}, which does not tell that it stands for 'price'" in said
    assert "functools.wraps" in said
    assert "put it above" in said


def original(x):
    return x


def test_of_several_decorators_all_are_named():
    with pytest.raises(ParameterError, match=r"@plain and @functools.lru_cache\(None\) give the"):

        @trainable
        @plain
        @functools.lru_cache(None)
        def price(x):
            return x


@bundle(trainable=True)
@wrapping
def by_function(x):
    return x


@bundle(trainable=True)
@Telling
def by_object(x):
    return x


@pytest.mark.parametrize("function", [by_function, by_object])
def test_one_that_tells_what_it_wraps_is_a_part_of_the_text(function):
    text = function.parameter.data
    name = {by_function: "wrapping", by_object: "Telling"}[function]
    assert text == f"@{name}\ndef {function.name}(x):\n    return x\n"
    before = function(1).data
    function.parameter.assign(text.replace("return x", "return x + 5"))
    assert function(1).data == before + 5


def test_a_hidden_function_below_is_fine_where_the_decorator_stands_above():
    @plain
    @bundle(trainable=True)
    def price(x):
        return x

    assert price(1).data == 1


def test_the_marker_is_left_out_whatever_it_is_called():
    @trainable
    @wrapping
    def first(x):
        return x

    @wrapping
    @own
    def second(x):
        return x

    @tg.bundle(trainable=True) if tg else None
    def third(x):
        return x

    @trainable
    class Fourth:
        def get(self):
            return 1

    assert first.parameter.data == "@wrapping\ndef first(x):\n    return x\n"
    assert second.__wrapped__.parameter.data == "def second(x):\n    return x\n"
    assert third.parameter.data == "def third(x):\n    return x\n"
    assert Fourth.parameter.data.startswith("class Fourth:\n")
    second.__wrapped__.parameter.assign("def second(x):\n    return 3 * x\n", origin="optimizer")
    assert second(2).data == 7


def test_a_function_that_is_given_by_hand_keeps_its_decorators():
    @wrapping
    def price(x):
        return x

    made = bundle(trainable=True)(price)
    assert made.parameter.data == "@wrapping\ndef price(x):\n    return x\n"

    kept = []

    def keeps(bundled):
        kept.append(bundled)
        return lambda function: function

    @keeps(bundle(price, trainable=True))  # calls it here, and does not decorate with it
    @wrapping
    def other(x):
        return x

    assert other(1) == 2
    assert kept[0].parameter.data == made.parameter.data


def test_a_decorator_that_makes_another_function_trainable_is_no_marker_of_it():
    made = []

    def beside(function):
        made.append(bundle(trainable=True)(original))
        return function

    @beside
    def price(x):
        return x

    assert price(1) == 1
    assert made[0].parameter.data == "def original(x):\n    return x\n"


def test_decorators_and_values_of_the_function_around_it_are_there_in_every_text():
    def marked(kind):
        kind.marked = True
        return kind

    class Kind:
        pass

    limit, count = 5, wrapping

    @trainable
    @count
    def first(x):
        return x

    @trainable
    @marked
    class Second:
        top = limit

        @count
        def get(self, x: Kind = limit) -> Kind:
            return x + self.top

    class Third:
        LIMIT = 7

        def own(function):
            return wrapping(function)

        @trainable
        @own
        def get(self, x):
            return x

        @trainable
        class Inner:
            top = LIMIT  # of the module: a class body is no scope of what is inside

            def get(self, x):
                return x + self.top

    third, inner = Third(), Third.Inner()
    for parameter, call, wanted in [
        (first.parameter, lambda: first(1).data, 12),
        (Second.parameter, lambda: Second().get(1).data, 17),
        (third.get.parameter, lambda: third.get(1).data, 12),
        (Third.Inner.parameter, lambda: inner.get(1).data, 16),
    ]:
        before = call()
        parameter.assign(parameter.data.replace("return x", "return 10 + x"))
        assert (call(), before) == (wanted, wanted - 10)
    assert Second.marked
