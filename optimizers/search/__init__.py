"""Optimizers that need no model: they try candidates and learn from scores."""

from optimizers.candidate import Candidate, Trial
from optimizers.localisation import ochiai, suspects
from optimizers.search.demonstrations import examples_of
from optimizers.search.evolve import Evolve
from optimizers.search.mutate import Mutator, Variation, register
from optimizers.search.nearest import nearest
from optimizers.search.random_search import RandomSearch
from optimizers.search.search import Search
from optimizers.search.synthesis import expression_for, synthesized

__all__ = [
    "Candidate",
    "Evolve",
    "Mutator",
    "RandomSearch",
    "Search",
    "Trial",
    "Variation",
    "examples_of",
    "expression_for",
    "nearest",
    "ochiai",
    "register",
    "suspects",
    "synthesized",
]
