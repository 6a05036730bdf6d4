from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from bench import compare, peers, stages
from bench.measure import Measurement, Pass
from bench.peers import PEERS, PeerBox
from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from bench.results import begin
from bench.results_report import table
from preprocess import doctor_gpu
from preprocess.config import ResultConfig

SIZE = (64, 32)
CONFIG = ResultConfig(height=64, width=32)


@pytest.fixture(scope="module")
def files(phantoms: Path) -> tuple[str, ...]:
    return stages.spread_out(stages.dicom_paths([str(phantoms)]), 3)


def verdict(name: str, stored: int = 2, inverted: int = 0, note: str = "") -> compare.Verdict:
    return compare.Verdict(name, 2, stored, (), inverted, 50.0, 49.0, 7, 0.9, note)


def test_every_module_is_listed() -> None:
    assert peers.__file__ is not None
    modules = {path.stem for path in Path(peers.__file__).parent.glob("[!_]*.py")}
    assert modules == set(PEERS)


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="no peer 'os'"):
        peers.load("os")


def test_nothing_of_the_product_and_of_help_imports_a_peer() -> None:
    code = (
        "import sys, preprocess.cli, preprocess.tasks, bench.cli, bench.commands;"
        "print([m for m in sys.modules if m.startswith("
        "('cv2', 'dicomsdl', 'nvidia', 'cupy', 'monai', 'torch', 'itk', 'bench.peers.'))])"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_peer_that_is_not_installed_is_reported(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bench.peers.dali", None)
    found = compare.compare(files[:1], SIZE, ["dali"], tmp_path, repeats=1)
    ours, absent = found.measurements
    assert ours.passes
    assert not absent.passes
    assert "not installed" in absent.note
    assert "not installed" in found.verdicts[1].note
    text = table(begin("peers", "x").finish("mix", found.measurements, 1, found.verdicts))
    assert "| dali | not installed" in text


@pytest.mark.parametrize("module", ["dali_gpu", "nvimagecodec"])
def test_a_peer_without_its_gpu_is_reported_as_such(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise OSError("no driver library")

    monkeypatch.setattr(doctor_gpu, "load_driver", no_driver)
    monkeypatch.delitem(sys.modules, f"bench.peers.{module}", raising=False)
    pytest.importorskip("cv2")
    assert compare._presence(module) == (module, "no GPU here")


def test_of_packages_that_exclude_each_other_the_installed_one_is_named() -> None:
    assert peers.either("no-such-package", "pydicom") == "pydicom"
    assert peers.either("no-such-package", "nor-this") == "no-such-package"


def test_the_gpu_peers_arithmetic_is_opencvs_area_filter() -> None:
    """Run on NumPy: stretched to 16 bits as DALI does for 12, cropped, shrunk by matrices, windowed."""
    usual = pytest.importorskip("bench.peers._usual", exc_type=ImportError)
    from bench.peers._gpu import small_picture

    row, column = np.mgrid[:800, :600]
    inside = (row - 400) ** 2 / 300**2 + column**2 / 350**2 < 1
    values = np.where(inside, 1500 + (row * 7 + column * 3) % 900, 20).astype(np.uint16)
    stretched = np.rint(values * (65535 / 4095)).astype(np.uint16)
    display = usual.Display(2048, 4096, "LINEAR", False)
    wanted = usual.window_last(values, display, 256, 128)
    given = small_picture(stretched, 12, display, (256, 128), np)
    assert given.box == wanted.box
    assert np.abs(given.pixels.astype(int) - wanted.pixels).max() <= 16  # half a stored value: OpenCV rounds


def test_ours_at_full_decode_equals_the_reference(files: tuple[str, ...], tmp_path: Path) -> None:
    found = compare.compare(files, (250, 120), [], tmp_path, repeats=1)  # too large for any level but 0
    assert found.verdicts[0].whole
    assert found.verdicts[0].error_most == 0
    assert found.verdicts[0].box_iou_median == 1


def test_a_picture_of_a_file_that_we_reject_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    blank = write_dicom(tmp_path / "blank.dcm", np.zeros((300, 200), np.uint16), DicomSpec(bits_stored=12))
    work = compare.PeerWork("x", "X", (str(blank),), SIZE, str(tmp_path))
    place = tmp_path / stages.picture_name(str(blank))
    Path(f"{place}.json").write_text(json.dumps(asdict(PeerBox(0, 0, 300, 200, False))))
    Path(f"{place}.png").write_bytes(imagecodecs.png_encode(np.zeros(SIZE, np.uint16)))
    found = compare._judge_peer(work, CONFIG)
    assert (found.stored, found.refused) == (0, (("no reference: blank_image", 1),))
    assert not found.whole


def test_pillow_keeps_eight_bits(tmp_path: Path) -> None:
    from bench.peers import pillow

    pixels = np.tile(np.arange(200, dtype=np.uint8), (300, 1))
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-2000"], bits_stored=8, windows=(("128", "256"),))
    picture = pillow.prepare(str(write_dicom(tmp_path / "a.dcm", pixels, spec)), *SIZE)
    assert picture.pixels.max() > 40_000


def test_an_inverted_picture_is_found_out(files: tuple[str, ...], tmp_path: Path) -> None:
    box = PeerBox(20, 0, 200, 120, False)
    reference, _ = compare.reference_picture(files[0], box, CONFIG)
    for name, pixels in (("right", reference.pixels), ("wrong", 65535 - reference.pixels)):
        (tmp_path / f"{name}.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    right, wrong = (compare._judged(files[0], tmp_path / f"{n}.png", box, CONFIG) for n in ("right", "wrong"))
    assert (right.upright, right.error) == (True, 0)
    assert not wrong.upright
    assert wrong.psnr_db < 20


def test_psnr_of_one_step_everywhere_is_96_decibels() -> None:
    zeros = np.zeros((4, 4), np.int64)
    assert compare.psnr_db(zeros, zeros + 1) == pytest.approx(96.33, abs=0.01)
    assert compare.psnr_db(zeros, zeros) == float("inf")


def test_overlap_is_intersection_over_union() -> None:
    one = PeerBox(0, 0, 10, 10, False)
    assert compare.overlap(one, one) == 1
    assert compare.overlap(one, PeerBox(0, 5, 10, 10, True)) == pytest.approx(1 / 3)
    assert compare.overlap(one, PeerBox(20, 20, 5, 5, False)) == 0


def test_the_best_peer_did_the_whole_job() -> None:
    names = {"bcd-prep": 1.0, "inverts": 2.0, "refuses": 3.0, "absent": 0.0, "slow": 9.0, "good": 4.0}
    measured = tuple(Measurement(n, 2, (Pass(s, s),) if s else ()) for n, s in names.items())
    verdicts = (
        verdict("bcd-prep"), verdict("inverts", inverted=1), verdict("refuses", stored=1),
        verdict("absent", stored=0, note="not installed"), verdict("slow"), verdict("good"),
    )  # fmt: skip
    best = compare.best_peer(compare.Comparison(measured, verdicts))
    assert best is not None
    assert best.name == "good"


@pytest.mark.peers
@pytest.mark.parametrize("module", PEERS)
def test_peers_are_right_where_they_can_decode(module: str, phantoms: Path, tmp_path: Path) -> None:
    peer = pytest.importorskip(f"bench.peers.{module}", exc_type=ImportError)
    wavelets = dict(stages.by_syntax(stages.dicom_paths([str(phantoms)])))[".90"]
    found = compare.compare(wavelets[:2], SIZE, [module], tmp_path, repeats=1)
    judged = found.verdicts[1]
    assert judged.name == peer.NAME
    assert judged.whole
    assert judged.psnr_median_db is not None
    assert judged.psnr_median_db > 35
