"""The variables of a failed call: told, bounded, and without secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph import bundle, failed_node
from tracegraph.failure import masked


def feedback_of(function, *args):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        function(*args)
    return failed_node(caught.value).create_feedback("full")


def test_a_trainable_function_in_place_tells_its_variables():
    @bundle(trainable=True)
    def f(x):
        half = [x / 2]
        import math as m  # noqa: F401

        return half[1]

    told = feedback_of(f, 3)
    assert "return half[1]  <--- (IndexError)" in told
    assert told.endswith("where x = 3, half = [1.5]")


def test_the_variables_are_those_of_the_text_now():
    @bundle(trainable=True)
    def f(x):
        return x

    f.parameter.assign("def f(x):\n    other = x + 1\n    raise KeyError('no')\n")
    assert feedback_of(f, 3).endswith("where x = 3, other = 4")


def test_a_plain_bundle_keeps_its_variables_to_itself():
    @bundle
    def f(x):
        hidden = x * 4_321  # noqa: F841
        return x / 0

    assert "where x" not in feedback_of(f, 3)
    assert "12963" not in feedback_of(f, 3)


def test_secrets_by_name_are_not_told():
    @bundle(trainable=True)
    def f(api_key, options, accessToken, max_tokens, x):
        password = "hunter22"  # noqa: F841
        return x / 0

    told = feedback_of(f, "abcdefgh", {"token": "ijklmnop", "n": 3}, "qrstuvwx", 100, 1)
    for secret in ("abcdefgh", "ijklmnop", "qrstuvwx", "hunter22"):
        assert secret not in told.rpartition("where ")[2]
    assert "'n': 3" in told
    assert "max_tokens = 100" in told


def test_what_is_told_is_bounded():
    @bundle(trainable=True)
    def f(x):
        a = b = c = d = e = g = h = i = j = k = m = n = o = p = "y" * 1_000  # noqa: F841
        return x / 0

    told = feedback_of(f, [0] * 100_000).rpartition("where ")[2]
    assert len(told) < 2_000
    assert told.endswith("...")


def test_values_that_cannot_be_shown():
    class Hostile:
        def __repr__(self):
            raise RuntimeError("no")

    @bundle(trainable=True)
    def f(x):
        return x.missing

    assert "x = <" in feedback_of(f, Hostile())


@given(
    st.text() | st.binary() | st.integers(),
    st.sampled_from(["key", "API_KEY", "my-token", "apiKey", "user.password"]),
)
def test_an_entry_with_a_secret_name_is_masked(value, name):
    name = name.replace(".", "_")
    assert masked("options", repr({name: value, "other": 1})) == (
        f"{{{name!r}: [secret], 'other': 1}}"
    )
    assert masked(name, repr(value)) == "[secret]"


@pytest.mark.parametrize("text", ["{'monkey': 'a b', 'author': 3}", "'value'", "[1, 2]"])
def test_what_is_no_secret_stays(text):
    assert masked("turnkey", text) == text
