"""How the tests run: neither clock nor chance decides, and what is not installed is left out.

``pytest --hypothesis-profile=explore`` has the property tests try other examples at every run.
"""

import gc
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

for _profile, _same in (("tracegraph", True), ("explore", False)):
    settings.register_profile(
        _profile,
        parent=settings.default,
        deadline=None,
        derandomize=_same,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("tracegraph")

collect_ignore: list[str] = []
if find_spec("triton") is None:  # comes with torch for GPUs only
    collect_ignore += [
        f"optimizers/numeric/executors/{name}.py" for name in ("newton_schulz", "triton")
    ]
    collect_ignore += [
        f"tests/optimizers/numeric/triton_{name}.py" for name in ("compiled", "interpreted")
    ]
if find_spec("torch") is None:
    collect_ignore += ["optimizers/numeric", "tests/optimizers/numeric", "tracegraph/tensor.py"]
    collect_ignore += ["tests/worlds/mixed.py", "tests/worlds/test_mixed.py", "tests/gpu"]
if find_spec("uxsim") is None:
    collect_ignore += ["examples/traffic.py", "examples/traffic_world.py"]
for package, module in (
    ("atheris", "tests/sandbox/fuzzing.py"),
    ("gepa", "optimizers/training/gepa.py"),
    ("dspy", "tracegraph/adapters/dspy.py"),
    ("langchain_core", "tracegraph/adapters/langchain.py"),
):
    if find_spec(package) is None:
        collect_ignore.append(module)

_dspy_cache = tempfile.TemporaryDirectory()  # DSPy opens its cache as it is imported, else at home
os.environ.setdefault("DSPY_CACHEDIR", _dspy_cache.name)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """No garbage is looked for among what lives as long as the tests: seconds of every collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    gc.unfreeze()
    _dspy_cache.cleanup()
