"""The MQ arithmetic decoder of JPEG 2000 (ITU-T T.800 Annex C), as parts of compiled functions.

In:  a code-block's bytes.
Out: decisions, one after the other, each in one of 19 contexts.

The code register is 64 bits wide, aligned to its top: the interval's 16 bits, then bits not needed yet. So
bytes are looked after once in 32 bits, not once in eight, and T.800's carry into the byte before is added
beforehand (`unstuffed`). `decided` has no branch that depends on the data: in noise every other guess of the
processor would be wrong, and a wrong guess costs more than all the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import int64, uint32, uint64

from preprocess.compiled import compiled, inlined, leading_zeros

Words = npt.NDArray[np.uint32]
States = npt.NDArray[np.uint64]

RUN, UNIFORM = 17, 18
"""Contexts of the cleanup pass; 0 to 8 tell significance, 9 to 13 signs, 14 to 16 refine."""
CONTEXTS = 19
SPARE_WORDS = 6
"""Words of ones that `unstuffed` leaves beyond the data: reading on never leaves the array."""

_QE = (
    (0x5601, 1, 1, 1), (0x3401, 2, 6, 0), (0x1801, 3, 9, 0), (0x0AC1, 4, 12, 0), (0x0521, 5, 29, 0),
    (0x0221, 38, 33, 0), (0x5601, 7, 6, 1), (0x5401, 8, 14, 0), (0x4801, 9, 14, 0), (0x3801, 10, 14, 0),
    (0x3001, 11, 17, 0), (0x2401, 12, 18, 0), (0x1C01, 13, 20, 0), (0x1601, 29, 21, 0), (0x5601, 15, 14, 1),
    (0x5401, 16, 14, 0), (0x5101, 17, 15, 0), (0x4801, 18, 16, 0), (0x3801, 19, 17, 0), (0x3401, 20, 18, 0),
    (0x3001, 21, 19, 0), (0x2801, 22, 19, 0), (0x2401, 23, 20, 0), (0x2201, 24, 21, 0), (0x1C01, 25, 22, 0),
    (0x1801, 26, 23, 0), (0x1601, 27, 24, 0), (0x1401, 28, 25, 0), (0x1201, 29, 26, 0), (0x1101, 30, 27, 0),
    (0x0AC1, 31, 28, 0), (0x09C1, 32, 29, 0), (0x08A1, 33, 30, 0), (0x0521, 34, 31, 0), (0x0441, 35, 32, 0),
    (0x02A1, 36, 33, 0), (0x0221, 37, 34, 0), (0x0141, 38, 35, 0), (0x0111, 39, 36, 0), (0x0085, 40, 37, 0),
    (0x0049, 41, 38, 0), (0x0025, 42, 39, 0), (0x0015, 43, 40, 0), (0x0009, 44, 41, 0), (0x0005, 45, 42, 0),
    (0x0001, 45, 43, 0), (0x5601, 46, 46, 0),
)  # fmt: skip
"""T.800 table C.2: Qe, next state after the more probable symbol, after the less, whether the two swap."""


def _state(index: int, symbol: int) -> int:
    """A context's state in one word: Qe in the highest 16 bits, 2 (2 index + likelier symbol) below."""
    return _QE[index][0] << 48 | (2 * index + symbol) << 1


def _transitions() -> States:
    """The state that follows, by the lowest byte of the state before, plus the decision."""
    following = np.empty(4 * len(_QE), np.uint64)
    for index, (_, more, less, swap) in enumerate(_QE):
        for symbol in (0, 1):
            for decision in (0, 1):
                same = decision == symbol
                after = _state(more, symbol) if same else _state(less, symbol ^ swap)
                following[2 * (2 * index + symbol) + decision] = after
    return following


def _initial() -> States:
    """States at the start of a code-block (T.800 table D.7)."""
    states = np.full(CONTEXTS, _state(0, 0), np.uint64)
    states[0], states[RUN], states[UNIFORM] = _state(4, 0), _state(3, 0), _state(46, 0)
    return states


TRANSITIONS, INITIAL = _transitions(), _initial()

_QE_BITS = uint64(0xFFFF_0000_0000_0000)
_INDEX_BITS = uint64(0xFE)
HALF = uint64(0x8000_0000_0000_0000)
"""The least interval: 0x8000 of Annex C."""
_ZERO, _ONE = uint64(0), uint64(1)
_LAST_STUFFED = 0x8F
"""Beyond it, a byte after FF makes a marker of the two."""
FIRST_SHIFT = uint64(31)
"""The first word lies below a zero bit (T.800 C.3.5)."""
FIRST_BITS = 17
"""Bits beyond the interval's 16 that are there after the first word."""


@inlined
def _renormalised(
    a: int, c: int, bits: int, word: int, following: int, last: int
) -> tuple[int, int, int, int, int]:
    """Double the interval until it is at least HALF (C.3.3), and add bits of `following` where they run out.

    Returns:
        a, c, bits, word, how often it was doubled.
    """
    shift = leading_zeros(a)
    a <<= uint64(shift)
    c <<= uint64(shift)
    bits -= int64(shift)
    if bits <= 16:
        c |= following << uint64(16 - bits)
        bits += 32
        word = min(word + _ONE, last)
    return a, c, bits, word, shift


@inlined
def decided(
    state: int, words: Words, last: int, a: int, c: int, bits: int, word: int
) -> tuple[int, int, int, int, int, int]:
    """Decide once (T.800 C.3.2) without a branch; the interval is doubled at once as often as needed.

    Args:
        state: of the context.
        words: as `unstuffed` left them.
        last: index of the last of them.
        a: interval, aligned to the top of 64 bits.
        c: code, likewise.
        bits: valid bits in c beyond the first 16.
        word: the next of the words.

    Returns:
        The decision (uint64), the context's next state, a, c, bits, word.
    """
    following = uint64(words[word])
    qe = state & _QE_BITS
    rest = a - qe
    index = state & _INDEX_BITS
    less = uint64(c < qe)
    exchanged = uint64(rest < qe)
    decision = ((state >> _ONE) & _ONE) ^ less ^ exchanged
    upper = less - _ONE  # all ones in the upper part of the interval
    c -= qe & upper
    a = qe ^ ((qe ^ rest) & upper)
    a, c, bits, word, shift = _renormalised(a, c, bits, word, following, last)
    after_0, after_1 = TRANSITIONS[index], TRANSITIONS[index + _ONE]
    after = after_0 ^ ((after_0 ^ after_1) & (_ZERO - decision))
    after = after if shift else state
    return decision, after, a, c, bits, word


@inlined
def guessed(
    state: int, words: Words, last: int, a: int, c: int, bits: int, word: int
) -> tuple[int, int, int, int, int, int]:
    """As `decided`, fast where the more probable symbol nearly always comes."""
    following = uint64(words[word])
    qe = state & _QE_BITS
    rest = a - qe
    decision = (state >> _ONE) & _ONE
    if c >= qe and rest >= HALF:
        return decision, state, rest, c - qe, bits, word
    less = uint64(c < qe)
    decision = decision ^ less ^ uint64(rest < qe)
    c = c if less else c - qe
    a = qe if less else rest
    after = TRANSITIONS[(state & _INDEX_BITS) + decision]
    a, c, bits, word, _ = _renormalised(a, c, bits, word, following, last)
    return decision, after, a, c, bits, word


@compiled
def unstuffed(data: npt.NDArray[np.uint8], start: int, length: int, words: Words) -> tuple[int, int, int]:
    """Write a code-block's bytes as plain bits, highest first, then ones for ever (T.800 C.3.4).

    After a byte FF the next one has seven bits, and its highest is a carry into the FF.

    Args:
        data: uint8.
        start: the first byte's index.
        length: at least 1.
        words: at least length / 4 + SPARE_WORDS.

    Returns:
        The last word that may be read, of ones; how many doublings a decoder has done at least and at most
        when it has used what an encoder wrote: it may leave two bytes and invent two (OpenJPEG's rule for
        predictable termination). -1, 0, 0 where the bytes hold a marker.
    """
    buffer, bits, word, total, before = uint64(0), 0, 0, 0, 0
    least = 0
    for at in range(length):
        byte = int64(data[start + at])
        width = 8
        if before == 0xFF:
            if byte > _LAST_STUFFED:
                return -1, 0, 0
            width = 7
        if at == length - 2:
            least = total
        buffer = (buffer << uint64(width)) + uint64(byte)
        bits += width
        total += width
        if buffer >> uint64(bits):
            _carry(words, word)
        if bits >= 32:
            bits -= 32
            words[word] = uint32(buffer >> uint64(bits))
            word += 1
        buffer &= (_ONE << uint64(bits)) - _ONE
        before = byte
    free = uint64(32 - bits)
    words[word] = uint32((buffer << free) | ((_ONE << free) - _ONE))
    for spare in range(1, SPARE_WORDS):
        words[word + spare] = uint32(0xFFFF_FFFF)
    invented = 16 if before == 0xFF else 24
    return word + SPARE_WORDS - 1, (least - 14 if length > 3 else 0), total - 15 + invented


@compiled
def _carry(words: Words, end: int) -> None:
    """Add one to the number that words[:end] are."""
    for word in range(end - 1, -1, -1):
        words[word] = uint32(words[word] + uint32(1))
        if words[word]:
            return
