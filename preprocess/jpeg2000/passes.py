"""The three coding passes over a bit-plane of a code-block (ITU-T T.800 D.3).

In:  the arithmetic decoder's state, what is known of the code-block's samples so far, the plane's number.
Out: the same, one pass later.

Samples are numbered in the order in which passes go through them: down four rows, then the next column; one
column of none stands at each stripe's end, one stripe of none before and behind. So a bitmap of 64-bit words
holds what is known of 16 columns, and a pass finds what is next to decide by counting zeros: it never looks
at a sample that it does not decide. What a sample's neighbours say lies in 16 bits of its own (contexts.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import uint16, uint32, uint64

from preprocess.compiled import compiled, trailing_zeros
from preprocess.jpeg2000.contexts import AROUND, SIGN, SIGNIFICANCE
from preprocess.jpeg2000.mq import RUN, UNIFORM, States, Words, decided, guessed

Bitmaps = npt.NDArray[np.uint64]
Neighbours = npt.NDArray[np.uint16]
Magnitudes = npt.NDArray[np.uint32]
"""By position from the first sample's on; bit 31 negative, bit 0 half of what plane 0 is worth."""
Coder = tuple[int, int, int, int]
"""Interval, code, valid bits, next word: as `decided` has them."""
Span = tuple[int, int, int]
"""First word of a code-block's bitmaps, the one behind the last, positions in a stripe."""

SIGNIFICANT, BESIDE, VISITED, REFINED, REAL = range(5)
"""Bitmaps: not zero so far; beside such a sample; decided in this plane's first pass; refined before; a
sample at all."""

_ANY = uint64(0xFF)
_ZERO, _ONE, _THREE, _FOUR, _FIVE, _SIX, _FIFTEEN, _SIXTY_THREE = (
    uint64(n) for n in (0, 1, 3, 4, 5, 6, 15, 63)
)
_ALL = uint64(0xFFFF_FFFF_FFFF_FFFF)
_NW, _NE, _SW, _SE, _N, _S, _W, _E = (uint16(1 << bit) for bit in range(8))
_SIGN_N, _SIGN_S, _SIGN_W, _SIGN_E = (uint16(bit) for bit in range(8, 12))


@compiled
def propagate(
    words: Words,
    last: int,
    coder: Coder,
    span: Span,
    plane: int,
    maps: Bitmaps,
    neighbours: Neighbours,
    magnitudes: Magnitudes,
    states: States,
    band: int,
) -> Coder:
    """Significance propagation (T.800 D.3.1): insignificant samples beside significant ones."""
    significant, beside, visited, real = maps[SIGNIFICANT], maps[BESIDE], maps[VISITED], maps[REAL]
    a, c, bits, word = coder
    first, behind, stripe = span
    origin = uint64(first) << _SIX
    new = uint32(3) << uint32(plane)
    for at in range(first, behind):
        j = uint64(at)
        left = beside[j] & ~significant[j] & real[j]
        seen = left
        while left:
            bit = uint64(trailing_zeros(left))
            left &= left - _ONE
            position = (j << _SIX) + bit
            around_it = uint64(neighbours[position])
            context = uint64(SIGNIFICANCE[band | (around_it & _ANY)])
            d, states[context], a, c, bits, word = decided(states[context], words, last, a, c, bits, word)
            if d:
                (a, c, bits, word), negative = _signed(words, last, (a, c, bits, word), around_it, states)
                magnitudes[position - origin] = new | negative << uint32(31)
                significant[j] |= _ONE << bit
                _tell(neighbours, beside, bit & _THREE, position, stripe, negative)
                left = beside[j] & ~significant[j] & real[j] & ((_ALL << _ONE) << bit)
                seen |= left
        visited[j] = seen
    return a, c, bits, word


@compiled
def refine(
    words: Words,
    last: int,
    coder: Coder,
    span: Span,
    plane: int,
    maps: Bitmaps,
    neighbours: Neighbours,
    magnitudes: Magnitudes,
    states: States,
) -> Coder:
    """Magnitude refinement (T.800 D.3.3): samples that were significant before this plane."""
    significant, visited, refined = maps[SIGNIFICANT], maps[VISITED], maps[REFINED]
    a, c, bits, word = coder
    first, behind, _ = span
    origin = uint64(first) << _SIX
    half = uint32(1) << uint32(plane)
    state_14, state_15, state_16 = states[14], states[15], states[16]
    for at in range(first, behind):
        j = uint64(at)
        left = significant[j] & ~visited[j]
        again = refined[j]
        refined[j] = again | left
        while left:
            bit = uint64(trailing_zeros(left))
            left &= left - _ONE
            position = (j << _SIX) + bit
            in_16 = (again >> bit) & _ONE != _ZERO
            in_15 = uint64(neighbours[position]) & _ANY != _ZERO
            state = state_16 if in_16 else (state_15 if in_15 else state_14)
            d, state, a, c, bits, word = decided(state, words, last, a, c, bits, word)
            state_16 = state if in_16 else state_16
            state_15 = state if (in_15 and not in_16) else state_15
            state_14 = state_14 if in_15 or in_16 else state
            magnitudes[position - origin] += (uint32(d) << uint32(plane + 1)) - half
    states[14], states[15], states[16] = state_14, state_15, state_16
    return a, c, bits, word


@compiled
def clean_up(
    words: Words,
    last: int,
    coder: Coder,
    span: Span,
    plane: int,
    maps: Bitmaps,
    neighbours: Neighbours,
    magnitudes: Magnitudes,
    states: States,
    band: int,
) -> Coder:
    """Cleanup (T.800 D.3.4): all other samples, four of a column at once where nothing is beside them."""
    significant, beside, visited, real = maps[SIGNIFICANT], maps[BESIDE], maps[VISITED], maps[REAL]
    a, c, bits, word = coder
    first, behind, stripe = span
    origin = uint64(first) << _SIX
    new = uint32(3) << uint32(plane)
    for at in range(first, behind):
        j = uint64(at)
        left = ~(significant[j] | visited[j]) & real[j]
        visited[j] = _ZERO
        while left:
            bit = uint64(trailing_zeros(left))
            sure = False
            if (
                bit & _THREE == _ZERO
                and (left >> bit) & _FIFTEEN == _FIFTEEN
                and (beside[j] >> bit) & _FIFTEEN == _ZERO
            ):
                d, states[RUN], a, c, bits, word = guessed(states[RUN], words, last, a, c, bits, word)
                if d == _ZERO:
                    left &= ~(_FIFTEEN << bit)
                    continue
                d, states[UNIFORM], a, c, bits, word = decided(states[UNIFORM], words, last, a, c, bits, word)
                rows = d << _ONE
                d, states[UNIFORM], a, c, bits, word = decided(states[UNIFORM], words, last, a, c, bits, word)
                bit += rows | d
                left &= _ALL << bit
                sure = True
            left &= left - _ONE
            position = (j << _SIX) + bit
            around_it = uint64(neighbours[position])
            d = _ONE
            if not sure:
                context = uint64(SIGNIFICANCE[band | (around_it & _ANY)])
                d, states[context], a, c, bits, word = guessed(states[context], words, last, a, c, bits, word)
            if d:
                (a, c, bits, word), negative = _signed(words, last, (a, c, bits, word), around_it, states)
                magnitudes[position - origin] = new | negative << uint32(31)
                significant[j] |= _ONE << bit
                _tell(neighbours, beside, bit & _THREE, position, stripe, negative)
    return a, c, bits, word


@compiled
def _signed(words: Words, last: int, coder: Coder, around_it: int, states: States) -> tuple[Coder, int]:
    """The sign of a newly significant sample (T.800 D.3.2): the coder after it, and 1 for negative."""
    a, c, bits, word = coder
    turn = uint64(SIGN[(around_it >> _FOUR) & _ANY])
    context = turn >> _ONE
    d, states[context], a, c, bits, word = decided(states[context], words, last, a, c, bits, word)
    return (a, c, bits, word), uint32(d ^ (turn & _ONE))


@compiled
def _tell(
    neighbours: Neighbours,
    beside: Bitmaps,
    row: int,
    position: int,
    stripe: int,
    negative: int,
) -> None:
    """Tell a newly significant sample's eight neighbours."""
    first, last = (
        _ZERO - uint64(row == _ZERO),
        _ZERO - uint64(row == _THREE),
    )  # masks: a branch would be guessed
    above = position - _ONE - (first & (stripe - _FOUR))
    below = position + _ONE + (last & (stripe - _FOUR))
    minus = uint16(negative)
    neighbours[above - _FOUR] |= _SE
    neighbours[above] |= _S | minus << _SIGN_S
    neighbours[above + _FOUR] |= _SW
    neighbours[position - _FOUR] |= _E | minus << _SIGN_E
    neighbours[position + _FOUR] |= _W | minus << _SIGN_W
    neighbours[below - _FOUR] |= _NE
    neighbours[below] |= _N | minus << _SIGN_N
    neighbours[below + _FOUR] |= _NW
    _mark(beside, position - _FIVE, AROUND[row, _ZERO])
    _mark(beside, (below ^ ((above ^ below) & first)) - _FOUR, AROUND[row, _ONE])


@compiled
def _mark(bitmap: Bitmaps, position: int, pattern: int) -> None:
    """Set a pattern's bits from a position on."""
    j, shift = position >> _SIX, position & _SIXTY_THREE
    bitmap[j] |= pattern << shift
    bitmap[j + _ONE] |= (pattern >> _ONE) >> (_SIXTY_THREE - shift)
