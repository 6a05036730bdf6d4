"""The CPU side of the CPU/GPU seam: NumPy kernels, the executable form of docs/numerics.md.

In and out: as each function says. `cuda.py` exports the same names and must return the same bytes.

SciPy is imported inside functions: it takes 0.3 s, and runs, whose kernels are `compiled.py`'s, do without.
"""

from preprocess.kernels._blank import blank
from preprocess.kernels._mask import (
    border_connected,
    bounds,
    brightest_of_nine,
    dilate,
    erode,
    fill_holes,
    histogram,
    largest_component,
    opened,
    otsu,
    shift_mean,
    side_masses,
    triangle,
    within,
)
from preprocess.kernels._resample import block_mean, count_values, look_up, resample, to_index
from preprocess.kernels._wavelet import low_pass

__all__ = [
    "blank",
    "block_mean",
    "border_connected",
    "bounds",
    "brightest_of_nine",
    "count_values",
    "dilate",
    "erode",
    "fill_holes",
    "histogram",
    "largest_component",
    "look_up",
    "low_pass",
    "opened",
    "otsu",
    "resample",
    "shift_mean",
    "side_masses",
    "to_index",
    "triangle",
    "within",
]
