"""Bars as SVG, without a plotting library: text that diffs, the same bytes for the same figures.

In:  a title, names with values.
Out: an SVG document that reads on light and dark backgrounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10

_NAMES, _BARS, _ROW, _TOP = 300, 380, 26, 44
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600;font-size:15px}.b{fill:#8aa4c8}"
    ".o{fill:#c2571a}.g{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{fill:#0d1117}}"
)
_OURS = ("bcd-prep", "reached")


def bars(title: str, values: Sequence[tuple[str, float]], *, logarithmic: bool = False) -> str:
    """Horizontal bars with their values; ours in another colour. Empty values give an empty plot."""
    width, height = _NAMES + _BARS + 100, _TOP + _ROW * len(values) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="g" width="{width}" height="{height}"/>',
        f'<text class="t" x="12" y="26">{escape(title)}</text>',
    ]
    for row, (name, value) in enumerate(values):
        lines.append(_bar(row, name, value, _length(value, [v for _, v in values], logarithmic)))
    return "\n".join((*lines, "</svg>", ""))


def _bar(row: int, name: str, value: float, length: float) -> str:
    top = _TOP + row * _ROW
    kind = "o" if name in _OURS else "b"
    return (
        f'<text x="{_NAMES - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{_NAMES}" y="{top}" width="{length:.1f}" height="{_ROW - 6}"/>'
        f'<text x="{_NAMES + length + 6:.1f}" y="{top + 15}">{number(value)}</text>'
    )


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _length(value: float, values: Sequence[float], logarithmic: bool) -> float:
    if not logarithmic:
        return _BARS * value / max(values)
    low, high = log10(min(values)) - 0.3, log10(max(values))
    return _BARS * (log10(value) - low) / (high - low)
