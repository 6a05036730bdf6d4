"""Tables of contexts (ITU-T T.800 tables D.1 to D.3), and where a sample's neighbours are.

What is known of a sample's eight neighbours lies in 16 bits: 0 NW, 1 NE, 2 SW, 3 SE, 4 N, 5 S, 6 W, 7 E
significant; 8 N, 9 S, 10 W, 11 E negative.
"""

from __future__ import annotations

import numpy as np


def _significance(band: int, neighbours: int) -> int:
    """Context 0 to 8 (T.800 table D.1)."""
    bits = [neighbours >> bit & 1 for bit in range(8)]
    diagonal, vertical, horizontal = sum(bits[:4]), bits[4] + bits[5], bits[6] + bits[7]
    if band == 3:
        straight = horizontal + vertical
        return (0, 3, 6, 8)[min(diagonal, 3)] + (min(straight, (2, 2, 1, 0)[min(diagonal, 3)]))
    if band == 1:
        horizontal, vertical = vertical, horizontal
    if horizontal == 2:
        return 8
    if horizontal == 1:
        return 7 if vertical else 6 if diagonal else 5
    return 2 + vertical if vertical else min(diagonal, 2)


def _sign(neighbours: int) -> int:
    """2 × context 9 to 13, + 1 where the decision is to be turned (T.800 tables D.2, D.3).

    neighbours: bits 4 to 11.
    """

    def contribution(first: int, second: int) -> int:
        each = ((1 - 2 * (neighbours >> bit + 4 & 1)) * (neighbours >> bit & 1) for bit in (first, second))
        return max(-1, min(1, sum(each)))

    vertical, horizontal = contribution(0, 1), contribution(2, 3)
    turned = horizontal < 0 or (horizontal == 0 and vertical < 0)
    if turned:
        horizontal, vertical = -horizontal, -vertical
    return 2 * (12 + vertical if horizontal else 9 + vertical) + turned


SIGNIFICANCE = np.array([_significance(b, n) for b in range(4) for n in range(256)], np.uint8)
"""By 256 × sub-band (0 LL, 1 HL, 2 LH, 3 HH) + bits 0 to 7."""
SIGN = np.array([_sign(n) for n in range(256)], np.uint8)
"""By bits 4 to 11: twice the context, + 1 where the decision is to be turned."""


def _around(*offsets: int) -> int:
    """A pattern of bits around a sample, from five before it on."""
    return sum(1 << (offset + 5) for offset in offsets)


AROUND = np.array(
    [
        [_around(-4, -3, 1, 4, 5), 0b1_0001_0001],
        [_around(-5, -4, -3, -1, 1, 3, 4, 5), 0],
        [_around(-5, -4, -3, -1, 1, 3, 4, 5), 0],
        [_around(-5, -4, -1, 3, 4), 0b1_0001_0001],
    ],
    np.uint64,
)
"""Per row of a stripe of four: neighbours in it, from five positions before the sample on; neighbours in the
stripe above or below, from the first of them on. Positions count down a column, then down the next."""
