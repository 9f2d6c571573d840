"""How a rule runs: the same body given to numpy, torch, lists of tensors, C++ or Triton."""
