"""Plain PACS export: any tree, no meaning in names; identity comes from the headers.

Expects nothing. patient_id, image_id, laterality and view are the header's (PatientID, SOPInstanceUID,
ImageLaterality, ViewPosition); labels join after the headers have been read.
"""

from __future__ import annotations

from preprocess.layouts.base import Layout, Place


def _nothing(path: str) -> Place:
    return Place()


LAYOUT = Layout("pacs", recognise=_nothing, assume=_nothing)
