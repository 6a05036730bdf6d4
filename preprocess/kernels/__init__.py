"""The CPU/GPU seam: reference.py (NumPy, the specification); its functions decide every pixel."""
