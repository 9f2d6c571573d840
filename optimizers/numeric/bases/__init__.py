"""A change of coordinates around a rule, and optimizers that treat a matrix as one."""
