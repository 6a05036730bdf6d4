"""Reference kernel of the wavelet: one step down the pyramid of JPEG 2000's reversible transform.

In:  2-D integers: stored values, or the low-pass band of the level above.
Out: int32, the next level's low-pass band.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.wavelet import low_pass_53


def low_pass(pixels: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """One 5/3 low-pass step of rows and columns, symmetric at the edges (T.800 F-9, F-10).

    Args:
        pixels: integers of at most 26 bits, (rows, columns).

    Returns:
        (ceil(rows / 2), ceil(columns / 2)); may overshoot the range of `pixels`.
    """
    return low_pass_53(pixels, 1)
