#!/usr/bin/env bash
# Sets up spoofkit in .venv inside this clone. Neither root nor pip nor python3-venv is needed.
#
#   tools/setup.sh                     # what the verbs need
#   tools/setup.sh --extras dev,mini   # also what the tests and egs/mini need; extras add up over calls
#
# A second call returns at once; after a failure or an interrupt the next call continues. A .venv that this script did
# not make is used if it works and refused if not, never emptied. Where an environment with
# spoofkit is active already (a venv or conda), that one is used and nothing is installed. Prints the environment's
# folder on stdout, the rest on stderr; --quiet leaves out what is not news. The full log is .venv/setup.log.
#
#   SPOOFKIT_PYTHON=python3.12   choose the interpreter, 3.10 to 3.13 (else python3, then the newest in range)
#   SPOOFKIT_TORCH=cpu|default   choose torch's build (else: the CPU build where no NVIDIA GPU is seen)
set -euo pipefail

TORCH_CPU='torch==2.13.0+cpu' # newest CPU build in the range of setup.cfg; a test holds the two together
PIP=(-m pip --disable-pip-version-check --no-input)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
log=$venv/setup.log
stamp=$venv/spoofkit-setup.stamp
made_here=$venv/spoofkit-setup.made # this script made the environment, and so may remove it
extras=()
quiet=false

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'tools/setup.sh: %s\n' "$*" >&2; exit 1; }
ask() { "$venv/bin/python" -I "$root/tools/environment.py" "$@"; } # a question to the environment

# step TITLE COMMAND...: one line with its seconds; everything it prints goes to the log.
# try_step: the same where a failure is no news, because there is another way.
step() { run_step 'failed' "$@"; }
try_step() { run_step 'not available' "$@"; }
run_step() {
  local failure=$1; shift
  local title=$1 start=$SECONDS; shift
  printf 'setup: %s ... ' "$title" >&2
  printf '\n== %s: %s\n' "$title" "$*" >>"$log"
  if "$@" >>"$log" 2>&1 </dev/null; then
    printf '%d s\n' $((SECONDS - start)) >&2
  else
    printf '%s, %d s\n' "$failure" $((SECONDS - start)) >&2
    return 1
  fi
}

join_commas() { (IFS=,; echo "${extras[*]}"); }

fail() { # fail SENTENCE: with the end of the log, where the reason stands
  say "the last lines of $log:"
  tail -n 20 "$log" | sed 's/^/  | /' >&2
  die "$*"
}

# ---- Which Python

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
in_range() { [[ $1 =~ ^3\.1[0-3]$ ]]; }

find_python() { # prints an interpreter from 3.10 to 3.13
  local name version found=()
  if [[ -n ${SPOOFKIT_PYTHON:-} ]]; then
    version=$(python_version "$SPOOFKIT_PYTHON") || die "SPOOFKIT_PYTHON=$SPOOFKIT_PYTHON does not run as a Python; name an interpreter from 3.10 to 3.13"
    in_range "$version" || die "SPOOFKIT_PYTHON=$SPOOFKIT_PYTHON is Python $version, but spoofkit needs 3.10 to 3.13; name another interpreter"
    command -v "$SPOOFKIT_PYTHON"
    return
  fi
  for name in python3 python3.13 python3.12 python3.11 python3.10; do
    version=$(python_version "$name") || continue
    if in_range "$version"; then command -v "$name"; return; fi
    found+=("$name is Python $version")
  done
  die "${found[*]:-no python3 found}, but spoofkit needs 3.10 to 3.13; install one (such as: sudo apt install python3) or name one with SPOOFKIT_PYTHON=/path/to/python3.12"
}

# ---- An environment that is active already

active_environment() { # prints the active environment's folder if it has spoofkit and is not our own
  local folder
  for folder in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
    [[ -n $folder && ! $folder -ef $venv && -x $folder/bin/python && -x $folder/bin/spoofkit ]] || continue
    (cd / && "$folder/bin/python" -c 'import importlib.util as u; assert u.find_spec("spoofkit")') 2>/dev/null || continue
    printf '%s\n' "$folder"
    return
  done
}

use_active() { # use_active FOLDER: says so, and refuses if it lacks what the extras need
  local folder=$1 home missing
  missing=$("$folder/bin/python" "$root/tools/environment.py" missing "${extras[@]}" | paste -sd' ')
  [[ -z $missing ]] || die "the active environment $folder lacks $missing (extras: ${extras[*]}); run pip install -e '${root}[$(join_commas)]' in it, or deactivate it to have spoofkit make its own"
  home=$(cd / && "$folder/bin/python" -c 'import importlib.util as u; print(u.find_spec("spoofkit").origin)')
  if [[ ! ${home%/*} -ef $root/spoofkit ]]; then
    say "using the active environment $folder; its spoofkit is ${home%/*}, not this clone's"
  elif ! $quiet; then
    say "using the active environment $folder"
  fi
}

# ---- The stamp: what a complete .venv was made from

requirements_hash() { cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum | cut -d' ' -f1; }

stamped() { [[ -f $stamp ]] && sed -n "s/^$1 //p" "$stamp"; } # stamped KEY: its value; empty without a stamp

is_complete() { # whether .venv is what this call asks for
  local extra have
  [[ -f $stamp && $(stamped root) == "$root" && $(stamped requirements) == "$(requirements_hash)" ]] || return 1
  [[ $(stamped python) == "$(python_version "$venv/bin/python")" ]] || return 1
  [[ -z ${SPOOFKIT_PYTHON:-} || $(stamped python) == "$(python_version "$SPOOFKIT_PYTHON")" ]] || return 1
  [[ -z ${SPOOFKIT_TORCH:-} || $(stamped torch) == "$SPOOFKIT_TORCH" ]] || return 1
  have=" $(stamped extras) "
  for extra in "${extras[@]}"; do [[ $have == *" $extra "* ]] || return 1; done
}

write_stamp() {
  printf '%s\n' "root $root" "python $(python_version "$venv/bin/python")" "requirements $(requirements_hash)" \
    "torch $1" "extras ${extras[*]}" >"$stamp.tmp"
  mv "$stamp.tmp" "$stamp"
}

# ---- Making the environment

is_usable() { # whether .venv can be used as it is: made at this path, runs, of the wanted version, with a working pip
  [[ -x $venv/bin/python ]] && grep -qsF -- "$venv" "$venv/bin/activate" || return 1
  local version; version=$(python_version "$venv/bin/python") && in_range "$version" || return 1
  [[ -z ${SPOOFKIT_PYTHON:-} || $version == "$(python_version "$SPOOFKIT_PYTHON")" ]] || return 1
  "$venv/bin/python" -I "${PIP[@]}" --version >/dev/null 2>&1
}

is_ours() { # whether .venv may be emptied: it holds nothing, or this script made it; Python makes none through a link
  [[ ! -L $venv ]] || return 1
  [[ ! -e $venv || -f $made_here || -z $(find "$venv/" -mindepth 1 -maxdepth 1 ! -name setup.lock -print -quit) ]]
}

refuse_foreign() {
  local link=; [[ ! -L $venv ]] || link=" (a link to $(readlink "$venv"))"
  die "$venv$link is not known to be made by this script and cannot be used as it is (that needs Python 3.10 to 3.13 with pip, made at this path); it was not changed: move or remove it, then call again"
}

empty_venv() {
  is_ours || refuse_foreign
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name setup.lock ! -name "${made_here##*/}" -exec rm -rf {} +
  touch "$made_here"
}

make_venv() { # make_venv PYTHON
  if "$1" -c 'import ensurepip' && "$1" -m venv "$venv" && "$venv/bin/python" -I "${PIP[@]}" --version; then return; fi
  echo "no ensurepip here (Debian's python3-venv is not installed): pip comes from a Debian package instead"
  "$1" -m venv --without-pip "$venv" && bootstrap_pip
}

fetch_deb() { # fetch_deb FOLDER PACKAGE: unpacks a Debian package into FOLDER/unpacked without root rights
  local own=(-o "Dir::State::Lists=$1/lists" -o "Dir::Cache=$1/cache" -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=)
  mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
  # The machine's package lists may be missing or old; then we keep lists of our own.
  (cd "$1" && apt-get "${own[@]}" -o Dir::State::Lists=/var/lib/apt/lists download "$2") ||
    (cd "$1" && apt-get "${own[@]}" update && apt-get "${own[@]}" download "$2") || return 1
  dpkg-deb -x "$1/$2"_*.deb "$1/unpacked"
}

bootstrap_pip() {
  local scratch=$venv/bootstrap wheel
  rm -rf "$scratch" && mkdir -p "$scratch" || return 1
  wheel=$(compgen -G '/usr/share/python-wheels/pip-*.whl' | head -n 1)
  if [[ -z $wheel ]]; then
    fetch_deb "$scratch" python3-pip-whl || return 1
    wheel=$(compgen -G "$scratch/unpacked/usr/share/python-wheels/pip-*.whl" | head -n 1)
  fi
  [[ -n $wheel ]] || { echo "Debian's python3-pip-whl holds no pip wheel"; return 1; }
  local pip=("$venv/bin/python" "$wheel/pip" --disable-pip-version-check --no-input)
  if ! "${pip[@]}" --version; then # pip 22.0 (Ubuntu 22.04) needs all of distutils, which Debian packages apart
    fetch_deb "$scratch" python3-distutils || return 1
    local library; library=$scratch/unpacked/usr/lib/python$(python_version "$venv/bin/python")
    echo '__version__ = ""' >"$library/distutils/__init__.py" # which Debian leaves in the standard library
    PYTHONPATH=$library "${pip[@]}" install --upgrade pip || return 1
  else
    "${pip[@]}" install --no-index --no-deps "$wheel" || return 1
  fi
  rm -rf "$scratch"
}

# ---- Installing

has_gpu() { [[ -e /dev/nvidia0 ]] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

torch_build() { # prints cpu or default: what is asked for, else what was chosen before, else what suits this machine
  case ${SPOOFKIT_TORCH:-$(stamped torch)} in
    cpu) echo cpu ;;
    default) echo default ;;
    '') if [[ $(uname -s) == Linux ]] && ! has_gpu; then echo cpu; else echo default; fi ;;
    *) die "SPOOFKIT_TORCH=$SPOOFKIT_TORCH is neither cpu nor default; unset it or say one of the two" ;;
  esac
}

uv_torch() { # PyTorch's own index through uv, which knows where it is; uv leaves again afterwards
  local wanted; wanted=$(ask requirement torch)
  "$venv/bin/python" "${PIP[@]}" install uv &&
    "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --torch-backend=cpu "$wanted" &&
    "$venv/bin/python" "${PIP[@]}" uninstall --yes uv
}

install_cpu_torch() {
  [[ -n $(ask missing --only torch) ]] || return 0
  try_step "torch, CPU build, from pip's own sources" "$venv/bin/python" "${PIP[@]}" install "$TORCH_CPU" && return
  try_step "torch, CPU build, from PyTorch's index (uv)" uv_torch && return
  say "NO CPU BUILD OF TORCH TO BE HAD: the default build follows; it works without a GPU but takes 3 GB more"
}

install_spoofkit() {
  local list; list=$(join_commas)
  (cd "$root" && "$venv/bin/python" "${PIP[@]}" install --editable ".${list:+[$list]}")
}

set_up() {
  local python version build known extra damaged
  python=$(find_python)
  build=$(torch_build)
  known=" $("$python" "$root/tools/environment.py" extras | paste -sd' ') "
  for extra in "${extras[@]}"; do
    [[ $known == *" $extra "* ]] || die "--extras $extra is unknown; setup.cfg has:${known% }"
  done
  # What an earlier call asked for stays.
  read -ra extras < <(printf '%s\n' "${extras[@]}" "$(stamped extras)" | tr ' ' '\n' | sort -u | paste -sd' ')

  if ! is_usable; then
    empty_venv
    version=$(python_version "$python")
    step "environment in .venv (Python $version)" make_venv "$python" ||
      fail "no environment could be made in $venv with $python; install python3-venv (sudo apt install python3-venv) and call again"
  fi
  rm -f "$stamp" # from here on it is incomplete until the last step
  damaged=$(ask repair | paste -sd' ')
  [[ -z $damaged ]] || say "left half-written by an interrupted install, now installed again: $damaged"
  if [[ " $damaged " == *' pip '* ]]; then
    empty_venv
    step "environment in .venv, recreated" make_venv "$python" || fail "no environment could be made in $venv with $python"
  fi

  if [[ $build == cpu ]]; then
    install_cpu_torch
  elif [[ $("$venv/bin/python" -I -c 'from importlib.metadata import version as v; print(v("torch"))' 2>/dev/null) == *+cpu ]]; then
    step "torch: the CPU build goes" "$venv/bin/python" "${PIP[@]}" uninstall --yes torch || fail "torch could not be removed"
  fi
  step "spoofkit${extras[0]:+ with extras ${extras[*]}}" install_spoofkit ||
    fail "spoofkit could not be installed into $venv; fix what the log says (network, disk) and call again, it continues where it stopped"
  step "check" "$venv/bin/python" -I -c 'import spoofkit, torch' ||
    fail "the installed packages do not import; remove $venv and call again"
  write_stamp "$build"
  say "ready: $venv ($(du -sm "$venv" | cut -f1) MB)"
}

# ---- Main

while (($#)); do
  case $1 in
    --extras) (($# > 1)) || die "--extras needs a value such as dev,mini"; IFS=', ' read -ra extras <<<"$2"; shift 2 ;;
    --extras=*) IFS=', ' read -ra extras <<<"${1#*=}"; shift ;;
    --quiet) quiet=true; shift ;;
    -h | --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) die "unknown argument $1; known are --extras LIST, --quiet and --help" ;;
  esac
done
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PYTHONNOUSERSITE=1

active=$(active_environment)
if [[ -n $active ]]; then
  use_active "$active"
  printf '%s\n' "$active"
  exit 0
fi
if ! is_complete; then
  is_ours || is_usable || refuse_foreign
  { mkdir -p "$venv" && touch "$venv/setup.lock"; } || die "$venv cannot be written; clone into a folder of your own"
  exec 9>>"$venv/setup.lock"
  if ! flock -n 9; then
    say "another set-up of this clone is running; waiting for it"
    flock 9
  fi
  is_complete || set_up
elif ! $quiet; then
  have_extras=$(stamped extras)
  say "nothing to do: $venv is complete (Python $(stamped python), extras: ${have_extras:-none})"
fi
printf '%s\n' "$venv"
