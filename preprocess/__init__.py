"""Mammography DICOM to model-ready shards: exact pixels, every input accounted for."""

__version__ = "0.1.0"
