"""Measurements that need a GPU: `make gpu-check` runs them and writes one JSON file."""
