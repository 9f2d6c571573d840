"""Turn feedback into new parameter values.

Optimizers that ask a model (`OptoPrime`), that search without one (`Evolve`), and that follow
gradients (`AdamW` and its family). `Partition` steps several as one; `optimize` chooses for you.
Names are imported when they are first used, so that torch loads only where tensors are.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizers.base import Change, Optimizer, Proposal, Rejection, Update, Usage
    from optimizers.llm.crossover import Crossover
    from optimizers.llm.evollm import EvoLLM
    from optimizers.llm.exemplars import Exemplars
    from optimizers.llm.llambo import LLAMBO
    from optimizers.llm.merge import Merge
    from optimizers.llm.mix import Mix
    from optimizers.llm.opro import OPRO
    from optimizers.llm.optoprime import OptoPrime
    from optimizers.llm.patch import Patch
    from optimizers.llm.reflect import Reflect
    from optimizers.llm.rules import Rules
    from optimizers.llm.several import Several, by_evaluation, by_judge, by_majority
    from optimizers.llm.spo import SPO
    from optimizers.llm.textgrad import TextGrad
    from optimizers.numeric import (
        COSMOS,
        FRUGAL,
        MESA,
        REX,
        SAF,
        SAM,
        SGD,
        SGDP,
        SOAP,
        SPAM,
        AdaBelief,
        Adafactor,
        AdaHessian,
        Adam,
        AdamP,
        AdamW,
        AdaptiveBatch,
        CosineDecay,
        DCTAdamW,
        EXAdam,
        Fira,
        GaLore,
        LinearDecay,
        Lion,
        LionK,
        LookSAM,
        MeZO,
        Muon,
        NadamW,
        NaturalGaLore,
        RandomSubspace,
        RankDescent,
        RefinedDecay,
        ScheduleFreeAdamW,
        Shampoo,
        ShardedState,
        Sophia,
        StableSPAM,
        StaleSAM,
        StepDecay,
        Trion,
        WarmupStableDecay,
        merge_gradients,
    )
    from optimizers.partition import Partition, optimize
    from optimizers.search import Evolve, RandomSearch
    from optimizers.training.acceptance import Paired
    from optimizers.training.budget import Budget
    from optimizers.training.event_loop import EventLoop
    from optimizers.training.gepa import as_gepa_adapter
    from optimizers.training.judges import Ensemble, Pairwise
    from optimizers.training.loop import afit, fit
    from optimizers.training.model_judge import ModelCompares, ModelJudge
    from optimizers.training.person import Person, PersonCompares
    from optimizers.training.policies.beam import Beam
    from optimizers.training.policies.greedy import Greedy
    from optimizers.training.policies.islands import Islands
    from optimizers.training.policies.pareto import Pareto
    from optimizers.training.policies.ucb import UCB
    from optimizers.training.processes import Processes
    from optimizers.training.racing import Racing
    from optimizers.training.ray_tasks import RayTasks

_HOMES = {
    "optimizers.base": ("Change", "Optimizer", "Proposal", "Rejection", "Update", "Usage"),
    "optimizers.partition": ("Partition", "optimize"),
    "optimizers.llm.crossover": ("Crossover",),
    "optimizers.llm.evollm": ("EvoLLM",),
    "optimizers.llm.exemplars": ("Exemplars",),
    "optimizers.llm.llambo": ("LLAMBO",),
    "optimizers.llm.merge": ("Merge",),
    "optimizers.llm.mix": ("Mix",),
    "optimizers.llm.opro": ("OPRO",),
    "optimizers.llm.optoprime": ("OptoPrime",),
    "optimizers.llm.patch": ("Patch",),
    "optimizers.llm.reflect": ("Reflect",),
    "optimizers.llm.rules": ("Rules",),
    "optimizers.llm.several": ("Several", "by_evaluation", "by_judge", "by_majority"),
    "optimizers.llm.spo": ("SPO",),
    "optimizers.llm.textgrad": ("TextGrad",),
    "optimizers.search": ("Evolve", "RandomSearch"),
    "optimizers.training.acceptance": ("Paired",),
    "optimizers.training.budget": ("Budget",),
    "optimizers.training.event_loop": ("EventLoop",),
    "optimizers.training.judges": ("Ensemble", "Pairwise"),
    "optimizers.training.gepa": ("as_gepa_adapter",),
    "optimizers.training.loop": ("afit", "fit"),
    "optimizers.training.model_judge": ("ModelCompares", "ModelJudge"),
    "optimizers.training.person": ("Person", "PersonCompares"),
    "optimizers.training.policies.beam": ("Beam",),
    "optimizers.training.policies.greedy": ("Greedy",),
    "optimizers.training.policies.islands": ("Islands",),
    "optimizers.training.policies.pareto": ("Pareto",),
    "optimizers.training.policies.ucb": ("UCB",),
    "optimizers.training.processes": ("Processes",),
    "optimizers.training.racing": ("Racing",),
    "optimizers.training.ray_tasks": ("RayTasks",),
    "optimizers.numeric": (
        "COSMOS", "FRUGAL", "MESA", "REX", "SAF", "SAM", "SGD", "SGDP", "SOAP", "SPAM", "AdaBelief",
        "AdaHessian", "Adafactor", "Adam", "AdamP", "AdamW", "AdaptiveBatch", "CosineDecay",
        "DCTAdamW", "EXAdam", "Fira", "GaLore", "LinearDecay", "Lion", "LionK", "LookSAM", "MeZO", "Muon",
        "NadamW", "NaturalGaLore", "RandomSubspace", "RankDescent", "RefinedDecay",
        "ScheduleFreeAdamW", "Shampoo", "ShardedState", "Sophia", "StableSPAM", "StaleSAM", "StepDecay",
        "Trion", "WarmupStableDecay", "merge_gradients",
    ),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "COSMOS",
    "FRUGAL",
    "LLAMBO",
    "MESA",
    "OPRO",
    "REX",
    "SAF",
    "SAM",
    "SGD",
    "SGDP",
    "SOAP",
    "SPAM",
    "SPO",
    "UCB",
    "AdaBelief",
    "AdaHessian",
    "Adafactor",
    "Adam",
    "AdamP",
    "AdamW",
    "AdaptiveBatch",
    "Beam",
    "Budget",
    "Change",
    "CosineDecay",
    "Crossover",
    "DCTAdamW",
    "EXAdam",
    "Ensemble",
    "EventLoop",
    "EvoLLM",
    "Evolve",
    "Exemplars",
    "Fira",
    "GaLore",
    "Greedy",
    "Islands",
    "LinearDecay",
    "Lion",
    "LionK",
    "LookSAM",
    "MeZO",
    "Merge",
    "Mix",
    "ModelCompares",
    "ModelJudge",
    "Muon",
    "NadamW",
    "NaturalGaLore",
    "Optimizer",
    "OptoPrime",
    "Paired",
    "Pairwise",
    "Pareto",
    "Partition",
    "Patch",
    "Person",
    "PersonCompares",
    "Processes",
    "Proposal",
    "Racing",
    "RandomSearch",
    "RandomSubspace",
    "RankDescent",
    "RayTasks",
    "RefinedDecay",
    "Reflect",
    "Rejection",
    "Rules",
    "ScheduleFreeAdamW",
    "Several",
    "Shampoo",
    "ShardedState",
    "Sophia",
    "StableSPAM",
    "StaleSAM",
    "StepDecay",
    "TextGrad",
    "Trion",
    "Update",
    "Usage",
    "WarmupStableDecay",
    "afit",
    "as_gepa_adapter",
    "by_evaluation",
    "by_judge",
    "by_majority",
    "fit",
    "merge_gradients",
    "optimize",
]


_SEARCH = "fit(..., search=...) takes"
_FORMER = {
    "FunctionOptimizer": "it is called OptoPrime",
    "OptoPrimeV1": "it is called OptoPrime",
    "OptoPrimeV2": "it is called OptoPrime; replies in tags are read as well",
    "OptoPrimeMulti": "use Several(OptoPrime(...), n=3)",
    "OptoprimeBatchOpt": "use OptoPrime; backward([(output, feedback), ...]) takes a batch",
    "OPROv2": "it is called OPRO",
    "train": "it is called fit",
    "Guide": "a guide is any guide(example, output) that gives a score, or (score, text)",
    "LLMJudge": "it is called ModelJudge",
    "DataLoader": "give a list of examples; fit(..., batch_size=...) draws the batches",
    "Minibatch": "it is what fit does",
    "MinibatchAlgorithm": "it is what fit does",
    "BasicSearchAlgorithm": "use fit(..., proposals=...)",
    "BeamSearch": f"{_SEARCH} Beam",
    "BeamsearchAlgorithm": f"{_SEARCH} Beam",
    "UCBSearchAlgorithm": f"{_SEARCH} UCB",
    "PrioritySearch": f"{_SEARCH} UCB, Beam, Pareto or Islands",
    "ParetobasedPS": f"{_SEARCH} Pareto",
    "GEPAAlgorithmBase": f"{_SEARCH} Pareto; Reflect proposes as GEPA does",
    "ObjectiveConfig": f"a guide may give a dict of scores, {_SEARCH} Pareto('objectives')",
    "batch_run": "fit(..., workers=...) runs examples side by side",
    "async_run": "afit is fit, awaited; EventLoop runs async workflows",
}
"""Names of Microsoft Trace that are not here, and what to use."""


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        from tracegraph.moved import not_here

        raise not_here(__name__, name, _FORMER[name])
    if name not in _HOME:
        from tracegraph.errors import nearest

        near = nearest(name, _HOME)
        said = f"did you mean {near!r}?" if near else "dir(optimizers) has the names"
        raise AttributeError(f"module 'optimizers' has no attribute {name!r}; {said}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
