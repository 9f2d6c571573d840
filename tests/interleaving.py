"""Let another thread in at the very moment that matters, so that a race is lost always or never."""

import threading

__all__ = ["Once", "elsewhere"]


def elsewhere(task):
    """What `task` gives in another thread, waited for."""
    given = []

    def run():
        given.append(task())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert given, "the other thread failed, or is kept waiting"
    return given[0]


class Once:
    """Runs `task` in another thread the first time that it is called."""

    def __init__(self, task=lambda: None):
        self.task = task
        self.done = False

    def __call__(self):
        if not self.done:
            self.done = True
            elsewhere(self.task)
