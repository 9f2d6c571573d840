"""Executors beyond what the table of the family asks of them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from optimizers.numeric.adam import AdamW
from optimizers.numeric.executors import choice, compiled, compiler, native
from optimizers.numeric.lion import Lion
from optimizers.numeric.rule_optimizer import RuleOptimizer
from tracegraph.errors import MissingExtra


@pytest.mark.parametrize(
    "really", [False, pytest.param(True, marks=[pytest.mark.campaign, pytest.mark.timeout(300)])]
)
def test_compiled_agrees_with_eager(really: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute: by default the flat buffers alone are tried."""
    if not really:
        monkeypatch.setattr(torch, "compile", lambda step, **options: step)
    compiled._kernel.cache_clear()
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 8), (33,), (2, 3)]
    ps = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
    qs = [p.detach().clone().requires_grad_() for p in ps]
    one, two = AdamW(ps, backend="compiled"), AdamW(qs, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler warns about its own parts
        for _ in range(5):
            for p, q in zip(ps, qs, strict=True):
                p.grad = torch.randn(p.shape, generator=generator)
                q.grad = p.grad.clone()
            one.step()
            two.step()
    assert one.ran == ("compiled",)
    for p, q in zip(ps, qs, strict=True):
        assert torch.allclose(p, q, rtol=2e-6, atol=2e-6)
    compiled._kernel.cache_clear()


def test_a_missing_compiler_or_triton_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = torch.ones(1 << 15, requires_grad=True)
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    with pytest.raises(MissingExtra, match="needs a C\\+\\+ compiler: install one"):
        AdamW([p], backend="native")
    optimizer = AdamW([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.ran == ("foreach",)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'tracegraph\[gpu\]'"):
        AdamW([p], backend="triton")


def test_many_elements_are_shared_among_threads_and_none_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [1, 1023, 1024, 1025, 100_000, 0, 70_001]
    ps = [torch.randn(n, generator=generator).requires_grad_() for n in sizes]
    qs = [p.detach().clone().requires_grad_() for p in ps]
    one, two = AdamW(ps, backend="native"), AdamW(qs, backend="foreach")
    for _ in range(3):
        for p, q in zip(ps, qs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        one.step()
        two.step()
    for p, q in zip(ps, qs, strict=True):
        assert torch.allclose(p, q, rtol=2e-6, atol=2e-6)


def test_kernels_are_not_taken_from_a_folder_that_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "tracegraph" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    compiler.folder.cache_clear()
    try:
        assert compiler.folder() != folder
        compiler.folder.cache_clear()
        folder.chmod(0o700)
        assert compiler.folder() == folder
    finally:
        compiler.folder.cache_clear()


def test_naming_the_family_loads_no_torch() -> None:
    code = (
        "import sys, optimizers.numeric as n; assert 'AdamW' in dir(n); "
        "assert not {'torch', 'triton', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=60)


@pytest.mark.parametrize("make", [AdamW, Lion], ids=lambda m: m.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state", ["bf16-stochastic", "8bit", "8bit-dynamic"])
def test_coded_state_is_stored_by_native_as_by_eager(
    state: str, dtype: torch.dtype, make: Callable[..., RuleOptimizer]
) -> None:
    """Sums are fused in C++, so a code at a tie may differ: one in a thousand is allowed."""
    generator = torch.Generator().manual_seed(0)
    sizes = [4096, 5000, 70_001, 4111]  # whole groups, a cut one, two threads, a cut group of 32
    ps = [torch.randn(n, generator=generator).to(dtype).requires_grad_() for n in sizes]
    qs = [p.detach().clone().requires_grad_() for p in ps]
    one, two = (
        make(x, lr=0.01, state=state, backend=b) for x, b in ((ps, "native"), (qs, "eager"))
    )
    for _ in range(6):
        for p, q in zip(ps, qs, strict=True):
            spread = torch.exp(2 * torch.randn(p.shape, generator=generator))
            p.grad = (torch.randn(p.shape, generator=generator) * spread).to(dtype)
            p.grad[:300] = 0.0
            q.grad = p.grad.clone()
        one.step()
        two.step()
    assert (one.ran, two.ran) == (("native",), ("eager",))
    for p, q in zip(ps, qs, strict=True):
        far = (p - q).abs() > 1e-5 * (1 + q.abs())
        assert far.double().mean() <= (2e-3 if make is Lion else 1e-3)
        for name, held in two.state[q].items():
            mine = one.state[p][name]
            if held.dtype is torch.float32:  # scales, and the state of small tensors
                assert torch.allclose(mine, held, rtol=1e-5, atol=1e-6), name
            else:
                assert (mine != held).double().mean() <= 1e-3, name


@pytest.mark.parametrize("state", ["8bit", "8bit-dynamic"])
def test_a_nan_or_an_infinity_stays_in_its_group(state: str) -> None:
    p = torch.ones(8192, requires_grad=True)
    optimizer = AdamW([p], state=state, backend="native")
    p.grad = torch.ones_like(p)
    p.grad[0], p.grad[4096] = float("nan"), float("inf")
    optimizer.step()
    optimizer.step()
    group = 32 if state == "8bit" else 256
    beside = torch.cat([p[group:4096], p[4096 + group :]])
    assert bool(beside.isfinite().all())


def test_coded_state_steps_again_on_the_same_memory() -> None:
    """The second and later steps go by the plan of the first; both must agree with a new one."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(20_000, generator=generator).requires_grad_()
    q = p.detach().clone().requires_grad_()
    one = AdamW([p], lr=0.01, state="8bit", backend="native")
    two = AdamW([q], lr=0.01, state="8bit", backend="native")
    for _ in range(4):
        p.grad = torch.randn(p.shape, generator=generator)
        q.grad = p.grad.clone()
        one.step()
        two.forget()
        two.step()
    assert torch.equal(p, q)
    one.state[p]["exp_avg_scale"] = torch.zeros_like(one.state[p]["exp_avg_scale"])
    one.step()  # the plan held the old scales
    two.state[q]["exp_avg_scale"].zero_()
    two.forget()
    two.step()
    assert torch.equal(p, q)


@pytest.mark.skipif(not native.available(), reason="needs a C++ compiler")
@pytest.mark.parametrize(("count", "name"), [(63, "foreach"), (64, "native")])
def test_many_tensors_are_worth_a_kernel_however_small(count: int, name: str) -> None:
    ps = [torch.ones(2, requires_grad=True) for _ in range(count)]
    optimizer = AdamW(ps, lr=0.1, weight_decay=0.0)
    for p in ps:
        p.grad = torch.ones(2)
    optimizer.step()
    assert optimizer.ran == (name,)
    assert all(torch.allclose(p, torch.tensor(0.9)) for p in ps)
