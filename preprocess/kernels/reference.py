"""The CPU side of the CPU/GPU seam: NumPy kernels, the executable form of DESIGN §2.

In and out: as each function says. `cuda.py` exports the same names and must return the same bytes.
"""

from preprocess.kernels._resample import block_mean, look_up, resample, to_index

__all__ = ["block_mean", "look_up", "resample", "to_index"]
