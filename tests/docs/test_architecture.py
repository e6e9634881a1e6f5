"""The pictures of docs/architecture.md: every room and file is drawn, and no arrow is lost or runs back."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tests.docs.architecture import WINGS, direct, levels, place, request_picture, rooms_picture, ways
from tests.test_architecture import ALLOWED

ARROWS = {name: set(targets) for name, targets in ALLOWED.items()}
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_every_room_with_an_arrow_is_drawn():
    linked = {name for name in ARROWS if ARROWS[name]} | set().union(*ARROWS.values())
    shown = [place(name).partition("/")[2] or place(name) for name in linked]
    assert sorted(texts(rooms_picture())) == sorted([*shown, *WINGS])


def test_an_arrow_is_left_out_where_a_chain_of_others_leads_there():
    assert direct({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_what_a_room_can_reach_stays_the_same():
    def reached(arrows: dict[str, set[str]], name: str) -> set[str]:
        return arrows[name].union(*(reached(arrows, target) for target in arrows[name]))

    reduced = direct(ARROWS)
    assert all(reached(reduced, name) == reached(ARROWS, name) for name in ARROWS)


def test_a_room_stands_above_every_room_that_it_imports():
    level = levels(ARROWS)
    assert all(level[name] > level[target] for name, targets in ARROWS.items() for target in targets)


def test_no_two_boxes_of_a_picture_overlap():
    boxes = re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)" rx', rooms_picture())
    assert boxes
    placed = [tuple(map(int, box)) for box in boxes]
    for i, (x, y, width, height) in enumerate(placed):
        for u, v, wide, high in placed[i + 1 :]:
            assert x + width <= u or u + wide <= x or y + height <= v or v + high <= y


def test_the_files_of_a_request_are_drawn_in_their_order():
    files = ["service.engine.runtime.graph", "service.plan", "service.engine.runtime.cuda"]
    drawn = texts(request_picture(files))
    assert drawn == ["engine", "runtime", "plan", "1", "graph", "2", "plan", "3", "cuda"]


@pytest.mark.parametrize("room", ["service.http", "service.engine.batching", "service.engine.runtime"])
def test_a_request_passes_the_connection_the_batcher_and_the_graph(room: str):
    for files in ways().values():
        assert any(name.startswith(f"{room}.") for name in files)
