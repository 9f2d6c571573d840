"""`python -m optimizers.demo`; the command itself is in `optimizers.demo.command`."""

from __future__ import annotations

from optimizers.demo.command import main

if __name__ == "__main__":
    main()
