from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.errors import UsageError
from preprocess.options import execution_options, option_names, prep_config, result_options

seen: list[PrepConfig] = []


@click.command()
@result_options
@execution_options
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> None:
    seen.append(prep_config(ctx))


def config_of(*arguments: str, env: dict[str, str] | None = None) -> PrepConfig:
    seen.clear()
    result = CliRunner().invoke(command, arguments, env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_defaults_are_the_config_s_own() -> None:
    assert config_of() == PrepConfig()


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "prep.yaml"
    file.write_text("size: 512x256\nfolds: 3\nseed: 7\nmargin-mm: 2.5\nformat: [parquet]\n")
    config = config_of(
        "--config", str(file), "--seed", "9", env={"BCD_PREP_FOLDS": "4", "BCD_PREP_SEED": "8"}
    ).result
    assert (config.height, config.width) == (512, 256)
    assert (config.folds, config.seed, config.margin_mm) == (4, 9, 2.5)
    assert [item.value for item in config.formats] == ["parquet"]


def test_formats_are_kept_in_one_order_whatever_order_they_are_given_in() -> None:
    one = config_of("--format", "png", "--format", "tfrecord").result
    other = config_of("--format", "tfrecord", "--format", "png").result
    assert one == other
    assert one.sha256() == other.sha256()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "12"], "--bits: must be 8 or 16"),
        (["--decode", "quarter"], "--decode: must be auto, full or a level"),
        (["--max-rejected", "200%"], "--max-rejected: must be"),
        (["--max-rejected", "many"], "--max-rejected: "),
        (["--size", "4x4"], "--size: "),
        (["--margin-mm", "nan"], "--margin-mm: Input should be"),
        (["--percentile-low", "0.9", "--percentile-high", "0.1"], "--percentile-low must be below"),
    ],
)
def test_impossible_values_are_usage_errors_that_name_the_option(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments", [["--margin-mm", "-1"], ["--folds", "0"], ["--decode-margin", "9"], ["--window", "wide"]]
)
def test_values_out_of_range_are_refused_with_the_range(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output


def test_a_config_file_may_give_a_count_or_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "prep.yaml"
    file.write_text("max-rejected: 10\n")
    assert config_of("--config", str(file)).execution.max_rejected == "10"
    file.write_text("# nothing yet\n")
    assert config_of("--config", str(file)) == PrepConfig()


@pytest.mark.parametrize("size", ["1024", "ax512", "1024x512x3", "-1x5"])
def test_malformed_sizes_are_refused(size: str) -> None:
    result = CliRunner().invoke(command, ["--size", size])
    assert result.exit_code == 2
    assert "HEIGHTxWIDTH" in result.output


@pytest.mark.parametrize("text", ["[1, 2]", "colour: blue", "{", "folds: many"])
def test_a_bad_config_file_is_a_usage_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prep.yaml"
    file.write_text(text)
    with pytest.raises(UsageError):
        CliRunner().invoke(command, ["--config", str(file)], catch_exceptions=False)


def test_every_config_field_has_an_option_and_a_help_text() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    for name in option_names():
        assert name in text
    for model in (ResultConfig, ExecutionConfig):
        assert all(field.description for field in model.model_fields.values())


def test_only_what_decides_the_result_is_hashed() -> None:
    assert config_of("--workers", "3", "--max-rejected", "9").result.sha256() == ResultConfig().sha256()
    assert config_of("--seed", "3").result.sha256() != ResultConfig().sha256()


def test_requiring_a_gpu_without_using_one_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "prep.yaml"
    file.write_text("require-gpu: true\n")
    standing = {"BCD_PREP_REQUIRE_GPU": "1"}
    for words, env in ((["--require-gpu"], {}), (["--require-gpu", "--cpu"], {}), ([], standing)):
        with pytest.raises(UsageError, match="say --gpu"):
            CliRunner().invoke(command, words, env=env, catch_exceptions=False)
    with pytest.raises(UsageError, match="say --gpu"):
        CliRunner().invoke(command, ["--config", str(file)], catch_exceptions=False)
    assert config_of("--gpu", env=standing).execution.require_gpu
    assert config_of(env=standing | {"BCD_PREP_GPU": "1"}).execution.require_gpu
    assert not config_of("--cpu", env=standing | {"BCD_PREP_GPU": "1"}).execution.gpu
