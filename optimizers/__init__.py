"""Turn feedback into new parameter values."""
