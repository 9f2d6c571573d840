"""Optimizers for tensors."""
