"""nvImageCodec's plugin for pydicom: `pixel_array` decodes through NVIDIA's library, window last.

Without a GPU the library decodes JPEG 2000 on the CPU; with one the same module uses it.
"""

from __future__ import annotations

from functools import cache

import pydicom
from nvidia.nvimgcodec.tools.dicom import pydicom_plugin
from pydicom.pixels.utils import pixel_array

from bench.peers import Picture, either
from bench.peers._headers import display_of
from bench.peers._usual import window_last

NAME = "pydicom + nvImageCodec's plugin, window last"
PACKAGES = (either("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"), "pydicom", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """Decode with the plugin and no other: what it cannot do is refused, not done by another decoder."""
    dataset = pydicom.dcmread(path)
    values = pixel_array(dataset, decoding_plugin=_plugin())
    return window_last(values, display_of(dataset), height, width)


@cache
def _plugin() -> str:
    """Register the plugin, once a process; its label."""
    if not pydicom_plugin.register():
        raise RuntimeError("the plugin cannot be registered")
    return str(pydicom_plugin.NVIMGCODEC_PLUGIN_LABEL)
