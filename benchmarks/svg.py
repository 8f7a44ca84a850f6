"""Curves as SVG, by hand: a few lines over a logarithmic axis, legible on a light page and on a dark one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 40, 48
_INK = "#7a7f87"
"""Text and axes: at least 4 to 1 in contrast on white as on the site's dark ground."""
_COLOURS = ("#2f81c7", "#d2691e", "#2e9b57", "#a45bb8", "#b8860b", "#c2405a")


@dataclass(frozen=True)
class Curve:
    """Points from left to right, with positive places and values that are not negative."""

    name: str
    points: tuple[tuple[float, float], ...]
    is_dashed: bool = False
    """As a yardstick is."""


def draw(title: str, along: str, unit: str, curves: Sequence[Curve]) -> str:
    """The picture. Raises `ValueError` without a point."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        raise ValueError("a picture needs a point")
    places = sorted({place for place, _ in points})
    ticks = _ticks(max(value for _, value in points))

    def x(place: float) -> float:
        span = math.log(places[-1] / places[0]) or 1
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(place / places[0]) / span

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / ticks[-1]

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' font-family="sans-serif" font-size="12" fill="{_INK}">',
        f"<title>{escape(title)}</title>",
        _text(_LEFT, 18, title, size=14),
        _text(_WIDTH / 2, _HEIGHT - 10, along, anchor="middle"),
        _text(_LEFT - 8, _TOP - 8, unit, anchor="end"),
    ]
    for tick in ticks:
        lines.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), opacity=0.3))
        lines.append(_text(_LEFT - 8, y(tick) + 4, _short(tick), anchor="end"))
    lines += [_text(x(place), _HEIGHT - _BOTTOM + 18, _short(place), anchor="middle") for place in places]
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = ' stroke-dasharray="5 4"' if curve.is_dashed else ""
        path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in curve.points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        lines += [f'<circle cx="{x(p):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>' for p, v in curve.points]
        lines.append(_text(_LEFT + 8, _TOP + 14 + 15 * number, curve.name, colour=colour))
    return "\n".join([*lines, "</svg>", ""])


def _ticks(highest: float) -> list[float]:
    """Four to six round values from 0 to at least the highest."""
    if highest <= 0:
        return [0, 1]
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _short(value: float) -> str:
    for size, sign in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{sign}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = _INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, *, opacity: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_INK}" stroke-opacity="{opacity}"/>'
