"""Tell what a model says from what it thinks aloud.

Models that reason write their thoughts before the answer, between tags, and some servers leave these in the
reply. A draft in them is no answer.
"""

from __future__ import annotations

import re

__all__ = ["spoken"]

_THOUGHT = re.compile(r"\s*<(think|thinking|thought)>.*?(?:</\1>\s*|\Z)", re.I | re.S)
_ENDS = re.compile(r"</(?:think|thinking|thought)>[ \t]*(?:\n\s*|\Z)", re.I)
_BEGINS_A_VALUE = re.compile(r"<(?:think|thinking|thought|value)>|^<{5}", re.I | re.M)


def spoken(text: str) -> str:
    """A reply without the thoughts before the answer; empty where thoughts are all there is.

    Some servers leave out the opening tag. Then a closing one at the end of a line ends the thoughts.

    >>> spoken("<think>Perhaps {'x': 1}?</think> {'x': 2}")
    "{'x': 2}"
    >>> spoken("<think>No end")
    ''
    >>> spoken("Perhaps 1.\\n</think>\\n\\n2"), spoken('{"say": "</think>"}')
    ('2', '{"say": "</think>"}')
    """
    begin = 0
    while (thought := _THOUGHT.match(text, begin)) is not None:
        begin = thought.end()
    ends = _ENDS.search(text, begin)
    if ends is not None and not _BEGINS_A_VALUE.search(text, begin, ends.start()):
        begin = ends.end()
    return text[begin:]
