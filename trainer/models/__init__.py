"""Models: from stored pixels to logits. Importing this registers their layers, so that saved ones open."""

from trainer.architectures import Architecture, architecture_of, architectures, summary
from trainer.models.build import build, weights_record
from trainer.models.files import heads_of, in_float32, load, save, size_of, views_of, with_probabilities
from trainer.models.head import FEATURES
from trainer.models.lesion_map import with_lesion_map, without_lesion_map
from trainer.models.pretrained import PixelStatistics
from trainer.models.weights import WeightsRecord

__all__ = [
    "FEATURES",
    "Architecture",
    "PixelStatistics",
    "WeightsRecord",
    "architecture_of",
    "architectures",
    "build",
    "heads_of",
    "in_float32",
    "load",
    "save",
    "size_of",
    "summary",
    "views_of",
    "weights_record",
    "with_lesion_map",
    "with_probabilities",
    "without_lesion_map",
]
