"""Reference kernel of `--background blank`: what is outside a mask becomes fill (NumPy, the specification).

In:  a picture, a mask on a coarser or finer grid, the mask's row and column of each pixel.
Out: the picture, blanked in place. One comparison a pixel, so a CUDA version is one thread a pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int32]


def blank(
    picture: npt.NDArray[np.integer],
    mask: npt.NDArray[np.bool_],
    rows: Index,
    columns: Index,
    fill: int,
) -> None:
    """Set picture[i, j] to fill where mask[rows[i], columns[j]] is False.

    picture: (rows.size, columns.size), any integer type that holds fill; mask: 2-D; rows, columns: int32
    indices into it.
    """
    outside = ~mask[rows[:, None], columns[None, :]]
    picture[outside] = fill
