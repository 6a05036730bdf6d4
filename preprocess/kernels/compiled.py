"""The CPU's kernels as the pipeline uses them: reference.py's names and results, compiled with Numba.

In and out: as the functions of the same names in reference.py say, which is the specification; tests hold
these to it on every kind of input. What gains nothing from being compiled is the reference's own.
"""

from preprocess.kernels._compiled_components import border_connected, fill_holes, largest_component
from preprocess.kernels._compiled_mask import brightest_of_nine, histogram, otsu, shift_mean, triangle
from preprocess.kernels._compiled_resample import count_values, look_up, resample
from preprocess.kernels._compiled_wavelet import low_pass
from preprocess.kernels.reference import (
    blank,
    block_mean,
    bounds,
    dilate,
    erode,
    opened,
    side_masses,
    to_index,
    within,
)

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
