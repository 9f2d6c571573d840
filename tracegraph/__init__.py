"""Record a workflow as a graph, and send feedback back through it."""
