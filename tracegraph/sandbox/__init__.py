"""Run code that a model wrote."""
