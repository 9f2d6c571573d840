"""Optimizers that need no model: they try candidates and learn from scores."""

from optimizers.candidate import Candidate, Trial
from optimizers.search.evolve import Evolve
from optimizers.search.mutate import Mutator, Variation, register
from optimizers.search.random_search import RandomSearch
from optimizers.search.search import Search

__all__ = [
    "Candidate",
    "Evolve",
    "Mutator",
    "RandomSearch",
    "Search",
    "Trial",
    "Variation",
    "register",
]
