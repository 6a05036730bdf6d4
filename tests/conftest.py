from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from bench.phantom import PhantomSpec, generate
from tests.kernels.fixtures import compiled_kernels, cupy_kernels, device_kernels, kernels, twins

# Fixtures of every test that runs under several libraries, as SciPy's `xp`.
__all__ = ["compiled_kernels", "cupy_kernels", "device_kernels", "kernels", "twins"]

settings.register_profile("untimed", deadline=None)  # a machine under load is no failure
settings.load_profile("untimed")

for _number in (signal.SIGINT, signal.SIGHUP):  # who starts tests in the background may have them ignored
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real DICOM files from elsewhere, never part of this repository."""
    folder = Path(os.environ.get("BCD_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "manifest.csv").exists():
        pytest.skip("no real test data: set BCD_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small phantom patients and one test patient, RSNA-shaped."""
    out = tmp_path_factory.mktemp("phantoms") / "data"
    generate(out, PhantomSpec(patients=10, size_factor=0.12, seed=3))
    return out
