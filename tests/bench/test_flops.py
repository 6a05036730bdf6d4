"""Operations are counted as by hand, and as the literature gives them."""

from __future__ import annotations

import pytest

from bench.flops import forward_flops, peak_flops


def test_convolutions_and_dense_layers_by_hand() -> None:
    import keras
    from keras import layers

    images = keras.Input((8, 6, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(images)  # 4 x 3 places, 3 x 3 x 3 -> 4
    x = layers.DepthwiseConv2D(3, padding="same")(x)  # 4 x 3 places, 3 x 3 of 4 channels
    inner = keras.Sequential([layers.Dense(10)], name="inner")  # at each of 4 x 3 places, 4 -> 10
    x = layers.GlobalAveragePooling2D()(inner(x))
    model = keras.Model(images, layers.Dense(2)(x))  # 10 -> 2, once
    by_hand = 2 * (12 * 27 * 4 + 12 * 9 * 4 + 12 * 4 * 10 + 10 * 2)
    assert forward_flops(model) == by_hand


@pytest.mark.parametrize(("name", "published"), [("ConvNeXtTiny", 4.46e9), ("EfficientNetB0", 0.39e9)])
def test_known_networks_have_their_published_multiplications(name: str, published: float) -> None:
    """Multiply-adds at 224 x 224, of the papers' tables."""
    import keras

    model = getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))
    assert forward_flops(model) / 2 == pytest.approx(published, rel=0.03)


def test_a_devices_peak_is_that_of_its_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "mixed_bfloat16") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", "mixed_bfloat16") == 756e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32") is None
    assert peak_flops("simulated", "mixed_bfloat16") is None
