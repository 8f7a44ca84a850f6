"""Curves of benchmarks as SVG: well formed, every point inside the picture and above the one that is smaller."""

import re
from xml.etree import ElementTree

import pytest

from benchmarks.svg import Curve, draw

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*curves: Curve) -> ElementTree.Element:
    return ElementTree.fromstring(draw("polls <per> second", "clients", "/s", curves))  # noqa: S314 - our own


def test_larger_values_lie_higher_and_larger_places_further_right() -> None:
    (line,) = drawn(Curve("ours", ((1, 10), (32, 20), (500, 200)))).iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert all(0 <= x <= 640 and 0 <= y <= 320 for x, y in points)


def test_texts_are_escaped_and_every_curve_is_named() -> None:
    texts = [text.text for text in drawn(Curve("a & b", ((1, 1),)), Curve("bare", ((1, 2),), True)).iter(f"{SVG}text")]
    assert {"polls <per> second", "a & b", "bare"} <= set(texts)


def test_ticks_reach_beyond_the_highest_value() -> None:
    texts = [text.text or "" for text in drawn(Curve("ours", ((1, 0.0), (10, 1430.0)))).iter(f"{SVG}text")]
    assert [text for text in texts if re.fullmatch(r"[\d.]+ k", text)] == ["1 k", "1.5 k"]


def test_one_place_and_only_zeros_can_be_drawn() -> None:
    assert len(list(drawn(Curve("ours", ((5, 0.0),))).iter(f"{SVG}circle"))) == 1


def test_nothing_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="needs a point"):
        draw("x", "y", "z", [Curve("none", ())])
