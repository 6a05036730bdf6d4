"""Inline SVG charts for report.html, made without JavaScript or a plotting library.

In:  labelled numbers.
Out: Markup; colours and fonts come from the page's style sheet by class, so they follow light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 400
_ROW = 34
_PLOT_ROWS = 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 36


@dataclass(frozen=True, slots=True)
class Bar:
    """One labelled amount; `text` is shown instead of the bare number."""

    label: str
    value: float
    text: str = ""
    tone: str = "a"
    """Colour class: a…f, or good, bad, dull."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a bubble chart with how many inputs are there."""

    x: float
    y: float
    count: int


def bars(items: Sequence[Bar]) -> Markup:
    """Horizontal bars, one to a line: label and amount above, bar below."""
    top = max((item.value for item in items), default=0) or 1
    body = Markup("").join(_bar(index, item, top) for index, item in enumerate(items))
    return _svg(max(1, len(items)) * _ROW, body, f"{len(items)} bars")


def _bar(index: int, item: Bar, top: float) -> Markup:
    y = index * _ROW
    length = max(2.0, item.value / top * WIDTH) if item.value else 0.0
    return Markup(
        '<text x="0" y="{y}" class="label">{label}</text>'
        '<text x="{w}" y="{y}" class="amount" text-anchor="end">{text}</text>'
        '<rect x="0" y="{track}" width="{w}" height="7" rx="3.5" class="track"/>'
        '<rect x="0" y="{track}" width="{length:.1f}" height="7" rx="3.5" class="fill-{tone}"/>'
    ).format(
        y=y + 13, label=clip(item.label, 46), w=WIDTH, text=item.text or number(item.value),
        track=y + 19, length=length, tone=item.tone,
    )  # fmt: skip


def stacked(parts: Sequence[Bar], height: int = 14) -> Markup:
    """One bar made of the parts, each with a tooltip."""
    total = sum(part.value for part in parts) or 1
    body, x = Markup(""), 0.0
    for part in parts:
        length = part.value / total * WIDTH
        body += Markup(
            '<rect x="{x:.2f}" y="0" width="{length:.2f}" height="{h}" class="fill-{tone}">'
            "<title>{label}: {text}</title></rect>"
        ).format(x=x, length=length, h=height, tone=part.tone, label=part.label, text=part.text)
        x += length
    return _svg(height, body, ", ".join(f"{part.label} {part.text}" for part in parts), stretch=True)


def area(values: Sequence[float], x_low: float, x_high: float, labels: tuple[str, str]) -> Markup:
    """A histogram over [x_low, x_high] as a filled outline; bins as shares of the whole, spikes cut off.

    `labels` are those of the horizontal and the vertical axis. What is cut is told by `cut_off`.
    """
    shares, top = _shares(values)
    plot = _Plot(x_low, x_high, 0.0, top)
    step = (x_high - x_low) / max(1, len(shares))
    corners = [(x_low, 0.0)]
    for index, share in enumerate(shares):
        height = min(share, top)
        corners += [(x_low + index * step, height), (x_low + (index + 1) * step, height)]
    corners.append((x_high, 0.0))
    points = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in corners)
    body = Markup('<polygon points="{}" class="area"/>').format(points)
    return plot.draw(body, *labels, percent=True)


def cut_off(values: Sequence[float]) -> tuple[int, float]:
    """How many bins `area` cuts off, and the largest share among them."""
    shares, top = _shares(values)
    cut = [share for share in shares if share > top]
    return len(cut), max(cut, default=0.0)


def _shares(values: Sequence[float]) -> tuple[list[float], float]:
    """Shares, and the top of the axis, which a few bins far above all others (background) do not set."""
    total = sum(values) or 1
    shares = [value / total for value in values]
    ordered = sorted(shares)
    usual = ordered[-1 - len(ordered) // 32] if ordered else 0.0
    largest = ordered[-1] if ordered else 1.0
    return shares, (usual * 1.25 if 0 < usual * 3 < largest else largest) or 1.0


def bubbles(points: Sequence[Point], x_label: str, y_label: str) -> Markup:
    """Places as circles whose area grows with their count; rarest drawn last."""
    if not points:
        return Markup("")
    x_low, x_high = _padded([point.x for point in points])
    y_low, y_high = _padded([point.y for point in points])
    plot = _Plot(x_low, x_high, y_low, y_high)
    most = max(point.count for point in points)
    body = Markup("")
    for point in sorted(points, key=lambda point: (-point.count, point.x, point.y)):
        body += Markup(
            '<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" class="bubble">'
            "<title>{xv} × {yv}: {count}</title></circle>"
        ).format(
            x=plot.x(point.x), y=plot.y(point.y), r=3.5 + 14 * math.sqrt(point.count / most),
            xv=number(point.x), yv=number(point.y), count=point.count,
        )  # fmt: skip
    return plot.draw(body, x_label, y_label)


@dataclass(frozen=True, slots=True)
class _Plot:
    """Linear axes over a fixed drawing area."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Horizontal place of a value in drawing units."""
        span = (self.x_high - self.x_low) or 1.0
        return _LEFT + (value - self.x_low) / span * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Vertical place of a value in drawing units."""
        span = (self.y_high - self.y_low) or 1.0
        return _TOP + _PLOT_ROWS - (value - self.y_low) / span * _PLOT_ROWS

    def draw(self, body: Markup, x_label: str, y_label: str, *, percent: bool = False) -> Markup:
        """The axes with their labels, and the body between them."""
        grid = Markup("")
        for tick in ticks(self.y_low, self.y_high):
            text = f"{tick * 100:.3g} %" if percent else number(tick)
            grid += Markup(
                '<line x1="{a}" x2="{b}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                '<text x="{t}" y="{ty:.1f}" class="tick" text-anchor="end">{text}</text>'
            ).format(a=_LEFT, b=WIDTH - _RIGHT, y=self.y(tick), t=_LEFT - 6, ty=self.y(tick) + 4, text=text)
        bottom = _TOP + _PLOT_ROWS
        for tick in ticks(self.x_low, self.x_high):
            grid += Markup(
                '<text x="{x:.1f}" y="{y}" class="tick" text-anchor="middle">{text}</text>'
            ).format(x=self.x(tick), y=bottom + 15, text=number(tick))
        words = Markup(
            '<text x="{x}" y="{y}" class="axis" text-anchor="end">{xl}</text>'
            '<text x="{left}" y="{top}" class="axis">{yl}</text>'
        ).format(x=WIDTH - _RIGHT, y=bottom + 31, xl=x_label, left=_LEFT, top=12, yl=y_label)
        return _svg(bottom + _BOTTOM, grid + body + words, f"{y_label} by {x_label}")


def ticks(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    """Round numbers inside [low, high], about `wanted` of them, apart by 1, 2 or 5 times a power of ten."""
    if not high > low:
        return (low,)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(index * step for index in range(first, last + 1))


def number(value: float) -> str:
    """A number as a person writes it: thousands apart, no superfluous digits."""
    if value == int(value):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.3g}" if abs(value) < 1000 else number(round(value))


def clip(text: str, length: int) -> str:
    """The text, cut with an ellipsis if it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or max(abs(high) * 0.2, 1.0)
    start = low - margin
    return (0.0 if low >= 0 > start else start), high + margin


def _svg(height: float, body: Markup, title: str, *, stretch: bool = False) -> Markup:
    fit = Markup(' preserveAspectRatio="none"') if stretch else Markup("")
    return Markup('<svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}"{fit}>{body}</svg>').format(
        w=WIDTH, h=height, title=escape(title), fit=fit, body=body
    )
