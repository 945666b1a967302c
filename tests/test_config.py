"""Settings are read strictly."""

from pathlib import Path

import pytest

from spoofkit.config import load_config
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json

RECIPES = Path(__file__).parents[1] / "egs"


def problem(text: str, tmp_path: Path) -> str:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(SpoofkitError) as caught:
        load_config(path)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("finetune: {n_step: 5}", "unknown setting finetune.n_step; did you mean 'n_steps'?"),
        ("zzz: 1", "unknown setting zzz; expected one of seed, crop_samples, encoder, mix, posttrain, finetune"),
        ("seed: 1\nseed: 2", "the key 'seed'"),
        ("seed: -1", "seed: Input should be greater than or equal to 0, found -1"),
        ("mix: {share: [0, 0.3]}", "share: must be above 0 and at most 0.9"),
        ("mix: {share: [0.3, 1]}", "share: must be above 0 and at most 0.9"),
        ("mix: {n_regions: [3, 1]}", "the first number must not be above the second"),
        (
            "mix: {join: crossfade, crossfade_samples: 900, min_region_samples: 1600}",
            "two cross-fades (1800 samples) must fit",
        ),
        ("mix: {crossfade_samples: 160}", "crossfade_samples: is not used with join: cut"),
        (
            "mix: {pairing: self, offset: aligned}",
            "pairing 'self' with offset 'aligned' would replace samples by themselves",
        ),
        ("encoder: {name: tiny, freeze: stem}", "freeze: tiny starts from random weights"),
        ("crop_samples: 3200", "regions of at least 1600 samples are more than 30%"),
        ("posttrain: {optim: {lr: .nan}}", "posttrain.optim.lr"),
        ("- a list", "found list, expected settings"),
        ("seed: [", "not valid YAML"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in problem(text, tmp_path)


def test_a_number_without_a_dot_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("encoder: {freeze: none}\nfinetune: {optim: {lr: 1e-7}}")
    assert load_config(tmp_path / "conf.yaml").finetune.optim.lr == 1e-7


def test_an_override_changes_one_section_even_where_the_file_shares_them() -> None:
    config = load_config(RECIPES / "mini/conf/tiny.yaml", ["finetune.optim.lr=5e-6"])
    assert (config.posttrain.optim.lr, config.finetune.optim.lr) == (1e-3, 5e-6)


def test_merged_sections_may_be_changed(tmp_path: Path) -> None:
    text = "posttrain: {optim: &o {lr: 3e-4}}\nfinetune: {optim: {<<: *o, head_lr: 2e-3}}"
    (tmp_path / "conf.yaml").write_text(text)
    assert load_config(tmp_path / "conf.yaml").finetune.optim.lr == 3e-4


def test_a_wrong_override_is_blamed_and_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("seed: 1")
    for override in ("mix.n_train=yes", "mix.share=[0.3]", "seed=one"):
        with pytest.raises(SpoofkitError) as caught:
            load_config(tmp_path / "conf.yaml", [override])
        assert str(caught.value).startswith(f"--set {override}: ")


def test_overrides_win_over_the_file_and_are_checked(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("encoder: {freeze: none}\nseed: 3")
    config = load_config(tmp_path / "conf.yaml", ["seed=4", "finetune.optim.lr=2e-6"])
    assert (config.seed, config.finetune.optim.lr) == (4, 2e-6)
    with pytest.raises(SpoofkitError, match=r"unknown setting optimizer"):
        load_config(None, ["optimizer.lr=1"])
    with pytest.raises(SpoofkitError, match=r"expected section.key=value"):
        load_config(None, ["seed"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/conf/*.yaml")), ids=lambda p: f"{p.parts[-3]}/{p.name}")
def test_every_recipe_setting_is_valid(path: Path) -> None:
    config = load_config(path)
    assert config.posttrain.optim.lr > 0


def test_all_recipes_are_looked_at() -> None:
    assert {p.parts[-3] for p in RECIPES.glob("*/conf/*.yaml")} == {p.parent.name for p in RECIPES.glob("*/run.sh")}
    assert len(list(RECIPES.glob("*/run.sh"))) >= 4


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB, MERGE_BOMB, "seed: &a [*a]", "seed: &a {b: *a}",
        "seed: " + "[" * 3000 + "]" * 3000, "seed: " + "9" * 5000,
        "seed: 1:30:00", "seed: -1:30", "seed: 010", "seed: 2026-99-99", "seed: !!python/object/apply:os.getpid []",
    ],
    ids=["bomb", "merge bomb", "list in itself", "key in itself", "deep", "long", "base 60", "minus", "octal", "day",
         "Python"],
)  # fmt: skip
def test_yaml_that_explodes_or_means_another_number_is_refused_by_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text(text)
    with pytest.raises(SpoofkitError, match=r"conf\.yaml"):
        load_config(tmp_path / "conf.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "9" * 5000, '{"a": ' * 5000 + "1" + "}" * 5000])
def test_json_that_is_too_deep_or_has_too_long_a_number_is_refused_by_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(SpoofkitError, match=r"record\.json: not valid JSON"):
        read_json(tmp_path / "record.json")
