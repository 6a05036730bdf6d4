"""The images' files keep their rules, name what exists, and set what `bcd-prep` reads."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from bench.phantom_dicom import DicomSpec, write_dicom
from preprocess import cli
from tests.docker.dockerfile import Dockerfile, filled, findings, parse

ROOT = Path(__file__).resolve().parents[2]
FILES = {name: ROOT / "docker" / f"{name}.Dockerfile" for name in ("prep", "train")}
LOCKS = {"prep": ("gpu-cu13", "gpu-cu12", "prep"), "train": ("train-gpu", "train-jax-gpu")}
EVERY_LOCK = sorted({*LOCKS["prep"], *LOCKS["train"], "build", "dev"})

GOOD = """
ARG BASE=python:3.12-slim
FROM ${BASE} AS build
RUN pip install --require-hashes -r requirements-dev.lock
FROM ${BASE}
LABEL org.opencontainers.image.title=a org.opencontainers.image.description=b \\
      org.opencontainers.image.licenses=c org.opencontainers.image.version=d \\
      org.opencontainers.image.revision=e
COPY --from=build /opt/bcd /opt/bcd
COPY README.md ./
ENV HOME=/tmp TMPDIR=/tmp XDG_CACHE_HOME=/tmp/a NUMBA_CACHE_DIR=/tmp/b \\
    MPLCONFIGDIR=/tmp/c CUDA_CACHE_PATH=/tmp/d
USER 1000:0
HEALTHCHECK CMD ["true"]
CMD ["true"]
"""


def read(kind: str) -> Dockerfile:
    return parse(FILES[kind].read_text())


@pytest.mark.parametrize("kind", FILES)
def test_a_dockerfile_keeps_every_rule(kind: str) -> None:
    assert findings(FILES[kind].read_text(), ROOT) == []


def test_the_rules_find_nothing_in_a_file_that_keeps_them() -> None:
    assert findings(GOOD, ROOT) == []


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ("FROM ${BASE}\n", "FROM python:3.12\n", "base_is_an_argument"),
        ("python:3.12-slim", "python", "base_has_a_tag"),
        ("python:3.12-slim", "python:latest", "base_has_a_tag"),
        ("python:3.12-slim", "registry:5000/python", "base_has_a_tag"),
        ("USER 1000:0", "USER root", "user_is_not_root"),
        ("USER 1000:0", "USER bcd", "user_is_not_root"),
        ("USER 1000:0\n", "", "user_is_not_root"),
        ("HEALTHCHECK", "# HEALTHCHECK", "has_a_health_check"),
        ('\nCMD ["true"]', "\nCMD true", "command_is_exec_form"),
        ("COPY README.md", "ADD README.md", "nothing_is_fetched"),
        ("RUN pip", "RUN curl x | sh && pip", "nothing_is_fetched"),
        ("--require-hashes ", "", "pip_checks_hashes"),
        ("USER", "RUN pip install --require-hashes -r a.lock\nUSER", "pip_checks_hashes"),
        ("RUN pip", "RUN apt-get update && apt-get install gcc && pip", "apt_leaves_nothing"),
        ("COPY README.md", "COPY NOTHING.md", "sources_exist"),
        ("--from=build", "--from=elsewhere", "stages_exist"),
        ("HOME=/tmp", "HOME=/home/bcd", "writes_to_tmp_only"),
        ("MPLCONFIGDIR=/tmp/c ", "", "writes_to_tmp_only"),
        ("org.opencontainers.image.licenses=c ", "", "is_labelled"),
    ],
)
def test_every_rule_finds_what_it_is_for(good: str, bad: str, rule: str) -> None:
    assert good in GOOD
    assert rule in {finding.partition(":")[0] for finding in findings(GOOD.replace(good, bad), ROOT)}


@pytest.mark.parametrize(("kind", "lock"), [(kind, lock) for kind, locks in LOCKS.items() for lock in locks])
def test_every_lock_that_a_dockerfile_offers_is_there(kind: str, lock: str) -> None:
    copied = [word for each in read(kind).all("COPY") for word in each.words() if "${LOCK}" in word]
    assert copied
    for name in copied:
        assert (ROOT / filled(name, {"LOCK": lock})).is_file()
    assert lock in FILES[kind].read_text().partition("FROM")[0], "the header does not name this lock"


@pytest.mark.parametrize("lock", EVERY_LOCK)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(lock: str) -> None:
    text = (ROOT / f"requirements-{lock}.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[\w.-]+==[\w.+!-]+( ;[^\\]*)? \\\n", entry) for entry in entries)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|^-", text, re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / f"requirements-{lock}.lock").read_text()
    return dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", sorted({*EVERY_LOCK} - {"prep", "build"}))
def test_every_image_prepares_with_the_same_versions(lock: str) -> None:
    """Equal bytes are promised for equal locks: what bcd-prep computes with is the same in all of them."""
    assert pins("prep").items() <= pins(lock).items()


def test_cuda_12_and_13_are_never_in_one_lock() -> None:
    for lock in EVERY_LOCK:
        builds = {name[-4:] for name in pins(lock) if name.endswith(("cu12", "cu13"))}
        assert len(builds) <= 1, lock


def test_the_build_lock_is_made_of_what_the_build_system_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {re.split(r"[<>=!~ ]", each)[0] for each in project["build-system"]["requires"]}
    assert names <= pins("build").keys()


def variables(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        named = parameter.envvar
        yield from [named] if isinstance(named, str) else named or ()


@pytest.mark.parametrize("kind", FILES)
def test_variables_for_bcd_prep_are_options_of_it(kind: str) -> None:
    given = {name for name in read(kind).environment() if name.startswith("BCD_PREP_")}
    assert given <= set(variables(cli.run))
    assert kind != "prep" or given == {"BCD_PREP_INPUT", "BCD_PREP_OUT"}


@pytest.mark.skipif(importlib.util.find_spec("trainer.cli") is None, reason="this version has no bcd-train")
def test_variables_for_bcd_train_are_options_of_it() -> None:
    main = importlib.import_module("trainer.cli").main
    known = {name for command in main.commands.values() for name in variables(command)}
    assert {name for name in read("train").environment() if name.startswith("BCD_TRAIN_")} <= known


@pytest.mark.parametrize("kind", FILES)
def test_folders_of_the_environment_are_volumes_made_for_the_user(kind: str) -> None:
    file = read(kind)
    ours = {name: value for name, value in file.environment().items() if name.startswith("BCD_")}
    assert ours.pop("BCD_TRAIN_BACKEND", None) == file.environment().get("KERAS_BACKEND")
    places = set(ours.values())
    assert places == set(file.last("VOLUME")[0].words())
    made = " ".join(each.rest for each in file.last("RUN"))
    assert all(place in made for place in places)


def test_the_health_checks_are_commands_that_exist() -> None:
    for kind in FILES:
        words = read(kind).last("HEALTHCHECK")[0].rest.partition("CMD ")[2]
        program, command, *flags = yaml.safe_load(words)
        assert program == "bcd-prep"
        known = {name for parameter in cli.main.commands[command].params for name in parameter.opts}
        assert set(flags) <= known


def test_one_option_is_enough_where_the_environment_names_the_folders(tmp_path: Path) -> None:
    """`bcd-prep --cpu` (in an image: --gpu) with nothing else said."""
    given = {"BCD_PREP_INPUT": str(tmp_path / "in"), "BCD_PREP_OUT": str(tmp_path / "out")}
    (tmp_path / "in").mkdir()
    pixels = np.add.outer(range(200), range(160)).astype(np.uint16)
    write_dicom(tmp_path / "in" / "a.dcm", pixels, DicomSpec(bits_stored=12))
    done = CliRunner().invoke(cli.main, ["--cpu", "--dry-run"], env=given)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("1 DICOM found")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    return loaded


def default_of(text: str) -> str:
    """${NAME:-default} → default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("kind", FILES)
def test_a_service_builds_its_image_and_runs_it_strictly(kind: str) -> None:
    service = compose()["services"][kind]
    assert (ROOT / "docker" / service["build"]["context"]).resolve() == ROOT
    assert ROOT / service["build"]["dockerfile"] == FILES[kind]
    for name, value in service["build"]["args"].items():
        assert read(kind).arguments()[name] == default_of(value)
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert default_of(service["user"]).partition(":")[0] == read(kind).arguments()["UID"]


@pytest.mark.parametrize("kind", FILES)
def test_a_service_mounts_what_its_image_reads_and_writes(kind: str) -> None:
    loaded = compose()
    mounts = [default_of(text).split(":") for text in loaded["services"][kind]["volumes"]]
    assert {target for _, target, *_ in mounts} == set(read(kind).last("VOLUME")[0].words())
    assert {name for name, *_ in mounts} <= set(loaded["volumes"])
    assert mounts[0][2:] == ["ro"]
    assert mounts[1][2:] == []


def test_the_context_holds_what_is_copied_and_no_data() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    sources = {word for file in map(read, FILES) for each in file.all("COPY") if not each.flags
               for word in each.words()[:-1]}  # fmt: skip
    assert lines[1] == "*"
    assert {re.sub(r"requirements-.*\.lock", "requirements-*.lock", name) for name in sources} == kept
