"""A demonstration that needs no key: `python -m optimizers.demo`.

A help desk of two prompts and one function improves while you watch. Its model is a stand-in: a
deterministic reader behind a server on this machine. It follows only what stands in a prompt, and
learns only from what stands in a request, so what you see is the way of information and not the
wit of a model. ``--model NAME`` puts a real one in its place.
"""
