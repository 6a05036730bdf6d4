"""Lossless JPEG 2000 as mammograms have it (ITU-T T.800), decoded by our own compiled code.

decoder.py ─┬─ headers.py      packets → where each code-block's bytes are
├─ code_blocks.py  ─ passes.py ─┬─ mq.py        bytes → decisions
│                               └─ contexts.py  neighbours → context
└─ synthesis.py    sub-bands → samples
"""

from preprocess.jpeg2000.decoder import Low, decode, decode_from

__all__ = ["Low", "decode", "decode_from"]
