"""Augmentation keeps 16 bits, is decided by the seed, and fills with the image's own darkest value."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.png import decode_png
from tests.trainer.sets import make
from trainer.augment import PRESETS, Augmenter
from trainer.contact import contact_sheet
from trainer.transforms import KNOWN

FIRED = {
    "Affine": {"rotate": [20, 20], "scale": [0.8, 0.8]},
    "CoarseDropout": {"hole_height_range": [0.2, 0.2], "hole_width_range": [0.2, 0.2]},
    "Downscale": {"scale_range": [0.5, 0.5], "interpolation_pair": {"downscale": 3, "upscale": 1}},
    "ElasticTransform": {"alpha": 60.0, "sigma": 6.0},
    "GaussianBlur": {"sigma_limit": [1.0, 1.0]},
    "GaussNoise": {"std_range": [0.01, 0.01]},
    "GridDistortion": {"distort_limit": [0.2, 0.3]},
    "RandomBrightnessContrast": {"brightness_limit": [0.1, 0.1], "contrast_limit": [-0.2, -0.2]},
    "RandomGamma": {"gamma_limit": [130, 130]},
    "Rotate": {"limit": [20, 20]},
}

DOCS = Path(__file__).parents[2] / "docs"
CHANGING = ("light", "heavy", str(DOCS / "phantoms.yaml"), str(DOCS / "windows.yaml"))
"""Augmentations that users are given."""


@pytest.fixture(scope="module")
def ramp() -> np.ndarray:
    """16,384 levels between 0.2 and 0.8, the finest steps 2.4 of 65,535ths."""
    return np.linspace(0.2, 0.8, 128 * 128, dtype=np.float32).reshape(128, 128)


def only(name: str) -> Augmenter:
    return Augmenter([{name: {"p": 1.0} | FIRED.get(name, {})}])


@pytest.mark.parametrize("name", KNOWN)
def test_no_transform_quantises_or_leaves_the_range(ramp: np.ndarray, name: str) -> None:
    before = ramp.copy()
    found = only(name).apply(ramp, 5)
    assert (found.shape, found.dtype) == (ramp.shape, np.float32)
    assert len(np.unique(found)) > 2048, "eight bits would leave 256"
    assert found.min() >= 0
    assert found.max() <= 1
    assert not np.array_equal(found, ramp), "it did nothing"
    np.testing.assert_array_equal(ramp, before)


@pytest.mark.parametrize("name", CHANGING)
def test_presets_keep_sixteen_bits(ramp: np.ndarray, name: str) -> None:
    levels = [len(np.unique(Augmenter.named(name).apply(ramp, seed))) for seed in range(40)]
    assert min(levels) > 1024


def test_none_gives_back_what_it_got(ramp: np.ndarray) -> None:
    assert Augmenter.named("none").apply(ramp, 1) is ramp


@pytest.mark.parametrize("name", ["Affine", "Rotate", "CoarseDropout", "ElasticTransform", "Perspective"])
def test_what_is_filled_is_as_dark_as_the_image_is_anywhere(name: str) -> None:
    """A SIGMOID's black is not 0: filling with 0 would draw an edge that only training sees."""
    image = np.full((96, 96), 0.25, np.float32)
    image[16:80, 16:80] = 0.75
    augmenter = only(name)
    for seed in range(12):
        found = augmenter.apply(image, seed)
        assert found.min() == pytest.approx(0.25, abs=1e-6)
        assert found[0, 0] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("name", CHANGING)
def test_the_seed_decides_whatever_thread_or_order(ramp: np.ndarray, name: str) -> None:
    augmenter = Augmenter.named(name)
    expected = {seed: augmenter.apply(ramp, seed).tobytes() for seed in range(24)}
    assert len(set(expected.values())) > 16  # now and then none of the transforms is drawn
    order = [seed for _ in range(4) for seed in np.random.default_rng(0).permutation(24).tolist()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: augmenter.apply(ramp, seed).tobytes(), order))
    assert found == [expected[seed] for seed in order]
    copied = pickle.loads(pickle.dumps(augmenter))
    assert copied.apply(ramp, 3).tobytes() == expected[3]


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_gives_the_same_augmentation_back(ramp: np.ndarray, tmp_path: Path, name: str) -> None:
    augmenter = Augmenter.named(name)
    path = tmp_path / "mine.yaml"
    path.write_text(augmenter.to_yaml())
    again = Augmenter.named(str(path))
    assert again.to_yaml() == augmenter.to_yaml()
    for seed in range(8):
        np.testing.assert_array_equal(again.apply(ramp, seed), augmenter.apply(ramp, seed))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b", "not a list"),
        ("- [", "not YAML"),
        ("- Normalize: {}", "Normalize is none of OneOf, Affine"),
        ("- {Affine: {}, Rotate: {}}", "not one transform"),
        ("- Affine: {rotat: 3}", "Affine: .*rotat"),
        ("- GaussNoise: {std_range: [2, 3]}", "GaussNoise"),
        ("- OneOf: {transforms: [{CLAHE: {}}]}", "CLAHE is none of"),
        ("- Affine: 3", "Affine"),
        ("- OneOf: {transforms: }", "OneOf"),
        ("- OneOf: {transforms: [{HorizontalFlip: {p: 0}}]}", "OneOf"),
        ("- CoarseDropout: {fill: inpaint_ns}", "CoarseDropout: fill inpaint_ns goes through 8 bits"),
    ],
)
def test_mistakes_in_yaml_are_told_before_training(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmenter.from_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- Affine: {fit_output: true, rotate: [45, 45]}", "Affine makes other than 64x32 of images"),
        ("- Rotate: {crop_border: true, limit: [30, 30]}", "Rotate makes other than 64x32"),
        ("- OneOf: {transforms: [Perspective: {keep_size: false}]}", "Perspective makes other than 64x32"),
        ("- GridDistortion: {num_steps: 100}", "GridDistortion fails on images of 64x32"),
    ],
)
def test_what_does_not_fit_the_images_is_told_before_training(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmenter.from_yaml(text).require_size((64, 32))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(32, 16), (64, 48), (256, 128)])
def test_presets_fit_images_of_any_size(name: str, size: tuple[int, int]) -> None:
    Augmenter.named(name).require_size(size)


def test_a_name_that_is_nothing_is_told() -> None:
    with pytest.raises(UsageError, match="--augment medium: neither none, light, heavy nor a YAML file"):
        Augmenter.named("medium")


def test_light_never_mirrors_left_to_right() -> None:
    image = np.zeros((64, 64), np.float32)
    image[:, :20] = 1  # the chest wall's side
    for seed in range(100):
        found = Augmenter.named("light").apply(image, seed)
        assert found[:, :16].mean() > 0.5 > found[:, 40:].mean()


def test_importing_asks_no_network_and_leaves_threads_to_us() -> None:
    """Albumentations asks for its newest version on import; OpenCV would start threads of its own."""
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import trainer.transforms, cv2\n"
        "assert cv2.getNumThreads() == 1, cv2.getNumThreads()\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run((sys.executable, "-W", "error", "-c", code), check=True, env=clean)


def test_the_contact_sheet_shows_originals_first(tmp_path: Path) -> None:
    dataset = make(tmp_path / "OUT")
    sheet = decode_png(contact_sheet(dataset, Augmenter.named("heavy"), rows=[3, 9], seed=1))
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 32 + 2, 8 * 16 + 7 * 2)
    for top, row in ((0, 3), (34, 9)):
        line = sheet[top : top + 32]
        stored = np.rint(dataset.pixels(row) / 65535 * 255)
        assert np.abs(line[:, :16] - stored).max() <= 1
        others = [line[:, start : start + 16] for start in range(18, 142, 18)]
        assert len(others) == 7
        assert sum(not np.array_equal(one, line[:, :16]) for one in others) >= 4
    assert (sheet[32:34] == 255).all()
    assert decode_png(contact_sheet(dataset, Augmenter.named("none"))).shape == (6 * 34 - 2, 142)
