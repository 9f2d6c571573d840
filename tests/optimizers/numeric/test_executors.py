"""Executors beyond what the table of the family asks of them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from optimizers.numeric.adam import AdamW
from optimizers.numeric.executors import choice, compiled, native
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
    monkeypatch.setattr(native, "compiler", lambda: None)
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
    native._folder.cache_clear()
    try:
        assert native._folder() != folder
        native._folder.cache_clear()
        folder.chmod(0o700)
        assert native._folder() == folder
    finally:
        native._folder.cache_clear()


def test_naming_the_family_loads_no_torch() -> None:
    code = (
        "import sys, optimizers.numeric as n; assert 'AdamW' in dir(n); "
        "assert not {'torch', 'triton', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ), timeout=60)
