"""tools/parse_options.sh, driven by real bash on small recipes."""

import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"

RECIPE = r"""#!/usr/bin/env bash
# A small recipe.
#
#   ./run.sh --stage 1
set -euo pipefail

corpus=                 # folder of the corpus
exp="exp/one"           # results go here
augment=false           # add noise
settings=               # words
train_args=             # more words
sets=(dev eval)
LC_ALL=C
n_jobs=$((1 + 1))       # processes
stage=0                 # first stage
stop_stage=2            # last stage
  indented=1
. "TOOLS/parse_options.sh"
later=1

enter_recipe corpus
printf '%s\n' "corpus=$corpus" "exp=$exp" "augment=$augment" "n_jobs=$n_jobs" "pwd=$PWD"
printf '%s\n' "settings=$settings" "train_args=$train_args"
if stage 0 "data"; then echo ran=0; fi
if stage 1 'training'; then echo ran=1; fi
# if stage 9 "a stage that is commented out"; then
if stage 2 "report"; then echo ran=2; fi
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe's run.sh in a folder of its own."""
    path = tmp_path / "egs" / "a recipe" / "run.sh"
    path.parent.mkdir(parents=True)
    path.write_text(RECIPE.replace("TOOLS", str(TOOLS)))
    return path


def run(recipe: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(recipe), *arguments]
    return subprocess.run(command, cwd=cwd or recipe.parent, capture_output=True, text=True, timeout=20)


def values(recipe: Path, *arguments: str, cwd: Path | None = None) -> dict[str, str]:
    done = run(recipe, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if not line.startswith("ran="))


def refusal(recipe: Path, *arguments: str) -> str:
    """The one sentence with which the recipe refuses its arguments, having run nothing."""
    done = run(recipe, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_without_options_the_defaults_hold_and_every_stage_runs(recipe: Path) -> None:
    done = run(recipe)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:4] == ["corpus=", "exp=exp/one", "augment=false", "n_jobs=2"]
    assert done.stdout.splitlines()[7:] == ["ran=0", "ran=1", "ran=2"]
    assert done.stderr.splitlines() == ["== Stage 0: data ==", "== Stage 1: training ==", "== Stage 2: report =="]


@pytest.mark.parametrize("arguments", [["--stop-stage", "1"], ["--stop_stage", "1"], ["--stop-stage=1"]])
def test_dashes_underscores_and_equals_mean_the_same(recipe: Path, arguments: list[str]) -> None:
    assert "ran=2" not in run(recipe, *arguments).stdout
    assert "ran=1" in run(recipe, *arguments).stdout


def test_one_stage_runs_alone(recipe: Path) -> None:
    done = run(recipe, "--stage", "1", "--stop-stage", "1")
    assert done.stderr == "== Stage 1: training ==\n"
    assert done.stdout.splitlines()[7:] == ["ran=1"]


@pytest.mark.parametrize("value", ["two words", "$(touch pwned)", "`touch pwned`", "a=b", "-1", "*", "a'b\"c"])
def test_values_are_taken_literally(recipe: Path, value: str) -> None:
    assert values(recipe, "--exp", value)["exp"] == value
    assert values(recipe, f"--exp={value}")["exp"] == value
    assert not (recipe.parent / "pwned").exists()


def test_option_names_are_never_evaluated(recipe: Path) -> None:
    assert "unknown option" in refusal(recipe, "--x[$(touch pwned)]", "1")
    assert "unknown option" in refusal(recipe, "--exp[$(touch pwned)]=1")
    assert not (recipe.parent / "pwned").exists()


def test_misspelt_option_is_refused_with_the_nearest_and_all_known(recipe: Path) -> None:
    sentence = refusal(recipe, "--sotp-stage", "3")
    assert "unknown option --sotp-stage, did you mean --stop-stage?" in sentence
    assert (
        "Known options: --corpus --exp --augment --settings --train-args --n-jobs --stage --stop-stage --help"
        in sentence
    )


@pytest.mark.parametrize("name", ["agment", "augmen", "auggment", "augmemt", "augment-"])
def test_letter_too_few_too_many_or_wrong_is_understood(recipe: Path, name: str) -> None:
    assert f"unknown option --{name}, did you mean --augment?" in refusal(recipe, f"--{name}", "true")


def test_far_fetched_name_gets_no_suggestion(recipe: Path) -> None:
    assert "did you mean" not in refusal(recipe, "--temperature", "3")


@pytest.mark.parametrize("name", ["later", "LC_ALL", "sets", "indented", "PATH", "HOME", "_po_names"])
def test_only_what_the_recipe_assigns_above_the_parser_is_an_option(recipe: Path, name: str) -> None:
    assert f"unknown option --{name}" in refusal(recipe, f"--{name}", "3")


def test_variable_that_the_environment_brings_is_no_option(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("later", "from the environment")  # assigned in the recipe too, but only below the parser
    assert "unknown option --later" in refusal(recipe, "--later", "3")


def test_missing_value_is_refused(recipe: Path) -> None:
    assert "--exp needs a value, but nothing follows it" in refusal(recipe, "--exp")
    assert "--exp needs a value, but the option --stage follows it" in refusal(recipe, "--exp", "--stage", "1")


def test_empty_value_is_refused_where_the_default_is_not_empty(recipe: Path) -> None:
    # An unset variable in the caller's script would otherwise turn "$exp/scores" into /scores.
    assert "--exp got an empty value" in refusal(recipe, "--exp", "")
    assert values(recipe, "--corpus", "")["corpus"] == ""


def test_switch_takes_true_and_false_and_is_true_alone(recipe: Path) -> None:
    # The program's messages say "pass --partial", and so it may be passed here.
    for given in (["--augment", "true"], ["--augment"], ["--augment", "--exp", "x"], ["--exp", "x", "--augment"]):
        assert values(recipe, *given)["augment"] == "true"
    assert values(recipe, "--augment", "false")["augment"] == "false"
    assert "--augment is 'yes', but must be true or false" in refusal(recipe, "--augment", "yes")


@pytest.mark.parametrize("argument", ["corpus", "-x", "--", "-"])
def test_positional_arguments_are_refused(recipe: Path, argument: str) -> None:
    assert f"unexpected argument '{argument}'" in refusal(recipe, argument)


@pytest.mark.parametrize("value", ["two", "1.5", "-1", "a[$(touch pwned)]", "1 2"])
def test_stage_that_is_no_number_is_refused(recipe: Path, value: str) -> None:
    assert f"--stage is '{value}', but must be a whole number" in refusal(recipe, "--stage", value)
    assert f"--stop-stage is '{value}', but must be a whole number" in refusal(recipe, "--stop-stage", value)
    assert not (recipe.parent / "pwned").exists()


def test_stages_that_would_run_nothing_are_refused(recipe: Path) -> None:
    assert "--stage 2 is after --stop-stage 1" in refusal(recipe, "--stage", "2", "--stop-stage", "1")
    assert "--stage is 3, but the last stage is 2" in refusal(recipe, "--stage", "3", "--stop-stage", "9")


def test_where_the_default_is_a_number_another_value_is_refused(recipe: Path) -> None:
    assert values(recipe, "--n-jobs", "012")["n_jobs"] == "12"
    assert "--n-jobs is 'many', but must be a whole number" in refusal(recipe, "--n-jobs", "many")


def test_words_add_up_and_arguments_of_verbs_begin_with_dashes(recipe: Path) -> None:
    found = values(recipe, "--settings", "a=1", "--train-args", "--fast -v", "--settings=b=2", "--train-args", "--x 3")
    assert (found["settings"], found["train_args"]) == ("a=1 b=2", "--fast -v --x 3")


def test_leading_zero_is_decimal(recipe: Path) -> None:
    assert "the last stage is 2" in refusal(recipe, "--stage", "08", "--stop-stage", "09")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_header_options_and_stages(recipe: Path, flag: str) -> None:
    done = run(recipe, "--exp", "other", flag)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("A small recipe.\n\n  ./run.sh --stage 1\n")
    assert "set -euo" not in done.stdout
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "--corpus folder of the corpus" in lines
    assert "--exp results go here [exp/one]" in lines
    assert "--n-jobs processes [2]" in lines
    assert lines[-3:] == ["0 data", "1 training", "2 report"]


READS = """#!/usr/bin/env bash
conf=conf/own.yaml
encoder=
settings=
. "TOOLS/parse_options.sh"
input_paths conf
read_settings
enter_recipe
printf '%s\\n' "conf=$conf" "settings=$settings" "encoder=$encoder" "overrides=${overrides[*]}"
"""


@pytest.fixture
def reader(recipe: Path) -> Path:
    """A recipe that reads a file, settings and an encoder, with the file that it ships."""
    recipe.write_text(READS.replace("TOOLS", str(TOOLS)))
    (recipe.parent / "conf").mkdir()
    (recipe.parent / "conf/own.yaml").touch()
    return recipe


def test_what_is_read_is_looked_for_where_it_was_typed_then_beside_the_recipe(reader: Path, tmp_path: Path) -> None:
    own = reader.parent / "conf/own.yaml"
    assert values(reader, cwd=tmp_path)["conf"] == "conf/own.yaml"
    assert values(reader, "--conf", "conf/own.yaml", cwd=tmp_path)["conf"] == str(own)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/own.yaml").touch()
    assert values(reader, "--conf", "conf/own.yaml", cwd=tmp_path)["conf"] == str(tmp_path / "conf/own.yaml")
    assert values(reader, "--conf", str(own), cwd=tmp_path)["conf"] == str(own)
    done = run(reader, "--conf", "conf/other.yaml", cwd=tmp_path)
    assert done.returncode == 1
    for folder in (tmp_path, reader.parent):
        assert str(folder / "conf/other.yaml") in done.stderr


def test_folders_inside_settings_mean_what_they_meant_where_they_were_typed(reader: Path, tmp_path: Path) -> None:
    (tmp_path / "wav lm").mkdir()
    (tmp_path / "noise").mkdir()
    settings = "seed=[0-9] encoder.name=microsoft/wavlm finetune.augment.noise_folder=noise"
    found = values(reader, "--settings", settings, "--encoder", "wav lm", cwd=tmp_path)
    assert found["settings"] == settings.replace("=noise", f"={tmp_path}/noise")
    assert found["encoder"] == f"{tmp_path}/wav lm"
    assert found["overrides"] == f"encoder.revision=null {found['settings']} encoder.name='{tmp_path}/wav lm'"
    assert values(reader, "--encoder", "microsoft/wavlm", cwd=tmp_path)["encoder"] == "microsoft/wavlm"


def test_variables_of_a_file_between_are_options_too(recipe: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared.sh"
    shared.write_text(f'HELP_OF_RECIPES="Of all recipes."\nspeed=1 # of all\n. "{TOOLS}/parse_options.sh"\nafter=1\n')
    recipe.write_text(recipe.read_text().replace(f"{TOOLS}/parse_options.sh", str(shared)))
    recipe.write_text(recipe.read_text() + 'printf "%s\\n" "speed=$speed"\n')
    assert values(recipe, "--speed", "3", "--exp", "x")["speed"] == "3"
    assert "unknown option --after" in refusal(recipe, "--after", "3")
    told = run(recipe, "--help").stdout
    assert "Of all recipes." in told
    assert told.index("--stop-stage") < told.index("--speed")
    assert "1  training" in told


def test_paths_mean_what_they_meant_where_they_were_typed(recipe: Path, tmp_path: Path) -> None:
    found = values(Path("egs/a recipe/run.sh"), "--corpus", "recordings", "--exp", "exp/two", cwd=tmp_path)
    assert found["corpus"] == str(tmp_path / "recordings")
    assert found["exp"] == "exp/two"  # not named to enter_recipe
    assert found["pwd"] == str(recipe.parent)
    assert values(recipe, "--corpus", "/data/corpus", cwd=tmp_path)["corpus"] == "/data/corpus"
    assert values(recipe, cwd=tmp_path)["corpus"] == ""


def test_recipe_may_enter_its_folder_before_parsing(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("corpus= ", 'cd "$(dirname "$0")"\ncorpus= ', 1))
    assert "A small recipe." in run(Path("egs/a recipe/run.sh"), "--help", cwd=tmp_path).stdout


def test_stage_without_its_variables_is_a_mistake_of_the_recipe(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("stop_stage=2 ", "last=2 "))
    done = run(recipe)
    assert done.returncode == 1
    assert "needs the variables stage and stop_stage" in done.stderr


def test_failing_command_inside_a_stage_stops_the_recipe(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("echo ran=1", "false; echo ran=1"))
    done = run(recipe)
    assert done.returncode == 1
    assert "ran=0" in done.stdout
    assert "ran=2" not in done.stdout


def test_parser_that_is_run_instead_of_sourced_says_so() -> None:
    done = run(TOOLS / "parse_options.sh")
    assert done.returncode == 1
    assert "must be sourced by a run.sh" in done.stderr
