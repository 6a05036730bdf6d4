from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from preprocess.config import ResultConfig
from preprocess.errors import UsageError
from trainer.cli import main
from trainer.config import DataConfig, ExecutionConfig, ModelConfig, OptimizationConfig, TrainConfig
from trainer.options import option_names, train_config, train_options

SECTIONS = (DataConfig, ModelConfig, OptimizationConfig, ExecutionConfig)
seen: list[tuple[TrainConfig, ExecutionConfig]] = []


@click.command()
@train_options
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> None:
    seen.append(train_config(ctx))


def configs(*arguments: str, env: dict[str, str] | None = None) -> tuple[TrainConfig, ExecutionConfig]:
    seen.clear()
    result = CliRunner().invoke(command, arguments, env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_defaults_are_the_config_s_own() -> None:
    assert configs() == (TrainConfig(), ExecutionConfig())


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("epochs: 3\nbatch-size: 4\nmodel: efficientnet_b0\nauxiliary: [BIRADS, view]\n")
    environment = {"BCD_TRAIN_EPOCHS": "5", "BCD_TRAIN_BATCH_SIZE": "6"}
    config, _ = configs("--config", str(file), "--epochs", "7", env=environment)
    assert (config.optimization.epochs, config.data.batch_size) == (7, 6)
    assert (config.model.model, config.model.auxiliary) == ("efficientnet_b0", ("BIRADS", "view"))


def test_what_is_on_by_default_can_be_turned_off() -> None:
    assert configs()[0].data.balance
    assert not configs("--no-balance")[0].data.balance
    assert not configs(env={"BCD_TRAIN_BALANCE": "0"})[0].data.balance
    assert not configs("--no-tensorboard")[1].tensorboard


def test_the_run_s_config_yaml_gives_the_same_config(tmp_path: Path) -> None:
    config, _ = configs("--positive", "BIRADS>=4", "--learning-rate", "1e-05", "--auxiliary", "view")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.flat()))
    assert configs("--config", str(file))[0] == config
    assert TrainConfig.from_flat(yaml.safe_load(file.read_text())) == config


def test_no_two_sections_have_a_field_of_one_name() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert len(set(names)) == len(names)


def test_every_field_has_an_option_and_a_help_text() -> None:
    text = CliRunner().invoke(main, ["fit", "--help"]).output
    assert all(name in text for name in option_names())
    assert all(field.description for section in SECTIONS for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "gpu"], "--devices: "),
        (["--fold", "first"], "--fold: "),
        (["--learning-rate", "nan"], "--learning-rate: "),
    ],
)
def test_impossible_values_are_usage_errors_that_name_the_option(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_fit_is_the_default_command(tmp_path: Path) -> None:
    for words in ([], ["fit"]):
        result = CliRunner().invoke(main, [*words, str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")])
        assert result.exit_code == 2
        assert "does not exist" in result.output


def test_a_misspelt_command_is_no_dataset() -> None:
    result = CliRunner().invoke(main, ["evalute", "RUN"])
    assert result.exit_code == 2
    assert "no such command: evalute; did you mean evaluate?" in result.output


def test_help_imports_nothing_heavy() -> None:
    heavy: Any = ("keras", "tensorflow", "jax", "albumentations", "sklearn", "matplotlib", "pyarrow", "yaml")
    code = f"import sys, trainer.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_meant_is_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    empty, out, run = str(tmp_path / "empty"), str(tmp_path / "out"), tmp_path / "run"
    (tmp_path / "empty").mkdir()
    (run / "fold=0").mkdir(parents=True)
    (run / "fold=0" / "result.json").write_text("{}")
    (run / "config.yaml").write_text(yaml.safe_dump(TrainConfig().flat()))
    (run / "preprocessing.json").write_text(ResultConfig().model_dump_json())
    asked = [
        ["fit", empty, "--out", out],
        ["fit", empty, "--out", out, "--model", "alexnet"],
        ["evaluate", empty],
        ["report", empty],
        ["predict", empty, "x.dcm", "--out", out],
        ["predict", empty, "x.dcm", "--out", out, "--max-rejected", "many"],
        ["explain", empty, "x.dcm", "--out", out],
        ["export", empty, "--format", "onnx"],
        ["predict", str(run), "nowhere.dcm", "--out", out],
        ["explain", str(run), "nowhere.dcm", "--out", out],
    ]
    code = f"""
import sys
from click.testing import CliRunner
from trainer.cli import main
for words in {asked}:
    result = CliRunner().invoke(main, words)
    heavy = sys.modules.keys() & {{"keras", "tensorflow", "jax", "albumentations", "sklearn", "matplotlib"}}
    assert (result.exit_code, heavy) == (2, set()), (words, heavy, result.output)
    print(result.output)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = (
        "manifest.json",
        "alexnet",
        "no run of bcd-train",
        "--max-rejected",
        "no finished model",
        "nowhere",
    )
    assert all(part in done.stdout for part in parts)


def test_models_and_augmentation_presets_are_told(tmp_path: Path) -> None:
    assert "convnext_tiny" in CliRunner().invoke(main, ["models"]).output
    shown = CliRunner().invoke(main, ["augment", "light"])
    assert yaml.safe_load(shown.output)
    assert CliRunner().invoke(main, ["augment", "light", "--out", str(tmp_path / "a.yaml")]).exit_code == 0
    assert (tmp_path / "a.yaml").read_text() == shown.output
