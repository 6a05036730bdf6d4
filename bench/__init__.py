"""Synthetic mammograms, benchmarks and peers."""
