from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.view.pictures import calm, graphs
from tracegraph.errors import PictureError
from tracegraph.view.layout import Layout, Size, layered
from tracegraph.view.net import Net
from tracegraph.view.order import _Table

_NEAR = 1e-6
sizes = st.builds(Size, st.floats(10, 300), st.floats(10, 120))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Size], list[tuple[int, int]], Layout]:
    count, arrows = draw(graphs())
    boxes = draw(st.lists(sizes, min_size=count, max_size=count))
    return boxes, arrows, layered(boxes, arrows)


Laid = tuple[list[Size], list[tuple[int, int]], Layout]


def _inside(box: Size, place: tuple[float, float], x: float, y: float) -> bool:
    return (
        place[0] + _NEAR < x < place[0] + box.width - _NEAR
        and place[1] + _NEAR < y < place[1] + box.height - _NEAR
    )


@calm
@given(layouts())
def test_no_two_boxes_overlap(laid: Laid) -> None:
    boxes, _, found = laid
    for (a, p), (b, q) in combinations(list(zip(boxes, found.places, strict=True)), 2):
        apart_x = p.x + a.width <= q.x + _NEAR or q.x + b.width <= p.x + _NEAR
        apart_y = p.y + a.height <= q.y + _NEAR or q.y + b.height <= p.y + _NEAR
        assert apart_x or apart_y


@calm
@given(layouts())
def test_every_box_and_line_lies_in_the_picture(laid: Laid) -> None:
    boxes, _, found = laid
    for box, place in zip(boxes, found.places, strict=True):
        assert place.x >= -_NEAR
        assert place.y >= -_NEAR
        assert place.x + box.width <= found.width + _NEAR
        assert place.y + box.height <= found.height + _NEAR
    for route in found.routes:
        assert all(-_NEAR <= point.x <= found.width + _NEAR for point in route)


@calm
@given(layouts())
def test_every_arrow_goes_downward_from_its_tail_to_its_head(laid: Laid) -> None:
    boxes, arrows, found = laid
    for (tail, head), route in zip(arrows, found.routes, strict=True):
        above, below = found.places[tail], found.places[head]
        assert above.y + boxes[tail].height < below.y
        start, end = route[0], route[-1]
        assert start.y == pytest.approx(above.y + boxes[tail].height)
        assert above.x - _NEAR <= start.x <= above.x + boxes[tail].width + _NEAR
        assert end.y == pytest.approx(below.y)
        assert below.x - _NEAR <= end.x <= below.x + boxes[head].width + _NEAR
        assert all(a.y <= b.y + _NEAR for a, b in pairwise(route))


@calm
@given(layouts())
def test_no_line_runs_through_a_box(laid: Laid) -> None:
    _clear(laid[0], laid[2])


def _clear(boxes: list[Size], found: Layout) -> None:
    for route in found.routes:
        for a, b in pairwise(route):
            for step in range(11):
                # The curve that leaves and enters vertically, as the SVG draws it.
                t = step / 10
                rise = b.y - a.y
                ys = (a.y, a.y + 0.55 * rise, b.y - 0.55 * rise, b.y)
                y, x = _bezier(ys, t), _bezier((a.x, a.x, b.x, b.x), t)
                assert not any(
                    _inside(box, place, x, y)
                    for box, place in zip(boxes, found.places, strict=True)
                )


def _bezier(p: tuple[float, float, float, float], t: float) -> float:
    s = 1 - t
    return p[0] * s**3 + 3 * p[1] * s * s * t + 3 * p[2] * s * t * t + p[3] * t**3


@calm
@given(layouts())
def test_the_same_input_gives_the_same_layout(laid: Laid) -> None:
    boxes, arrows, found = laid
    assert layered(list(boxes), list(arrows)) == found


@pytest.mark.parametrize("seed", range(6))
def test_no_line_runs_through_a_box_of_a_larger_picture(seed: int) -> None:
    random = Random(seed)
    boxes = [Size(random.uniform(20, 200), random.uniform(20, 90)) for _ in range(60)]
    arrows = [(random.randrange(v), v) for v in range(1, 60) for _ in range(2)]
    _clear(boxes, layered(boxes, arrows))


@calm
@given(st.integers(2, 60), st.randoms(use_true_random=False))
def test_a_tree_has_no_crossings(count: int, random: Random) -> None:
    name = list(range(count))
    random.shuffle(name)
    arrows = [(name[v], name[(v - 1) // 2]) for v in range(1, count)]
    found = layered([Size(60, 20)] * count, arrows)
    lines = [(found.places[a], found.places[b]) for a, b in arrows]
    for (a, b), (c, d) in combinations(lines, 2):
        if a.y == c.y and b.y == d.y:
            assert (a.x - c.x) * (b.x - d.x) >= 0


def test_a_chain_stands_straight() -> None:
    found = layered([Size(80, 30)] * 40, [(v, v + 1) for v in range(39)])
    assert {place.x for place in found.places} == {0.0}


def test_arrows_between_the_same_boxes_end_apart() -> None:
    found = layered([Size(90, 30)] * 2, [(0, 1), (0, 1), (0, 1)])
    assert [route[-1].x for route in found.routes] == pytest.approx([15, 45, 75])


def test_many_leaves_stand_in_several_rows() -> None:
    found = layered([Size(80, 30)] * 101, [(v, 100) for v in range(100)])
    assert len({place.y for place in found.places}) > 4
    assert found.width < 100 * 80 / 2


def test_parts_fill_shelves() -> None:
    found = layered([Size(80, 30)] * 400, [])
    assert 0.5 < found.width / found.height < 4


@pytest.mark.parametrize("arrows", [[(0, 0)], [(0, 1), (1, 2), (2, 1)]])
def test_a_cycle_is_refused(arrows: list[tuple[int, int]]) -> None:
    with pytest.raises(PictureError, match="cycle"):
        layered([Size(10, 10)] * 3, arrows)


def test_nothing_gives_an_empty_layout() -> None:
    assert layered([], []) == Layout((), (), 0.0, 0.0)


def test_a_chain_of_five_thousand_does_not_recurse() -> None:
    count = 5_000
    found = layered([Size(80, 30)] * count, [(v, v + 1) for v in range(count - 1)])
    assert found.places[-1].y > found.places[0].y


def test_lines_stay_linear_where_every_step_is_used_at_the_end() -> None:
    count = 800
    arrows = [(v, v + 1) for v in range(count - 1)] + [(v, count) for v in range(count)]
    found = layered([Size(80, 30)] * (count + 1), arrows)
    # One bend for each layer that a line passes would be over 600,000 points.
    assert sum(map(len, found.routes)) < 40 * (count + len(arrows))


def test_arrows_into_the_next_layer_share_a_rail_that_others_cross_once() -> None:
    """Two parameters, each used in every one of twenty chains of three boxes."""
    chains = range(20)
    arrows = []
    for chain in chains:
        first = 2 + 3 * chain
        arrows += [(first, first + 1), (first + 1, first + 2), (0, first + 1), (1, first + 2)]
    found = layered([Size(80, 30)] * 62, arrows)
    for parameter in (0, 1):
        mine = [r for r, (t, _) in zip(found.routes, arrows, strict=True) if t == parameter]
        heights = {a.y for route in mine for a, b in pairwise(route) if a.y == b.y}
        assert len(heights) == 1
        (rail,) = heights
        drops = {point.x for route in mine for point in route if point.y == rail}
        assert len(drops) == len(chains) + 1
        others = [r for r, (t, _) in zip(found.routes, arrows, strict=True) if t > 1]
        for route in others:  # each passes the height of the rail once, if at all
            assert sum(a.y < rail < b.y for a, b in pairwise(route)) <= 1
            assert rail not in {point.y for point in route}


def test_rails_between_two_layers_do_not_lie_on_each_other() -> None:
    arrows = [(tail, 12 + head) for tail in range(12) for head in range(9)]
    found = layered([Size(80, 30)] * 21, arrows)
    spans: dict[float, dict[int, list[float]]] = {}
    for route, (tail, _) in zip(found.routes, arrows, strict=True):
        for a, b in pairwise(route):
            if a.y == b.y:
                spans.setdefault(a.y, {}).setdefault(tail, []).extend((a.x, b.x))
    assert {tail for on in spans.values() for tail in on} == set(range(12))
    lowest = min(place.y for place in found.places[12:])
    assert all(30 < height < lowest for height in spans)
    for on in spans.values():
        ranges = sorted((min(xs), max(xs)) for xs in on.values())
        assert all(one[1] < other[0] for one, other in pairwise(ranges))


@given(st.integers(2, 24), st.floats(0.1, 1.0), st.integers(0, 10_000))
def test_what_swaps_gain_is_what_is_counted_also_between_fans(
    wide: int, dense: float, seed: int
) -> None:
    draw = Random(seed)
    net = Net([], [[] for _ in range(3)])
    rows = [[net.add(layer, 10.0) for _ in range(wide)] for layer in range(3)]
    for above, below in pairwise(rows):
        for one in above:
            for other in below:
                if draw.random() < dense:
                    net.join(one, other)
    net.rows[:] = [draw.sample(row, len(row)) for row in rows]
    table = _Table(net)
    before = table.crossings(net.rows)
    left = table.transpose(net.rows, rounds=4)
    assert left == table.crossings(net.rows) <= before
    assert [sorted(row) for row in net.rows] == rows
