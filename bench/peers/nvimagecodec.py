"""nvImageCodec's plugin for pydicom: `pixel_array` decodes through NVIDIA's library, window last.

The library decodes JPEG 2000 on the CPU too, but its plugin does not: it asks for a CUDA device, and for a
colour space unchanged, which the CPU decoder answers with nothing.
"""

from __future__ import annotations

from functools import cache

import pydicom
from nvidia.nvimgcodec.tools.dicom import pydicom_plugin
from pydicom.pixels.utils import pixel_array

from bench.peers import Picture, either
from bench.peers._gpu import require_gpu
from bench.peers._headers import display_of
from bench.peers._usual import window_last

require_gpu()

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
