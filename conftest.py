"""What pytest does not collect where an optional package is not installed."""

from importlib.util import find_spec

collect_ignore: list[str] = []
if find_spec("triton") is None:  # comes with torch for GPUs only
    collect_ignore.append("optimizers/numeric/executors/triton.py")
if find_spec("torch") is None:
    collect_ignore += ["optimizers/numeric", "tests/optimizers/numeric", "tracegraph/tensor.py"]
if find_spec("uxsim") is None:
    collect_ignore += ["examples/traffic.py", "examples/traffic_world.py"]
