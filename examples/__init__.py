"""Programs that show what tracegraph does; each runs on a CPU without network or key."""
