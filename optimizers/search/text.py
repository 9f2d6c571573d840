"""Variations of a text: sentences and words are dropped, swapped, doubled, cut, or put in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

__all__ = ["varied_text"]

_SENTENCE = re.compile(r".+?(?:[.!?]+(?=\s|\Z)|\n|\Z)\s*", re.DOTALL)
_Pieces = list[str]


def varied_text(text: str, random: Random, phrases: Sequence[str] = ()) -> str:
    """Another text that differs from `text` by one edit of a sentence, a word, or a phrase.

    Args:
        text: what is varied; an empty text can only receive a phrase.
        random: the source of chance.
        phrases: sentences that may be put in or take the place of one.

    >>> varied_text("Be kind. Be brief.", Random(1))
    'Be kind. Be kind. Be brief.'
    """
    sentences = _SENTENCE.findall(text)
    words = re.findall(r"\S+\s*", text)
    edits: list[Callable[[], _Pieces]] = []
    if len(sentences) > 1:
        edits += [lambda edit=edit: edit(sentences, random) for edit in _EDITS]  # type: ignore[misc]
    if len(words) > 1:
        edits += [lambda edit=edit: edit(words, random) for edit in _EDITS]  # type: ignore[misc]
    fresh = [phrase for phrase in phrases if phrase not in text]
    if fresh:
        edits += [lambda: _put_in(sentences, random, fresh)] * 4
        if sentences:
            edits += [lambda: _replace(sentences, random, fresh)] * 2
    if not edits:
        return text
    return _joined(random.choice(edits)(), text)


def _joined(pieces: _Pieces, before: str) -> str:
    """The pieces as one text with the white space at its ends as it was."""
    parts = [
        p if p[-1:].isspace() or i == len(pieces) - 1 else p + " " for i, p in enumerate(pieces)
    ]
    text = "".join(parts).strip()
    start = before[: len(before) - len(before.lstrip())]
    return start + text + before[len(before.rstrip()) :] if before.strip() else text


def _drop(pieces: _Pieces, random: Random) -> _Pieces:
    place = random.randrange(len(pieces))
    return pieces[:place] + pieces[place + 1 :]


def _swap(pieces: _Pieces, random: Random) -> _Pieces:
    first, second = random.sample(range(len(pieces)), 2)
    swapped = list(pieces)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def _double(pieces: _Pieces, random: Random) -> _Pieces:
    piece = random.choice(pieces)
    place = random.randrange(len(pieces) + 1)
    return [*pieces[:place], piece, *pieces[place:]]


def _shorten(pieces: _Pieces, random: Random) -> _Pieces:
    start = random.randrange(len(pieces))
    stop = random.randrange(start, len(pieces)) + 1
    return pieces[start:stop]


def _put_in(pieces: _Pieces, random: Random, phrases: Sequence[str]) -> _Pieces:
    place = random.randrange(len(pieces) + 1)
    return [*pieces[:place], random.choice(phrases), *pieces[place:]]


def _replace(pieces: _Pieces, random: Random, phrases: Sequence[str]) -> _Pieces:
    place = random.randrange(len(pieces))
    return [*pieces[:place], random.choice(phrases), *pieces[place + 1 :]]


_EDITS: tuple[Callable[[_Pieces, Random], _Pieces], ...] = (_drop, _swap, _double, _shorten)
