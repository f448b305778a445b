"""Line charts as SVG text.

Knows: axes, ticks, lines and a legend. Must not know: what is measured. Deterministic: the same points give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 50, 60
# Told apart by people who do not tell red from green (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def chart(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """A chart of at least one line with at least one point. Both axes begin at 0 and are linear."""
    points = [p for line in lines.values() for p in line]
    if not points:
        raise ValueError("nothing to draw")
    x_ticks = ticks(max(x for x, _ in points))
    y_ticks = ticks(max(y for _, y in points))

    def x_at(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / x_ticks[-1]

    def y_at(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / y_ticks[-1]

    size = f'width="{WIDTH}" height="{HEIGHT}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect {size} fill="#ffffff"/>',
        _text(LEFT, 26, title, size=16),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, across, anchor="middle"),
        _text(14, TOP - 12, up),
    ]
    for tick in y_ticks:
        at = y_at(tick)
        out.append(_line(LEFT, at, WIDTH - RIGHT, at, "#000000" if tick == 0 else "#dddddd"))
        out.append(_text(LEFT - 8, at + 4, f"{tick:,g}", anchor="end"))
    for tick in x_ticks:
        at = x_at(tick)
        out.append(_line(at, HEIGHT - BOTTOM, at, HEIGHT - BOTTOM + 5, "#000000"))
        out.append(_text(at, HEIGHT - BOTTOM + 20, f"{tick:,g}", anchor="middle"))
    for n, (name, line) in enumerate(lines.items()):
        colour = COLOURS[n % len(COLOURS)]
        places = [(x_at(x), y_at(y)) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
        beside = TOP + 10 + 20 * n
        out.append(_line(WIDTH - RIGHT + 16, beside, WIDTH - RIGHT + 36, beside, colour, width=3))
        out.append(_text(WIDTH - RIGHT + 42, beside + 4, name))
    return "\n".join([*out, "</svg>"]) + "\n"


def ticks(most: float) -> list[float]:
    """From 0 to at least `most`, four to ten steps of 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** floor(log10(most))
    step = next(s for s in (power / 10, power / 5, power / 2, power, power * 2) if most / s <= 6)
    number = int(-(-most // step))
    return [round(step * n, 12) for n in range(number + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {where}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {where} stroke="{colour}" stroke-width="{width}"/>'
