"""Where a gradient or a curvature comes from."""
