"""What is seldom done to an optimizer: tensors that nobody can write to, flags, modes of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.numeric.adam import AdamW, NadamW
from optimizers.numeric.bases.adafactor import Adafactor
from optimizers.numeric.bases.subspace import RandomSubspace
from optimizers.numeric.curvature import AdaHessian
from optimizers.numeric.estimators.mezo import MeZO
from optimizers.numeric.estimators.ranking import RankDescent
from optimizers.numeric.schedule_free import ScheduleFreeAdamW
from optimizers.numeric.sgd import SGD
from optimizers.numeric.spam import StableSPAM
from tests.optimizers.numeric.test_unusual_tensors import MAKERS, MATRIX, gradient, label


def counted(params: Any, **options: Any) -> AdamW:
    """AdamW whose steps count beside the tensors."""
    return AdamW(params, capturable=True, **options)


each = pytest.mark.parametrize("make", [*MAKERS, ScheduleFreeAdamW, counted], ids=label)


def made_for_inference() -> Tensor:
    with torch.inference_mode():
        return torch.eye(4) + 1


@each
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (lambda: torch.ones(1, 4).expand(4, 4), "which is expanded.*clone"),
        (made_for_inference, r"made in torch\.inference_mode\(\).*clone"),
    ],
    ids=["expanded", "inference"],
)
def test_a_tensor_that_cannot_be_written_to_is_refused_before_anything_changes(
    make: Any, odd: Callable[[], Tensor], reason: str
) -> None:
    p, q = torch.eye(4).requires_grad_(), odd()
    optimizer = make([p, q], lr=0.1)
    p.grad, q.grad = torch.ones(4, 4), torch.ones(4, 4)
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match=f"cannot step parameter 1 of group 0, .*{reason}"):
        optimizer.step()
    assert torch.equal(p, before)
    assert not optimizer.state
    q.grad = None
    optimizer.step()
    assert set(optimizer.state) == {p}


def test_expanded_tensors_without_elements_and_sides_of_one_are_stepped() -> None:
    ps = [torch.ones(1, 0).expand(3, 0), torch.ones(3, 1).expand(3, 1), torch.ones(())]
    optimizer = SGD([p.requires_grad_() for p in ps], lr=1.0)
    for p in ps:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert ps[1].tolist() == [[0.0]] * 3


@pytest.mark.parametrize("make", [AdamW, SGD, counted], ids=label)
def test_gradients_that_are_conjugates_in_memory_are_read_as_they_are(make: Any) -> None:
    """As they come from a loss that conjugates; a parameter that is one is refused."""
    start = torch.complex(torch.arange(6.0), torch.ones(6))
    p, q = (start.clone().requires_grad_() for _ in range(2))
    one, two = make([p], lr=0.1), make([q], lr=0.1)
    for step in range(3):
        p.grad = torch.complex(gradient(p.real, step), gradient(p.real, step + 5))
        q.grad = p.grad.conj().resolve_conj().conj()
        assert q.grad.is_conj()
        one.step()
        two.step()
    assert torch.equal(p, q)
    conjugate = start.conj().requires_grad_()
    optimizer = make([conjugate])
    conjugate.grad = torch.ones_like(start)
    with pytest.raises(RuntimeError, match=r"the conjugate of it: .*resolve_conj\(\)"):
        optimizer.step()


@pytest.mark.parametrize("backend", ["auto", "foreach", "native", "eager"])
def test_a_tensor_whose_memory_holds_its_opposite_is_stepped(backend: str) -> None:
    z = torch.complex(torch.zeros(4, 4), torch.eye(4) + 1)
    p, q = z.conj().imag.requires_grad_(), (-torch.eye(4) - 1).requires_grad_()
    assert p.is_neg()
    assert torch.equal(p, q)
    one, two = (AdamW([x], lr=0.1, backend=backend) for x in (p, q))
    for step in range(3):
        p.grad, q.grad = gradient(q, step), gradient(q, step)
        one.step()
        two.step()
    assert torch.allclose(p, q, rtol=1e-6, atol=1e-6)


@each
def test_a_step_in_inference_mode_leaves_states_for_any_other(make: Any) -> None:
    p, q = (torch.eye(4).requires_grad_() for _ in range(2))
    one, two = make([p], lr=0.01), make([q], lr=0.01)
    for step in range(4):
        p.grad, q.grad = gradient(p, step), gradient(q, step)
        with torch.inference_mode(step % 2 == 0):
            one.step()
        two.step()
    assert torch.equal(p, q)
    p.sum().backward()


def test_a_tensor_made_for_inference_is_stepped_in_that_mode() -> None:
    with torch.inference_mode():
        p = torch.ones(3)
        optimizer = SGD([p], lr=1.0)
        p.grad = torch.ones(3)
        optimizer.step()
        assert not p.any()


@each
def test_gradients_of_a_wider_dtype_are_taken_as_they_are(make: Any) -> None:
    """Torch lets nobody assign one, and `.grad.data = ` does."""
    p, q = (torch.eye(4).requires_grad_() for _ in range(2))
    one, two = make([p], lr=0.01), make([q], lr=0.01)
    for step in range(3):
        p.grad, q.grad = torch.zeros(4, 4), gradient(q, step)
        p.grad.data = q.grad.double()
        one.step()
        two.step()
    assert p.dtype == torch.float32
    assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", MATRIX, ids=label)
def test_torchs_flags_of_matrix_optimizers(make: Any) -> None:
    p, q = (torch.eye(4).requires_grad_() for _ in range(2))
    one, two = make([p], foreach=True, capturable=False, differentiable=False), make([q])
    p.grad, q.grad = gradient(p, 0), gradient(q, 0)
    one.step()
    two.step()
    assert torch.equal(p, q)
    assert one.state_dict()["param_groups"] == two.state_dict()["param_groups"]
    for flag in ("capturable", "differentiable"):
        with pytest.raises(ValueError, match=f"{make.__name__} does not support {flag}=True"):
            make([p], **{flag: True})
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        make([p], foreach=True, fused=True)


def test_adafactor_loads_torchs_state_whatever_its_flags() -> None:
    p, q = (torch.eye(4).requires_grad_() for _ in range(2))
    theirs, ours = torch.optim.Adafactor([p], foreach=True), Adafactor([q], foreach=True)
    for step in range(4):
        p.grad, q.grad = gradient(p, step), gradient(q, step)
        theirs.step()
        ours.step()
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [AdamW, NadamW, SGD], ids=label)
def test_a_tensor_that_is_listed_twice_is_counted_twice_on_the_device(make: Any) -> None:
    """As it is by the host, before and after a plan could be made."""
    ps, qs = ([torch.eye(3).requires_grad_() for _ in range(2)] for _ in "ab")
    with pytest.warns(UserWarning, match="duplicate parameters"):
        one = make([*ps, ps[0]], lr=0.1)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        two = make([*qs, qs[0]], lr=0.1, capturable=True)
    for step in range(4):
        for p, q in zip(ps, qs, strict=True):
            p.grad, q.grad = gradient(p, step), gradient(q, step)
        one.step()
        two.step()
    for p, q in zip(ps, qs, strict=True):
        assert torch.allclose(p, q, rtol=1e-6, atol=1e-6)
    if make is not SGD:
        assert [int(two.state[q]["step"]) for q in qs] == [8, 4]


def test_steadied_gradients_are_of_the_dtype_of_their_averages() -> None:
    p = torch.eye(3).requires_grad_()
    optimizer = StableSPAM([p])
    p.grad = torch.zeros(3, 3)
    p.grad.data = torch.ones(3, 3, dtype=torch.float64)
    optimizer.step()
    assert optimizer.state[p]["m_max_t"].dtype == torch.float32


def by_losses(params: list[Tensor]) -> Callable[[], object]:
    optimizer = MeZO(params, lr=0.1, weight_decay=0.1, rounding="stochastic")
    return lambda: optimizer.step(lambda: sum(p.square().sum() for p in params))


def by_ranks(params: list[Tensor]) -> Callable[[], object]:
    optimizer = RankDescent(SGD(params, lr=0.1, weight_decay=0.1), samples=2)
    return lambda: (list(optimizer.candidates()), optimizer.step([1]))


def by_coordinates(params: list[Tensor]) -> Callable[[], object]:
    optimizer = RandomSubspace(params, 3, lambda z: SGD(z, lr=0.1))
    return lambda: optimizer.place(optimizer.coordinates + 1)


@pytest.mark.parametrize("make", [by_losses, by_ranks, by_coordinates], ids=label)
def test_what_needs_no_gradient_leaves_frozen_tensors_where_they_are(
    make: Callable[[list[Tensor]], Callable[[], object]],
) -> None:
    """One that is frozen among others; where none requires a gradient, all move."""
    for flags in ((True, True, True), (True, False, True), (False, False, False)):
        ps = [torch.ones(3, requires_grad=flag) for flag in flags]
        step = make(ps)
        for _ in range(2):
            step()
        assert [bool((p == 1).all()) for p in ps] == [any(flags) and not flag for flag in flags]
        if flags[0]:  # frozen midway, from where it has come to
            ps[2].requires_grad_(False)
            there = ps[2].clone()
            step()
            assert torch.equal(ps[2], there)


@pytest.mark.parametrize("early", [False, True])
def test_a_copy_of_adahessian_goes_on_whatever_was_estimated(early: bool) -> None:
    p = torch.tensor([1.0, -2.0], requires_grad=True)
    one = AdaHessian([p], lr=0.1)
    loss = p.pow(4).sum()
    one.estimate(loss)
    loss.backward()
    if not early:
        one.step()
    two = copy.deepcopy(one)
    (q,) = two.param_groups[0]["params"]
    for optimizer, x in ((one, p), (two, q)):
        if not early:
            optimizer.zero_grad()
            loss = x.pow(4).sum()
            optimizer.estimate(loss)
            loss.backward()
        optimizer.step()
    assert torch.equal(p, q)
    assert q.tolist() != [1.0, -2.0]
