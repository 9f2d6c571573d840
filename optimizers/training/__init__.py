"""Turn single steps into reliable improvement: minibatches, evaluation, acceptance, resume."""
