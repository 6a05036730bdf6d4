from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import commands, plots, results, results_report, stages
from bench.cli import main
from bench.measure import Measurement, Pass
from bench.results import Planned
from bench.scale import link, small_image
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.errors import UsageError
from preprocess.pipeline import prepare
from preprocess.records import Prepared

SIZE = ResultConfig(height=64, width=32)


@pytest.fixture(scope="module")
def files(phantoms: Path) -> tuple[str, ...]:
    return stages.spread_out(stages.dicom_paths([str(phantoms)]), 6)


def test_preparation_stores_what_the_pipeline_prepares(files: tuple[str, ...], tmp_path: Path) -> None:
    parts = dict(stages.Preparation("prep", files, SIZE, str(tmp_path)).open()())
    assert set(parts) == {"parse", "decode", "roi", "render", "encode", "write"}
    for path in files:
        wanted = prepare(stages.source(path), SIZE, CpuDecoder())
        assert isinstance(wanted, Prepared)
        with Image.open(tmp_path / f"{stages.picture_name(path)}.png") as stored:
            np.testing.assert_array_equal(np.asarray(stored), wanted.pixels)


def test_needed_decoding_asks_for_the_levels_that_preparation_asks_for(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    decode = CpuDecoder.decode

    def noted(self: CpuDecoder, instance: object, level: int = 0) -> object:
        asked.append(level)
        return decode(self, instance, level)  # type: ignore[arg-type]

    monkeypatch.setattr(CpuDecoder, "decode", noted)
    for path in files:
        prepare(stages.source(path), SIZE, CpuDecoder())
    wanted, asked[:] = list(asked), []
    run = stages.NeededDecoding("decode", files, SIZE).open()
    asked.clear()
    run()
    assert asked == wanted


def test_files_are_grouped_by_syntax_and_none_is_lost(phantoms: Path) -> None:
    paths = stages.dicom_paths([str(phantoms)])
    groups = stages.by_syntax(paths)
    assert sorted(path for _, some in groups for path in some) == sorted(paths)
    assert {name for name, _ in groups} == {".90", ".70"}
    assert stages.short_syntax("1.2.840.10008.1.2.1") == ".1"


def test_levels_are_measured_for_wavelets_only(phantoms: Path) -> None:
    names = [work.name for work in stages.decode_works(stages.dicom_paths([str(phantoms)]))]
    assert ".90 level 1" in names
    assert [name for name in names if name.startswith(".70")] == [".70 level 0"]


def test_spread_out_takes_evenly() -> None:
    assert stages.spread_out("abcdef", 3) == ("a", "c", "e")
    assert stages.spread_out("ab", 3) == ("a", "b")


def test_the_limit_is_what_reading_and_decoding_allow() -> None:
    disk, decode, prep = (Measurement(n, 2, (Pass(s, s),)) for n, s in (("d", 1.0), ("c", 3.0), ("p", 8.0)))
    roof = stages.roof(disk, decode, prep)
    assert (roof.disk, roof.limit, roof.whole, roof.rest) == (2, 0.5, 0.25, 0.5)
    assert roof.rest_share == 0.5


def test_links_have_rsnas_shape_and_are_nobodys_duplicates(tmp_path: Path) -> None:
    from preprocess.config import ExecutionConfig, PrepConfig
    from preprocess.planning import RunRequest
    from preprocess.runner import run

    small_image(tmp_path / "seed.dcm")
    link(tmp_path / "seed.dcm", tmp_path / "tree", 9)
    execution = ExecutionConfig(dry_run=True, workers=1)
    summary = run(
        RunRequest((str(tmp_path / "tree"),), tmp_path / "out", config=PrepConfig(execution=execution))
    )
    assert (summary.found, summary.duplicate, summary.rejected) == (9, 0, 0)


def test_decode_command_writes_a_result_that_reports_itself(files: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "results" / "decode.json"
    done = CliRunner().invoke(main, ["decode", *files[:1], "--repeats", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = results.load(out)
    assert result.facts.command == f"bcd-bench decode {Path(files[0]).name} --files 12 --repeats 1"
    assert results_report.table(result).strip() == done.output.strip()
    written = results_report.write(out.parent, tmp_path / "report")
    assert [path.name for path in written] == ["benchmarks.md", "decode.svg"]
    assert "decode.svg" in written[0].read_text()


def test_prep_table_has_a_column_for_every_stage() -> None:
    parts = tuple((name, 0.01) for name in ("parse", "decode", "roi", "render", "encode", "write"))
    three = [
        Measurement(n, 1, (Pass(s, s, parts),)) for n, s in (("disk", 0.001), ("decode", 0.1), ("prep", 0.3))
    ]
    text = results_report.table(results.begin("prep", "x").finish("64x32, decode auto", tuple(three)))
    assert "| wall | 10.0 | 10.0 | 10.0 | 10.0 | 10.0 | 10.0 | 300 (300–300) |" in text
    assert "everything else 199" in text


def test_scale_table_shows_speed_up_and_planning() -> None:
    two = tuple(Measurement(f"{n} workers", 8, (Pass(8 / n, 8),)) for n in (1, 2))
    planned = (Planned(1000, 2.0, 80_000_000),)
    text = results_report.table(results.begin("scale", "x").finish("8 images", two, 2, planned=planned))
    assert "| 2 | 2.00 | 2.00× (2.00–2.00) | 0 |" in text
    assert "| 1,000 | 2.0 | 500 | 80 |" in text


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"kind": "prep"}))
    with pytest.raises(UsageError, match=r"x\.json is no result"):
        results_report.write(tmp_path, tmp_path / "report")


def test_sizes_are_checked() -> None:
    assert commands.parse_size("512x256") == (512, 256)
    with pytest.raises(UsageError):
        commands.parse_size("512")


def test_plots_are_the_same_bytes_and_scaled_to_the_longest() -> None:
    drawing = plots.bars("a < b", [("bcd-prep", 50.0), ("other", 100.0)])
    assert drawing == plots.bars("a < b", [("bcd-prep", 50.0), ("other", 100.0)])
    assert "a &lt; b" in drawing
    assert 'width="190.0"' in drawing
    assert 'width="380.0"' in drawing
    assert 'width="380.0"' in plots.bars("log", [("a", 1.0), ("b", 1000.0)], logarithmic=True)


def test_the_results_that_are_kept_make_a_report(tmp_path: Path) -> None:
    kept = Path(results.__file__).parent / "results"
    text, *drawings = results_report.write(kept, tmp_path)
    assert len(drawings) >= 10
    assert "scale: 192 images" in text.read_text()
    assert any(path.name.startswith("gpu-") for path in kept.glob("*.json"))


def test_pictures_of_files_of_one_name_are_two() -> None:
    paths = ("a/IM001.dcm", "b/IM001.dcm", "a/1.2.840.113.1.dcm", "a/1.2.840.113.2.dcm")
    assert len({stages.picture_name(path) for path in paths}) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prep", "{files}", "--decode", "foo"), "must be auto, full or a level"),
        (("prep", "{files}", "--size", "8x8"), "height"),
        (("scale", "{files}", "--workers", "0"), "at least 1"),
        (("train", "--precision", "foo"), "mixed_bfloat16"),
        (("train", "--model", "resnet_tiny", "--size", "32x32", "--parts", "3"), "multiple of 3"),
        (("report", "{broken}", "--out", "{broken}/out"), "x.json is no JSON"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: tuple[str, ...], told: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text("{")
    spelled = [word.format(files=files[0], broken=tmp_path) for word in words]
    result = CliRunner().invoke(main, spelled)
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.output.split())


def test_a_file_that_cannot_be_read_is_told_in_one_line(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(Path(files[0]).read_bytes()[:900])
    result = CliRunner().invoke(main, ["decode", str(tmp_path / "cut.dcm"), "--repeats", "1"])
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
