"""SVG pictures, drawn by hand: lines of backlog and agents over time, and waits against costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from tests.benchmarks.scaling.records import Sample

Point = tuple[float, float]

# Paul Tol's bright scheme and two more, told apart by colour-blind readers too; ours is the thick black one.
COLOURS = {
    "ours": "#000000", "KEDA": "#4477aa", "Knative": "#ee6677", "Celery": "#228833", "Ray Serve": "#aa3377",
    "step rule": "#ccbb44", "Judoscale": "#66ccee", "oracle": "#999999",
}  # fmt: skip
_WIDTH, _PANEL, _LEFT, _TOP, _GAP, _LEGEND = 900.0, 210.0, 60.0, 40.0, 45.0, 130.0


def timeline(title: str, samples: Mapping[str, Sequence[Sample]]) -> str:
    """Return two panels over time: jobs waiting or in work, and agents alive."""
    panels = [
        (
            "jobs waiting and in work",
            {name: [(s.at, float(s.backlog)) for s in found] for name, found in samples.items()},
        ),
        (
            "agents, starting and draining included",
            {n: [(s.at, float(s.agents)) for s in f] for n, f in samples.items()},
        ),
    ]
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [_open(title, height)]
    for number, (label, lines) in enumerate(panels):
        parts.append(_panel(label, lines, _TOP + number * (_PANEL + _GAP)))
    parts.append(_legend(list(samples)))
    return "".join(parts) + "</svg>\n"


def _open(title: str, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT:g}" y="22" font-size="15">{escape(title)}</text>\n'
    )


def _panel(label: str, lines: Mapping[str, Sequence[Point]], top: float) -> str:
    right = _WIDTH - _LEGEND
    last = max(x for points in lines.values() for x, _ in points)
    highest = max(1.0, max(y for points in lines.values() for _, y in points))

    def place(point: Point) -> str:
        x = _LEFT + (right - _LEFT) * point[0] / last
        return f"{x:.1f},{top + _PANEL * (1 - point[1] / highest):.1f}"

    parts = [_frame(label, right, top)]
    parts += [
        f'<text x="{_LEFT - 6:g}" y="{top + _PANEL * (1 - share) + 4:g}" text-anchor="end">{highest * share:g}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    step = _round_step(last)
    parts += [
        f'<text x="{_LEFT + (right - _LEFT) * at / last:g}" y="{top + _PANEL + 15:g}" text-anchor="middle">'
        f"{at / 60:g} min</text>"
        for at in _multiples(step, last)
    ]
    for name, points in lines.items():
        path = " ".join(place(point) for point in _corners(points))
        width = 2.5 if name == "ours" else 1.3
        parts.append(f'<polyline fill="none" stroke="{COLOURS[name]}" stroke-width="{width}" points="{path}"/>\n')
    return "".join(parts)


def _frame(label: str, right: float, top: float) -> str:
    return (
        f'<text x="{_LEFT:g}" y="{top - 4:g}" fill="#555555">{escape(label)}</text>'
        f'<rect x="{_LEFT:g}" y="{top:g}" width="{right - _LEFT:g}" height="{_PANEL:g}" fill="none" '
        f'stroke="#cccccc"/>\n'
    )


def _corners(points: Sequence[Point]) -> list[Point]:
    """Return ``points`` as steps, without those that lie within a level stretch."""
    found: list[Point] = []
    for at, value in points:
        if found and found[-1][1] == value and len(found) > 1 and found[-2][1] == value:
            found[-1] = (at, value)
            continue
        if found and found[-1][1] != value:
            found.append((at, found[-1][1]))
        found.append((at, value))
    return found


def _round_step(last: float) -> float:
    return next(step for step in (60.0, 300.0, 600.0, 1200.0, 3600.0) if last / step <= 9 or step == 3600.0)


def _multiples(step: float, last: float) -> list[float]:
    return [step * number for number in range(int(last / step) + 1)]


def _legend(names: Sequence[str]) -> str:
    left = _WIDTH - _LEGEND + 15
    return "".join(
        f'<rect x="{left:g}" y="{_TOP + 20 * number:g}" width="14" height="4" fill="{COLOURS[name]}"/>'
        f'<text x="{left + 20:g}" y="{_TOP + 20 * number + 7:g}">{escape(name)}</text>\n'
        for number, name in enumerate(names)
    )


def scatter(title: str, panels: Mapping[str, Mapping[str, Sequence[Point]]]) -> str:
    """Return one panel for each start time: (agent-hours as a share of KEDA's, p95 wait) of each load, by scaler.

    Both axes are logarithmic; waits below 0.1 s are drawn at 0.1 s.
    """
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [_open(title, height)]
    names = list(next(iter(panels.values())))
    for number, (label, points) in enumerate(panels.items()):
        parts.append(_cloud(label, points, _TOP + number * (_PANEL + _GAP)))
    return "".join(parts) + _legend(names) + "</svg>\n"


def _cloud(label: str, clouds: Mapping[str, Sequence[Point]], top: float) -> str:
    right, least, most = _WIDTH - _LEGEND, (0.05, 0.1), (5.0, 10_000.0)

    def at(value: float, axis: int) -> float:
        inside = min(max(value, least[axis]), most[axis])
        return math.log(inside / least[axis]) / math.log(most[axis] / least[axis])

    parts = [_frame(label, right, top)]
    parts += [
        f'<text x="{_LEFT + (right - _LEFT) * at(x, 0):.1f}" y="{top + _PANEL + 15:g}" text-anchor="middle">'
        f"{x:.0%}</text>"
        for x in (0.1, 0.25, 0.5, 0.8, 1.0, 2.0, 4.0)
    ]
    parts += [
        f'<text x="{_LEFT - 6:g}" y="{top + _PANEL * (1 - at(y, 1)) + 4:.1f}" text-anchor="end">{y:g} s</text>'
        for y in (0.1, 1.0, 10.0, 100.0, 1000.0)
    ]
    limit = _LEFT + (right - _LEFT) * at(0.8, 0)
    parts.append(f'<line x1="{limit:.1f}" y1="{top:g}" x2="{limit:.1f}" y2="{top + _PANEL:g}" stroke="#dddddd"/>\n')
    for name, points in clouds.items():
        for x, y in points:
            cx, cy = _LEFT + (right - _LEFT) * at(x, 0), top + _PANEL * (1 - at(y, 1))
            parts.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{5 if name == "ours" else 4}" fill="{COLOURS[name]}" '
                f'fill-opacity="0.75"/>\n'
            )
    return "".join(parts)
