"""The mathematics of the element-wise optimizers, each stated once."""
