"""Patch: change long texts and code by search-and-replace blocks, not by writing them anew.

The form of the blocks is that of merge conflicts, as coding assistants and Novikov et al., "AlphaEvolve",
2025 (arXiv 2506.13131), section 2.3, use it. A block applies only where its search text stands exactly once;
anything else is refused with the reason, and nothing is changed.
"""

from __future__ import annotations

import re
from typing import Any, final

from optimizers.llm.asking import ModelOptimizer
from optimizers.llm.memory import facts_of
from optimizers.llm.reply import ReadReply
from tracegraph.errors import UnreadableReply
from tracegraph.llm import Message, Reply
from tracegraph.problem import Problem

__all__ = ["Patch", "patched"]

_SYSTEM = """\
You improve a workflow by changing its variables, a few lines at a time. A problem has sections: #Code are
the operations that ran; #Variables is what you may change; #Feedback is what was said of the outputs;
#Past was said before and is still true; #Rejected was refused, with the reason.
Say in a few sentences what to change, then write blocks of this form, one for each change:
name of the variable
<<<<<<< SEARCH
lines that stand in its present value exactly once
=======
lines that take their place
>>>>>>> REPLACE
An empty search text adds lines at the end. Write no block when nothing should change."""

_BLOCK = re.compile(
    r"^[`*# ]*(?P<name>[\w.\[\]']+)[`*:]*[ \t]*\n(?:```\w*\n)?<{5,9} ?SEARCH[ \t]*\n"
    r"(?P<search>.*?)^={5,9}[ \t]*\n(?P<replace>.*?)^>{5,9} ?REPLACE",
    re.M | re.S,
)


@final
class Patch(ModelOptimizer):
    """Asks for search-and-replace blocks; for long prompts and code.

    >>> import tracegraph as tg
    >>> from tracegraph.llm import Scripted
    >>> text = tg.node("one\\ntwo\\nthree\\n", trainable=True, name="text")
    >>> block = "text\\n<<<<<<< SEARCH\\ntwo\\n=======\\n2\\n>>>>>>> REPLACE\\n"
    >>> patch = Patch([text], llm=Scripted(["Use a digit.\\n" + block]))
    >>> _ = patch.backward(text.upper(), "Write two as a digit.")
    >>> _ = patch.step()
    >>> text.data
    'one\\n2\\nthree\\n'
    """

    def schema(self, problem: Problem) -> Any:
        """None: the reply is blocks of text."""
        return None

    def messages(self, problem: Problem, mask: tuple[str, ...]) -> list[Message]:
        """The system's words, and the problem with past facts and with what was refused."""
        parts = [problem.text(mask)]
        if self.rejected:
            parts.append("#Rejected\n" + "\n".join(f"{r.name}: {r.reason}" for r in self.rejected))
        room = self.budget * 4 - len(_SYSTEM) - sum(map(len, parts)) - 20
        past = self.memory.lines(room=room, without=facts_of(problem))
        if past:
            parts.append("#Past\n" + "\n".join(past))
        return [Message("system", _SYSTEM), Message("user", "\n\n".join(parts))]

    def read(self, reply: Reply) -> ReadReply:
        """The values with all blocks of the reply applied, in their order."""
        if not reply.text.strip():
            raise self._unreadable(reply, "the reply is empty")
        found = list(_BLOCK.finditer(reply.text))
        if not found and "SEARCH" in reply.text:
            raise self._unreadable(
                reply, "it holds no whole block (name, SEARCH, =======, REPLACE)"
            )
        values: dict[str, str] = {}
        for block in found:
            parameter = self.named_parameters.get(block["name"])
            if parameter is None or parameter.kind.name not in ("text", "code"):
                raise self._unreadable(reply, f"{block['name']!r} is no text or code to change")
            before = values.get(block["name"], parameter.data)
            try:
                values[block["name"]] = patched(before, block["search"], block["replace"])
            except ValueError as error:
                raise self._unreadable(reply, f"{block['name']}: {error}") from error
        reasoning = reply.text[: found[0].start()].strip() if found else reply.text.strip()
        return ReadReply(reasoning, None, dict(values))

    def _unreadable(self, reply: Reply, reason: str) -> UnreadableReply:
        return UnreadableReply(reply=reply.text[:1_000], reason=reason)


def patched(text: str, search: str, replace: str) -> str:
    """`text` with the one place that reads `search` replaced; whole lines end alike.

    Raises:
        ValueError: `search` stands nowhere in the text, or more than once.

    >>> patched("a = 1\\nb = 2", "b = 2\\n", "b = 3\\n")
    'a = 1\\nb = 3'
    """
    if not search.strip():
        return text + ("" if text.endswith("\n") or not text else "\n") + replace
    if text.count(search) == 0 and search.endswith("\n"):
        search, replace = search[:-1], replace.removesuffix("\n")
    times = text.count(search)
    if times != 1:
        shown = search if len(search) <= 120 else search[:120] + "..."
        what = "does not stand in it" if not times else f"stands in it {times} times, not once"
        raise ValueError(f"the search text {shown!r} {what}")
    return text.replace(search, replace)
