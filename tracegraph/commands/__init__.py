"""What each command of ``tracegraph`` does; `tracegraph.cli` loads one only when it is called."""
