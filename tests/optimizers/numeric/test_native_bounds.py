"""The generated C++ under the compiler's sanitizers: no access out of bounds, no race, nothing undefined."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from optimizers.numeric.executors import compiler, cpp
from optimizers.numeric.executors.glance import GLANCE
from optimizers.numeric.rules.adam import ADAMW

# Every tensor and every part of its state is a block of its own, of just the size that it needs, so that
# one element too far is seen; a shifted block is one that only its elements are aligned in.
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>

static int tell(void* tensor, Seen* out) { *out = *static_cast<Seen*>(tensor); return 0; }
static void* item(void* list, intptr_t i) { return static_cast<void**>(list)[i]; }

int main() {
  const int64_t sizes[] = {0, 1, 2, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 4096, 32768, 33000, 70001};
  const int64_t tensors = sizeof(sizes) / sizeof(*sizes);
  const int64_t each[] = {@EACH@}, per[] = {@PER@};  // bytes of an element, elements of the tensor to one
  const int64_t rows = sizeof(each) / sizeof(*each);
  const double h[] = {1e-3, 1e-5, .1, .001, 1.0, 1e-8, 1.0};
  srand(1);
  for (int64_t threads = 1; threads <= 4; ++threads) for (int shift = 0; shift < 2; ++shift) {
    std::vector<std::vector<uint8_t>> blocks;
    std::vector<int64_t> table;
    for (int64_t r = 0; r < rows; ++r) for (int64_t n : sizes) {
      blocks.emplace_back((n + per[r] - 1) / per[r] * each[r] + shift * each[r]);
      for (auto& byte : blocks.back()) byte = uint8_t(rand());  // NaN and infinity among them
      table.push_back(int64_t(blocks.back().data()) + shift * each[r]);
    }
    for (uint64_t t = 0; t < 3; ++t) step(table.data(), sizes, tensors, h, t, threads);
    std::vector<Seen> seen(2 * tensors);
    std::vector<void*> params, grads;
    std::vector<int64_t> shapes(2 * tensors), strides(2 * tensors, 1);
    for (int64_t k = 0; k < 2 * tensors; ++k) {
      shapes[k] = sizes[k % tensors];
      seen[k] = {reinterpret_cast<void*>(table[k]), {1, 0}, 1, {@CODE@, @BITS@, 1},
                 &shapes[k], &strides[k], 0};
      (k < tensors ? params : grads).push_back(&seen[k]);
    }
    const Kind kind{1, 0, @CODE@, @BITS@};
    const auto glanced = [&] {
      return glance(tell, item, params.data(), grads.data(), table.data(), sizes, tensors, &kind);
    };
    if (glanced() != 1) return 3;
    seen[tensors + 5].device.id = 1;
    if (glanced() != 0) return 4;
    seen[tensors + 5].device.id = 0;
    shapes[tensors + 5] += 1;
    if (glanced() != 0) return 5;
  }
  std::puts("whole");
}
"""


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.skipif(not compiler.available(), reason="there is no C++ compiler here")
@pytest.mark.parametrize("sanitizer", ["address,undefined,float-cast-overflow", "thread"])
@pytest.mark.parametrize("p", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("codec", ["fp32", "bf16-stochastic", "8bit", "8bit-dynamic"])
def test_sanitizers_find_nothing(
    codec: str, p: torch.dtype, sanitizer: str, tmp_path: Path
) -> None:
    held = {"fp32": torch.float32, "bf16-stochastic": torch.bfloat16}.get(codec, torch.uint8)
    parts = [(held.itemsize, 1)]
    if codec in cpp.GROUPED:
        parts.append((2 if codec == "8bit" else 4, cpp.GROUPED[codec]))
    columns = [(p.itemsize, 1)] * 2 + parts * 2
    text = cpp.source(ADAMW, 6, p, (held, held), codec) + GLANCE + PROGRAM
    for name, value in {
        "@EACH@": ", ".join(str(size) for size, _ in columns),
        "@PER@": ", ".join(str(per) for _, per in columns),
        "@CODE@": "2" if p is torch.float32 else "4",
        "@BITS@": str(8 * p.itemsize),
    }.items():
        text = text.replace(name, value)
    file, program = tmp_path / "kernel.cpp", tmp_path / "kernel"
    file.write_text(text)
    cxx = compiler.compiler()
    assert cxx is not None
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g", "-pthread"]
    built = subprocess.run(
        [cxx, *compiler.FLAGS, *flags, str(file), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no {sanitizer} runtime")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr[-3000:]
