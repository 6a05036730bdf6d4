"""Every option of `bcd-prep run` changes what it says it changes, from the command line down."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless

from bench.phantom_dicom import DicomSpec, write_dicom
from preprocess import cli, gpus, pipeline
from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.options import execution_options, prep_config, result_options
from preprocess.records import ImageHeader, RoiMethod, SourceFile, VoiSource

ROWS, COLUMNS = 320, 240


def breast() -> np.ndarray:
    """A bright half disc at the right edge of a dark frame, values 100 to 3100."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    inside = (row - ROWS / 2) ** 2 / 110**2 + (column - COLUMNS) ** 2 / 140**2 < 1
    texture = np.random.default_rng(5).integers(0, 600, (ROWS, COLUMNS))
    return np.where(inside, 2000 + texture + column, 100 + texture // 60).astype(np.uint16)


def spec(**fields: object) -> DicomSpec:
    fields = {
        "transfer_syntax_uid": JPEG2000Lossless,
        "bits_stored": 12,
        "windows": (("2048", "4096"), ("2000", "800")),
        "patient_id": "P1",
        **fields,
    }
    return DicomSpec(**fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dicom(tmp_path_factory.mktemp("one") / "image.dcm", breast(), spec())


def config_of(*words: str) -> PrepConfig:
    seen: list[PrepConfig] = []

    @click.command()
    @result_options
    @execution_options
    @click.pass_context
    def command(ctx: click.Context, /, **_: object) -> None:
        seen.append(prep_config(ctx))

    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def trace(path: Path, *words: str) -> pipeline.Trace:
    source = SourceFile(path.name, str(path), explicit=True)
    return pipeline.steps(source, config_of(*words).result, CpuDecoder())


def code(path: Path, *words: str) -> str | None:
    reject = trace(path, *words).reject
    return reject.code if reject else None


def test_size_and_bits(file: Path) -> None:
    prepared = trace(file, "--size", "96x48", "--bits", "8").prepared
    assert prepared is not None
    assert (prepared.pixels.shape, prepared.pixels.dtype) == ((96, 48), np.uint8)


@pytest.mark.parametrize("policy", ["minmax", "percentile", "full"])
def test_window_policy(file: Path, policy: str) -> None:
    prepared = trace(file, "--window", policy).prepared
    assert prepared is not None
    assert prepared.voi.source is VoiSource(policy)


def test_voi_index(file: Path) -> None:
    first, second = trace(file).prepared, trace(file, "--voi-index", "1").prepared
    assert first is not None
    assert second is not None
    assert (first.voi.window.width, second.voi.window.width) == (4096, 800)  # type: ignore[union-attr]


def test_voi_prefers_lut_or_window(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTData = (np.arange(4096, dtype="<u2") * 16).tobytes()
    path = write_dicom(tmp_path / "lut.dcm", breast(), spec(elements=(("VOILUTSequence", Sequence([lut])),)))
    sources = [trace(path, "--voi", kind).prepared.voi.source for kind in ("window", "lut")]  # type: ignore[union-attr]
    assert sources == [VoiSource.WINDOW, VoiSource.LUT]


def test_percentiles_narrow_the_window(file: Path) -> None:
    wide = trace(file, "--window", "percentile").prepared
    narrow = trace(
        file, "--window", "percentile", "--percentile-low", "0.2", "--percentile-high", "0.8"
    ).prepared
    assert narrow.voi.window.width < wide.voi.window.width  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", ["minmax", "percentile", "full"])
def test_missing_window(tmp_path: Path, policy: str) -> None:
    path = write_dicom(tmp_path / "bare.dcm", breast(), spec(windows=()))
    assert trace(path, "--missing-window", policy).prepared.voi.source is VoiSource(policy)  # type: ignore[union-attr]
    assert code(path, "--missing-window", "reject") == "invalid_voi"


def test_for_processing(tmp_path: Path) -> None:
    elements = (("PresentationIntentType", "FOR PROCESSING"),)
    path = write_dicom(tmp_path / "raw.dcm", breast(), spec(elements=elements))
    sources = {
        policy: trace(path, "--for-processing", policy).prepared.voi.source  # type: ignore[union-attr]
        for policy in ("header", "minmax", "percentile")
    }
    assert {key: value.value for key, value in sources.items()} == {
        "header": "window", "minmax": "minmax", "percentile": "percentile"
    }  # fmt: skip
    assert code(path, "--for-processing", "reject") == "invalid_voi"


def box_of(path: Path, *words: str) -> tuple[RoiMethod, int, int, bool]:
    prepared = trace(path, *words).prepared
    assert prepared is not None
    box = prepared.geometry.box
    return box.method, box.rows, box.columns, box.flipped


def test_roi_none_keeps_the_whole_frame(file: Path) -> None:
    assert box_of(file, "--roi", "none")[:3] == (RoiMethod.WHOLE_FRAME, ROWS, COLUMNS)
    assert box_of(file)[0] is RoiMethod.BREAST


def test_orient_keep_does_not_mirror(file: Path) -> None:
    assert box_of(file)[3]
    assert not box_of(file, "--orient", "keep")[3]


def test_margin_in_pixels_without_spacing_and_in_mm_with(file: Path, tmp_path: Path) -> None:
    assert box_of(file, "--margin-px", "30")[2] == box_of(file, "--margin-px", "0")[2] + 30
    spaced = write_dicom(tmp_path / "spaced.dcm", breast(), spec(pixel_spacing_mm=(0.5, 0.5)))
    assert box_of(spaced, "--margin-mm", "10")[2] == box_of(spaced, "--margin-mm", "0")[2] + 20
    assert box_of(spaced, "--margin-px", "99") == box_of(spaced, "--margin-px", "0")


def corner(thumbnail: np.ndarray, header: ImageHeader) -> tuple[int, int, int, int]:
    """A detector that always finds the same box."""
    assert thumbnail.ndim == 2
    return 10, 20, header.rows // 2, header.columns // 3


def test_roi_detector(file: Path) -> None:
    found = box_of(file, "--roi-detector", "tests.test_options_take_effect:corner")
    assert found[:3] == (RoiMethod.DETECTOR, ROWS // 2, COLUMNS // 3)


def test_decode_chooses_the_wavelet_level(file: Path) -> None:
    words = ("--size", "64x32")
    levels = [trace(file, *words, "--decode", mode).mammogram.level for mode in ("auto", "full", "1", "31")]  # type: ignore[union-attr]
    assert levels[1:3] == [0, 1]
    assert levels[0] >= 1
    assert levels[3] == max(levels)
    assert trace(file, *words, "--decode-margin", "4").mammogram.level < levels[0]  # type: ignore[union-attr]


def test_modality(tmp_path: Path, file: Path) -> None:
    ct = write_dicom(tmp_path / "ct.dcm", breast(), spec(modality="CT"))
    assert code(ct, "--modality", "MG") == "modality"
    assert code(ct) is None
    assert code(file, "--modality", "MG") is None  # no Modality passes


def test_frames(tmp_path: Path) -> None:
    frames = [breast(), breast() // 2, breast() // 3]
    payload = np.stack(frames).astype("<u2").tobytes()
    native = spec(transfer_syntax_uid=ExplicitVRLittleEndian, elements=(("NumberOfFrames", 3),))
    path = write_dicom(tmp_path / "three.dcm", breast(), native, payload)
    assert code(path) == "multi_frame"
    for option, index in (("first", 0), ("middle", 1)):
        assert np.array_equal(trace(path, "--frames", option).mammogram.pixels, frames[index])  # type: ignore[union-attr]


def test_bits_overflow(tmp_path: Path) -> None:
    pixels = breast()
    pixels[160, 200] = 5000
    native = spec(transfer_syntax_uid=ExplicitVRLittleEndian)
    path = write_dicom(tmp_path / "over.dcm", breast(), native, pixels.astype("<u2").tobytes())
    assert trace(path).mammogram.above_bits_stored == 1  # type: ignore[union-attr]
    assert code(path, "--bits-overflow", "reject") == "pixels_above_bits_stored"


def test_limits(file: Path, tmp_path: Path) -> None:
    assert code(file, "--max-file-bytes", "1000") == "file_too_large"
    assert code(file, "--max-pixels", "1000") == "too_many_pixels"
    deflated = spec(transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    flat = np.zeros((3000, 3000), np.uint16)  # small data sets may always inflate to 1 MiB and more
    flat[0, 0] = 7
    bomb = write_dicom(tmp_path / "bomb.dcm", flat, deflated)
    assert len(zlib.compress(flat.tobytes())) * 20 < flat.nbytes
    assert code(bomb, "--max-inflate-bytes", "1000") == "inflate_limit"
    assert code(bomb, "--max-inflate-ratio", "2") == "inflate_limit"
    assert code(bomb, "--max-inflate-ratio", "100000") != "inflate_limit"


def test_sequence_depth(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    inner = Dataset()
    for _ in range(6):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    elements = (("ReferencedImageSequence", Sequence([inner])),)
    path = write_dicom(tmp_path / "deep.dcm", breast(), spec(elements=elements))
    assert code(path, "--max-sequence-depth", "3") == "sequence_too_deep"
    assert code(path, "--max-sequence-depth", "20") is None


# What only a whole run shows, through the command line itself.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("in")
    for number in range(6):
        pixels = breast() + np.uint16(number)
        who = spec(patient_id=f"P{number // 2}", instance=f"i{number}")
        write_dicom(root / f"P{number // 2}" / f"{number}.dcm", pixels, who)
    (root / "broken.dcm").write_bytes(b"not DICOM at all")
    return root


def run_cli(folder: Path, out: Path, *words: str) -> tuple[int, str]:
    arguments = ["run", str(folder), "--out", str(out), "--size", "64x32", "--workers", "1", *words]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def rows_of(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "instances.parquet")


def test_max_rejected_decides_the_exit_code(folder: Path, tmp_path: Path) -> None:
    assert run_cli(folder, tmp_path / "a", "--max-rejected", "0")[0] == 3
    assert run_cli(folder, tmp_path / "b", "--max-rejected", "1")[0] == 0


def test_folds_seed_shard_images_encoding_format_limit(folder: Path, tmp_path: Path) -> None:
    words = ["--folds", "2", "--shard-images", "2", "--encoding", "raw", "--format", "parquet"]
    assert run_cli(folder, tmp_path / "a", *words, "--limit", "5")[0] == 0
    rows = rows_of(tmp_path / "a")
    assert len(rows) == 5
    assert set(rows.fold.dropna()) <= {0, 1}
    assert rows.groupby("shard").size().max() == 2
    shard = pd.read_parquet(next((tmp_path / "a").rglob("part-*.parquet")))
    assert set(shard.format) == {"raw"}
    assert not list((tmp_path / "a").rglob("*.tfrecord"))
    folds = {
        seed: tuple(rows_of(tmp_path / seed).fold)
        for seed in "0123"
        if run_cli(folder, tmp_path / seed, *words, "--seed", seed)[0] == 3
    }
    assert len(set(folds.values())) > 1


def test_identifiers_hash_uses_the_key_file(folder: Path, tmp_path: Path) -> None:
    words = ["--identifiers", "hash", "--key-file", str(tmp_path / "secret")]
    run_cli(folder, tmp_path / "a", *words)
    run_cli(folder, tmp_path / "b", *words)
    run_cli(folder, tmp_path / "c", "--identifiers", "hash", "--key-file", str(tmp_path / "other"))
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    tables = [rows_of(tmp_path / name) for name in "abc"]
    assert list(tables[0].source) == list(tables[1].source) != list(tables[2].source)
    assert not tables[0].source.str.contains("P0").any()


def test_labels_and_layout(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("patient_id,cancer\nP0,1\nP1,0\nP2,0\n")
    code, output = run_cli(folder, tmp_path / "out", "--labels", str(table), "--layout", "pacs")
    assert code == 3, output
    rows = rows_of(tmp_path / "out").dropna(subset="patient_id").groupby("patient_id").cancer.max()
    assert dict(rows) == {"P0": 1, "P1": 0, "P2": 0}
    assert run_cli(folder, tmp_path / "other", "--layout", "nonsense")[0] == 2


def test_log_format_json(folder: Path, tmp_path: Path) -> None:
    _, output = run_cli(folder, tmp_path / "out", "--log-format", "json")
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {event["phase"] for event in events if event["event"] == "phase_end"} >= {"scan", "prepare"}


def test_dry_run_and_overwrite(folder: Path, tmp_path: Path) -> None:
    assert "nothing written" in run_cli(folder, tmp_path / "out", "--dry-run")[1]
    assert not (tmp_path / "out").exists()
    run_cli(folder, tmp_path / "out")
    code, output = run_cli(folder, tmp_path / "out", "--bits", "8")
    assert code == 2
    assert "bits: 16 there, 8 asked for" in output
    assert run_cli(folder, tmp_path / "out", "--bits", "8", "--overwrite")[0] == 3


def test_image_timeout_and_worker_memory_reach_the_workers(folder: Path, tmp_path: Path) -> None:
    words = ["--image-timeout-s", "0.5", "--limit", "1", "--roi-detector", "tests.toys:never"]
    assert run_cli(folder, tmp_path / "slow", *words)[0] == 3
    assert list(rows_of(tmp_path / "slow").reject_code) == ["timeout"]
    _, output = run_cli(folder, tmp_path / "slow", *words)
    assert "--retry tries again" in output
    words[1] = "0.6"
    (tmp_path / "slow" / "run.json").unlink()
    assert run_cli(folder, tmp_path / "slow", *words, "--retry")[0] == 3
    assert json.loads((tmp_path / "slow" / "run.json").read_text())["supervision"]["blamed"] == {"timeout": 1}
    assert config_of("--worker-memory", "600000000").execution.worker_memory == 600_000_000


def test_gpu_without_a_gpu_is_refused_with_what_is_missing(folder: Path, tmp_path: Path) -> None:
    code, output = run_cli(folder, tmp_path / "out", "--gpu")
    assert code == 2
    assert "--gpu cannot work here" in output
    assert not (tmp_path / "out").exists()


def test_gpu_options_reach_the_devices_and_only_inexact_decoding_changes_the_result_key() -> None:
    words = ["--devices", "1,0", "--gpu-batch", "12", "--gpu-threads", "3", "--require-gpu", "--workers", "8"]
    execution = config_of("--gpu", *words).execution
    assert execution.require_gpu
    assert execution.device_numbers(4) == (0, 1)
    assert config_of().execution.device_numbers(3) == (0, 1, 2)
    device = gpus.device(1, 2, execution)
    assert (device.name, device.cores, device.batch, device.threads) == ("1", 4, 12, 3)
    assert config_of("--gpu", *words).result.sha256() == ResultConfig().sha256()
    assert config_of("--allow-inexact-gpu").result.sha256() != ResultConfig().sha256()


def test_devices_that_are_no_numbers_are_a_usage_error(folder: Path, tmp_path: Path) -> None:
    code, output = run_cli(folder, tmp_path / "out", "--devices", "first")
    assert code == 2
    assert "--devices" in output


def test_workers_and_devices_do_not_change_the_result_key() -> None:
    assert config_of("--workers", "8").result.sha256() == ResultConfig().sha256()
    assert ExecutionConfig().worker_count() == len(os.sched_getaffinity(0))


def test_run_is_the_default_command(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, [str(folder), "--out", str(tmp_path / "out"), "--dry-run"])
    assert result.exit_code in (0, 3)
    assert "7 DICOM found" in result.output


def test_an_input_of_the_environment_may_have_spaces(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two words").symlink_to(folder)
    monkeypatch.setenv("BCD_PREP_INPUT", str(tmp_path / "two words"))
    assert run_cli_alone("--out", tmp_path / "one", "--dry-run") == 3, "all found, more rejects than wished"
    monkeypatch.setenv("BCD_PREP_INPUT", f"{folder} {tmp_path / 'none'}")
    assert run_cli_alone("--out", tmp_path / "one", "--dry-run") == 2


def run_cli_alone(*words: object) -> int:
    return CliRunner().invoke(cli.main, ["run", *map(str, words)]).exit_code


def test_a_level_in_a_file_may_be_a_number(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("decode: 1\n")
    assert config_of("--config", str(tmp_path / "config.yaml")).result.decode == "1"


def test_a_misspelt_command_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["veryfy", "OUT"])
    assert result.exit_code == 2
    assert "no such command: veryfy; did you mean verify?" in result.output
    (tmp_path / "reports").mkdir()  # this, however, is there
    result = CliRunner().invoke(cli.main, ["reports", "--out", "OUT"])
    assert "no DICOM found under reports" in result.output


def test_an_rsna_tree_without_its_table_is_told_how_to_give_one(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms / "train_images", tmp_path / "in" / "train_images")
    words = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--dry-run", "--workers", "1"]
    told = CliRunner().invoke(cli.main, words)
    assert "no train.csv with its usual columns lies beside the images" in told.output
    assert told.output.count("--labels") == 1
    told = CliRunner().invoke(cli.main, [*words, "--labels", str(phantoms / "train.csv")])
    assert told.exit_code == 0
    assert "no labels" not in told.output


@pytest.mark.parametrize("command", ["run", "verify", "inspect", "report", "doctor"])
def test_help_of_every_command_shows_its_defaults_and_imports_nothing_heavy(command: str) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from click.testing import CliRunner; from preprocess import cli;"
        f"result = CliRunner().invoke(cli.main, [{command!r}, '--help']);"
        "assert result.exit_code == 0 and 'Usage' in result.output, result.output;"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'scipy', 'pydicom', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
