"""The backbones that can be trained, as a table: no Keras here, so that options and help stay quick.

In:  a name, as in `--model`.
Out: Architecture: family, parameters, and the weights file that keras.applications publishes for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from preprocess.errors import UsageError

_BUCKET = "https://storage.googleapis.com/"


class Family(StrEnum):
    """Architectures that take their input and their weights in the same way."""

    RESNET = "resnet"
    """Ours: small, for demonstrations and tests; no published weights."""
    CONVNEXT = "convnext"
    """Liu et al., CVPR 2022. Unpadded stem: three channels fold into one."""
    EFFICIENTNET = "efficientnet"
    """Tan and Le, ICML 2019. Zero-padded stem after a normalisation per channel: it does not fold."""
    EFFICIENTNET_V2_B = "efficientnetv2_b"
    """Tan and Le, ICML 2021, sizes of version 1; normalised and padded as version 1."""
    EFFICIENTNET_V2 = "efficientnetv2"
    """The same, s, m and l: all channels are scaled alike, so that the stem folds."""


_FOLDING = frozenset({Family.CONVNEXT, Family.EFFICIENTNET_V2})
_FOLDERS = {
    Family.CONVNEXT: "tensorflow/keras-applications/convnext/",
    Family.EFFICIENTNET: "keras-applications/",
    Family.EFFICIENTNET_V2_B: "tensorflow/keras-applications/efficientnet_v2/",
    Family.EFFICIENTNET_V2: "tensorflow/keras-applications/efficientnet_v2/",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One backbone."""

    name: str
    family: Family
    application: str
    """Its function in keras.applications; empty for ours."""
    parameters: int
    """Of the backbone on one channel, head not counted."""
    weights_file: str
    """File name that keras.applications gives its ImageNet weights without classifier; empty for ours."""
    weights_hash: str
    """MD5 or SHA-256 of that file, as Keras publishes it."""

    @property
    def folds(self) -> bool:
        """True where a stem for three channels becomes one for one channel exactly."""
        return self.family in _FOLDING

    @property
    def stem(self) -> str:
        """How ImageNet weights meet one channel, in words."""
        if self.family is Family.RESNET:
            return "one channel"
        return "folded into one channel" if self.folds else "three normalised copies"

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of its features for an image of this size.

        ConvNeXt's strides leave the last pixels out where they do not divide; padded ones round up.
        """
        stride = 16 if self.family is Family.RESNET else 32
        drop = 0 if self.family is Family.CONVNEXT else stride - 1
        return (size[0] + drop) // stride, (size[1] + drop) // stride

    @property
    def url(self) -> str:
        """Where its ImageNet weights are published."""
        return _BUCKET + _FOLDERS[self.family] + self.weights_file


def _of(family: Family, application: str, parameters: int, file: str, digest: str) -> Architecture:
    name = file.removesuffix("_notop.h5").replace("efficientnetb", "efficientnet_b").replace("-", "_")
    return Architecture(name, family, application, parameters, file, digest)


_TABLE = (
    Architecture("resnet_tiny", Family.RESNET, "", 646_719, "", ""),
    _of(
        Family.CONVNEXT,
        "ConvNeXtTiny",
        27_817_056,
        "convnext_tiny_notop.h5",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
    _of(
        Family.CONVNEXT,
        "ConvNeXtSmall",
        49_451_616,
        "convnext_small_notop.h5",
        "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
    ),
    _of(
        Family.CONVNEXT,
        "ConvNeXtBase",
        87_562_368,
        "convnext_base_notop.h5",
        "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB0",
        4_048_988,
        "efficientnetb0_notop.h5",
        "50bc09e76180e00e4465e1a485ddc09d",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB1",
        6_574_656,
        "efficientnetb1_notop.h5",
        "74c4e6b3e1f6a1eea24c589628592432",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB2",
        7_767_986,
        "efficientnetb2_notop.h5",
        "111f8e2ac8aa800a7a99e3239f7bfb39",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB3",
        10_782_808,
        "efficientnetb3_notop.h5",
        "af6d107764bb5b1abb91932881670226",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB4",
        17_672_952,
        "efficientnetb4_notop.h5",
        "ebc24e6d6c33eaebbd558eafbeedf1ba",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB5",
        28_512_656,
        "efficientnetb5_notop.h5",
        "38879255a25d3c92d5e44e04ae6cec6f",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB6",
        40_959_128,
        "efficientnetb6_notop.h5",
        "9ecce42647a20130c1f39a5d4cb75743",
    ),
    _of(
        Family.EFFICIENTNET,
        "EfficientNetB7",
        64_096_528,
        "efficientnetb7_notop.h5",
        "cbcfe4450ddf6f3ad90b1b398090fe4a",
    ),
    _of(
        Family.EFFICIENTNET_V2_B,
        "EfficientNetV2B0",
        5_918_736,
        "efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
    _of(
        Family.EFFICIENTNET_V2_B,
        "EfficientNetV2B1",
        6_930_548,
        "efficientnetv2-b1_notop.h5",
        "0e80663031ca32d657f9caa404b6ec37",
    ),
    _of(
        Family.EFFICIENTNET_V2_B,
        "EfficientNetV2B2",
        8_768_798,
        "efficientnetv2-b2_notop.h5",
        "1dfe2e7a5d45b6632553a8961ea609eb",
    ),
    _of(
        Family.EFFICIENTNET_V2_B,
        "EfficientNetV2B3",
        12_929_902,
        "efficientnetv2-b3_notop.h5",
        "f6abf7b5849ac99a89b50dd3fd532856",
    ),
    _of(
        Family.EFFICIENTNET_V2,
        "EfficientNetV2S",
        20_330_928,
        "efficientnetv2-s_notop.h5",
        "af0682fb74e8c54910f2d4393339c070",
    ),
    _of(
        Family.EFFICIENTNET_V2,
        "EfficientNetV2M",
        53_149_956,
        "efficientnetv2-m_notop.h5",
        "1b8dc055df72dde80d614482840fe342",
    ),
    _of(
        Family.EFFICIENTNET_V2,
        "EfficientNetV2L",
        117_746_272,
        "efficientnetv2-l_notop.h5",
        "b0b66b5c863aef5b46e8608fe1711615",
    ),
)


def architectures() -> tuple[Architecture, ...]:
    """All of them, in the order of the table."""
    return _TABLE


def summary() -> list[tuple[str, str, str, str]]:
    """The table of `bcd-train models`: name, parameters, how weights meet one channel, weights file."""
    return [
        (each.name, f"{each.parameters / 1e6:.1f} M", each.stem, each.weights_file or "none")
        for each in _TABLE
    ]


def architecture_of(name: str) -> Architecture:
    """The one with this name.

    Raises:
        UsageError: there is none.
    """
    for architecture in _TABLE:
        if architecture.name == name:
            return architecture
    raise UsageError(f"--model {name}: choose from {', '.join(each.name for each in _TABLE)}")
