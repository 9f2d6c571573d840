"""What is drawn: boxes and arrows whose words are already text.

A picture knows nothing of nodes. It is a value: frozen, compared by what it says, built by hand
in a test as easily as from a graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from tracegraph.errors import PictureError

__all__ = ["Arrow", "Box", "Picture", "Role"]

Role = Literal["parameter", "input", "operation", "output", "failure"]
_ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing in a picture.

    `key` is unique within the picture. `title` is its name or operation; `lines` stand below (a
    type, a value). `kind` is the badge of a parameter ("text", "number", "code"). `feedback` is
    what arrived here, as text; `on_path` says that feedback passed through. `tooltip` may be
    long. `hidden` marks what was used inside a call and not passed to it. `inside` is the picture
    of what this box stands for, where it stands for several: its boxes have keys of their own.

    >>> Box(key=1, title="prompt", lines=("'Answer.'",), role="parameter", kind="text").role
    'parameter'
    """

    key: int
    title: str
    lines: tuple[str, ...] = ()
    role: Role = "operation"
    kind: str = ""
    feedback: str = ""
    on_path: bool = False
    tooltip: str = ""
    hidden: bool = False
    inside: Picture | None = None

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise PictureError(
                f"box {self.key} has role {self.role!r}, which cannot be drawn; use one of "
                f"{', '.join(_ROLES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """From the box with key `tail` to the box with key `head`, which uses it as argument `label`.

    `on_path` says that feedback went back along it; `captured` that it was read, not passed.
    There may be several arrows between the same two boxes.
    """

    tail: int
    head: int
    label: str = ""
    on_path: bool = False
    captured: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes, the arrows between them, and a title.

    `words` says what roles, and the "way" of feedback, are called here, where it is something else.

    Raises `PictureError` where two boxes share a key or an arrow's end is not a box.

    >>> both = (Box(key=1, title="prompt"), Box(key=2, title="answer", role="output"))
    >>> Picture(both, (Arrow(tail=1, head=2, label="prompt"),), "one step").title
    'one step'
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...] = ()
    title: str = ""
    words: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        counts = Counter(box.key for box in self.boxes)
        for key, count in counts.items():
            if count > 1:
                raise PictureError(
                    f"{count} boxes have the key {key}; an arrow could mean each of them: give "
                    "every box its own key"
                )
        for arrow in self.arrows:
            for end, key in (("starts", arrow.tail), ("ends", arrow.head)):
                if key not in counts:
                    raise PictureError(
                        f"the arrow {arrow.tail} -> {arrow.head} {end} at {key}, which is no box "
                        "of this picture; add the box or leave the arrow out"
                    )

    def whole(self) -> Iterator[Picture]:
        """This picture, and all pictures inside its boxes, from the outside in."""
        waiting: list[Picture] = [self]
        for picture in waiting:
            yield picture
            waiting += [box.inside for box in picture.boxes if box.inside is not None]

    def indexed(self) -> list[tuple[int, int]]:
        """Each arrow as (tail, head), counted from 0 in the order of `boxes`."""
        at = {box.key: index for index, box in enumerate(self.boxes)}
        return [(at[arrow.tail], at[arrow.head]) for arrow in self.arrows]
