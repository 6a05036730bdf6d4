"""Which images may be decoded on a GPU: by facts alone."""

from __future__ import annotations

import dataclasses

import pytest

from dali_pipelines.routes import Route, Where, Why, route
from preprocess.records import CodestreamFacts, Compression, ImageHeader, Instance
from tests.instances import UIDS, header, instance

SHAPE = (400, 300)


def facts(**changes: object) -> CodestreamFacts:
    plain = CodestreamFacts(
        Compression.JPEG_2000, *SHAPE, components=1, precision=12, signed=False, levels=5, lossless=True
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def image(syntax: str = "jpeg_2000", **changes: object) -> ImageHeader:
    return header(SHAPE, syntax, **{"bits_stored": 12, **changes})


def of(image: ImageHeader, facts: CodestreamFacts | None) -> Instance:
    bare = instance(b"", header(SHAPE, "little"))
    return dataclasses.replace(bare, image=image, codestream=facts)


GPU = Route(Where.GPU, Why.EXACT)


@pytest.mark.parametrize("syntax", ["jpeg_2000", "htj2k", "1.2.840.10008.1.2.4.202"])
@pytest.mark.parametrize("level", [0, 1, 5])
def test_lossless_wavelets_go_to_the_gpu_at_every_level(syntax: str, level: int) -> None:
    compression = Compression.JPEG_2000 if syntax == "jpeg_2000" else Compression.HTJ2K
    assert route(of(image(syntax), facts(compression=compression)), level) == GPU


@pytest.mark.parametrize("precision", [9, 12, 16])
def test_precisions_of_nine_to_sixteen_bits_go_to_the_gpu(precision: int) -> None:
    assert route(of(image(), facts(precision=precision))) == GPU


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        (Why.SIGNED, {"signed": True}),
        (Why.PRECISION, {"precision": 8}),
        (Why.COMPONENTS, {"components": 3}),
        (Why.GRID, {"offset": True}),
        (Why.GRID, {"subsampled": True}),
        (Why.GRID, {"tiles": 4, "tile_rows": 200, "tile_columns": 150}),
        (Why.REGION, {"has_roi": True}),
        (Why.LAYERS, {"layers": 21}),
        (Why.DAMAGED, {"complete": False}),
        (Why.DAMAGED, {"rows": 401}),
        (Why.DAMAGED, {"precision": 17}),
        (Why.LOSSY, {"lossless": False}),
    ],
)
def test_what_a_gpu_cannot_do_exactly_goes_to_the_cpu(why: Why, changes: dict[str, object]) -> None:
    assert route(of(image(), facts(**changes))) == Route(Where.CPU, why)


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        (Why.SIGNED, {"pixel_representation": 1}),
        (Why.WORD, {"high_bit": 15}),
        (Why.WORD, {"has_overlay_in_pixels": True}),
    ],
)
def test_values_that_are_more_than_numbers_go_to_the_cpu(why: Why, changes: dict[str, object]) -> None:
    assert route(of(image(**changes), facts())) == Route(Where.CPU, why)


@pytest.mark.parametrize(
    "syntax",
    sorted(
        {*UIDS.values(), "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.1.99"}
        - {UIDS["jpeg_2000"], UIDS["htj2k"]}
    ),
)
def test_every_other_transfer_syntax_goes_to_the_cpu(syntax: str) -> None:
    assert route(of(image(syntax), facts()), allow_inexact=True) == Route(Where.CPU, Why.NOT_WAVELET)
    assert route(of(image(syntax), None)) == Route(Where.CPU, Why.NOT_WAVELET)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"])
@pytest.mark.parametrize("lossless", [False, True])
def test_syntaxes_that_may_be_lossy_need_a_permission_even_with_the_reversible_transform(
    syntax: str, lossless: bool
) -> None:
    asked = of(image(syntax), facts(lossless=lossless))
    assert route(asked) == Route(Where.CPU, Why.LOSSY)
    assert route(asked, allow_inexact=True) == Route(Where.GPU, Why.INEXACT)


def test_a_level_that_the_stream_does_not_have_is_the_cpus_to_refuse() -> None:
    assert route(of(image(), facts(levels=2)), 3).where is Where.CPU
