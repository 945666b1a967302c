#!/usr/bin/env bash
# Installs spoofkit in .venv inside this clone. Needs neither root, pip nor python3-venv.
#
#   tools/setup.sh                     # what the verbs need
#   tools/setup.sh --extras dev,mini   # also what the tests and egs/mini need; extras add up over calls
#
# A second call returns at once. After a failure the next call continues; after an interrupt it starts over, with pip's
# cache. A .venv that this script did not create is refused, never changed. If an environment with spoofkit is active (a
# venv or conda), it is used and nothing is installed. Prints the environment's folder on stdout and the rest on stderr;
# --quiet prints nothing if there is nothing to do. The full log is .venv/setup.log.
#
#   SPOOFKIT_PYTHON=python3.12   the interpreter, 3.10 to 3.13. Default: python3, then the newest of these
#   SPOOFKIT_TORCH=cpu|default   the build of torch. Default: the CPU build if there is no NVIDIA GPU
set -euo pipefail

# Installed with --no-compile: Python compiles what it imports, which is a small part.
TORCH_CPU='torch==2.13.0+cpu' # newest CPU build in the range of setup.cfg, which a test checks

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
log=$venv/setup.log
stamp=$venv/spoofkit-setup.stamp # what a complete environment was made from, one item per line
made=$venv/spoofkit-setup.made   # exists if this script made the environment, and so may empty it
extras='' quiet=false

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'tools/setup.sh: %s\n' "$*" >&2; exit 1; }
pip() { "$venv/bin/python" -I -m pip --disable-pip-version-check --no-input "$@"; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
stamped() { sed -n "s/^$1 //p" "$stamp" 2>/dev/null || true; }
requirements() { cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum | cut -d' ' -f1; }

step() { # step TITLE COMMAND...: one line with its seconds; everything it prints goes to the log
  local title=$1 start=$SECONDS; shift
  printf '\n== %s: %s\n' "$title" "$*" >>"$log"
  printf 'setup: %s ... ' "$title" >&2
  if "$@" >>"$log" 2>&1 </dev/null; then printf '%d s\n' $((SECONDS - start)) >&2; return; fi
  printf 'failed, %d s\n' $((SECONDS - start)) >&2
  return 1
}
fail() { say "the last lines of $log:"; tail -n 20 "$log" | sed 's/^/  | /' >&2; die "$*"; }

find_python() { # prints an interpreter from 3.10 to 3.13
  local name version
  for name in ${SPOOFKIT_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    version=$(version_of "$name") || continue
    if [[ $version =~ ^3\.1[0-3]$ ]]; then command -v "$name"; return; fi
  done
  die "${SPOOFKIT_PYTHON:-python3} is ${version:-no Python that runs}, but spoofkit needs 3.10 to 3.13; install one" \
    "(such as: sudo apt install python3) or name one with SPOOFKIT_PYTHON=/path/to/python3.12"
}

use_active() { # if another environment with spoofkit is active: prints its folder and exits
  local folder home missing
  for folder in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
    [[ -n $folder && ! $folder -ef $venv && -x $folder/bin/spoofkit ]] || continue
    home=$(cd / && "$folder/bin/python" -c 'import importlib.util as u; print(u.find_spec("spoofkit").origin)' 2>/dev/null) ||
      continue
    missing=$("$folder/bin/python" "$root/tools/environment.py" missing $extras | paste -sd' ')
    [[ -z $missing ]] || die "the active environment $folder lacks $missing (extras: $extras); run pip install -e" \
      "'$root[${extras// /,}]' in it, or deactivate it to have spoofkit make its own"
    if [[ ! ${home%/*} -ef $root/spoofkit ]]; then
      say "using the active environment $folder; its spoofkit is ${home%/*}, not this clone's"
    fi
    echo "$folder"
    exit
  done
}

is_ours() { # whether .venv belongs to this clone and has the requested Python and build of torch
  [[ $(stamped root) == "$root" && $(stamped python) == "$(version_of "$venv/bin/python")" ]] &&
    [[ -z ${SPOOFKIT_PYTHON:-} || $(stamped python) == "$(version_of "$SPOOFKIT_PYTHON")" ]] &&
    [[ ${SPOOFKIT_TORCH:-$(stamped torch)} == "$(stamped torch)" ]]
}
is_complete() { # whether .venv has everything that this call requests
  local extra
  is_ours && [[ $(stamped requirements) == "$(requirements)" ]] || return 1
  for extra in $extras; do [[ " $(stamped extras) " == *" $extra "* ]] || return 1; done
}

fetch_deb() { # fetch_deb PACKAGE: unpacks a Debian package into .venv/bootstrap without root rights
  local own=(-o Dir::State::Lists=lists -o Dir::Cache=cache -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User=)
  mkdir -p "$venv/bootstrap/lists/partial" "$venv/bootstrap/cache/archives/partial" && cd "$venv/bootstrap" || return 1
  # The machine's package lists may be missing or old, so we use our own.
  apt-get "${own[@]}" update && apt-get "${own[@]}" download "$1" && dpkg-deb -x "$1"_*.deb .
}

make_venv() { # make_venv PYTHON
  if "$1" -m venv "$venv" && pip --version; then return; fi
  echo "no ensurepip here (Debian's python3-venv is not installed): pip comes from a Debian package instead"
  local wheel library=$venv/bootstrap/usr/lib/python$(version_of "$1")
  "$1" -m venv --without-pip "$venv" || return 1
  compgen -G '/usr/share/python-wheels/pip-*.whl' || (fetch_deb python3-pip-whl) || return 1
  wheel=$(compgen -G "/usr/share/python-wheels/pip-*.whl" || compgen -G "$venv/bootstrap/usr/share/python-wheels/pip-*.whl")
  if ! "$venv/bin/python" "$wheel/pip" --version; then # pip 22.0 (Ubuntu 22.04) needs what Debian packages apart
    (fetch_deb python3-distutils) && echo '__version__ = ""' >"$library/distutils/__init__.py" || return 1
  fi
  PYTHONPATH=$library "$venv/bin/python" "$wheel/pip" install --upgrade pip && rm -rf "$venv/bootstrap"
}

has_gpu() { [[ -e /dev/nvidia0 ]] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }
uv_torch() { # PyTorch's own index through uv, which knows where it is; uv leaves again afterwards
  pip install uv && "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --torch-backend=cpu "${TORCH_CPU%+*}" &&
    pip uninstall --yes uv
}

write_stamp() { # write_stamp BUILD [REQUIREMENTS]: without requirements, the environment is intact but not complete
  printf '%s\n' "root $root" "python $(version_of "$venv/bin/python")" "torch $1" "extras $extras" "requirements ${2:-}" >"$stamp.tmp"
  mv "$stamp.tmp" "$stamp"
}

set_up() {
  local python build known extra
  python=$(find_python)
  known=$("$python" "$root/tools/environment.py" extras | paste -sd' ')
  for extra in $extras; do
    [[ " $known " == *" $extra "* ]] || die "--extras $extra is unknown; setup.cfg has: $known"
  done
  extras=$(printf '%s\n' $extras $(stamped extras) | sort -u | paste -sd' ') # what an earlier call asked for stays
  build=${SPOOFKIT_TORCH:-$(stamped torch)}
  if [[ -z $build ]]; then if has_gpu; then build=default; else build=cpu; fi; fi
  [[ $build =~ ^(cpu|default)$ ]] || die "SPOOFKIT_TORCH=$build is neither cpu nor default; unset it or set it to one of these"
  if ! is_ours; then
    [[ -f $made ]] || refuse_foreign
    find "$venv/" -mindepth 1 -maxdepth 1 ! -name setup.lock ! -name "${made##*/}" -exec rm -rf {} +
    step "environment in .venv (Python $(version_of "$python"))" make_venv "$python" ||
      fail "cannot create an environment in $venv with $python; install python3-venv (sudo apt install python3-venv) and run this again"
    if [[ $build == cpu ]] && ! step 'torch, CPU build' pip install --no-compile "$TORCH_CPU" &&
      ! step "torch, CPU build, from PyTorch's index (uv)" uv_torch; then
      say 'NO CPU BUILD OF TORCH AVAILABLE: the default build follows; it works without a GPU but takes 3 GB more'
    fi
  fi
  rm -f "$stamp" # an interrupt from here on leaves an unknown state, so the next call recreates everything
  cd "$root"
  step "spoofkit${extras:+ with extras $extras}" pip install --no-compile --editable ".${extras:+[${extras// /,}]}" || {
    write_stamp "$build"
    fail "spoofkit could not be installed into $venv; fix what the log says (network, disk) and run this again; it continues from there"
  }
  step 'check' "$venv/bin/python" -I -c 'import spoofkit, torch' ||
    fail "the installed packages cannot be imported; run this again to recreate $venv"
  write_stamp "$build" "$(requirements)"
  say "ready: $venv ($(du -sm "$venv" | cut -f1) MB)"
}

refuse_foreign() {
  die "$venv$([[ ! -L $venv ]] || echo " (a link to $(readlink "$venv"))") was not created by this script; nothing was" \
    'changed: activate it if it has spoofkit, or move or remove it, then run this again'
}

while (($#)); do
  case $1 in
    --extras) (($# > 1)) || die '--extras needs a value such as dev,mini'; extras=${2//,/ }; shift 2 ;;
    --extras=*) extras=${1#*=} extras=${extras//,/ }; shift ;;
    --quiet) quiet=true; shift ;;
    -h | --help) sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit ;;
    *) die "unknown argument $1; known are --extras LIST, --quiet and --help" ;;
  esac
done
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PYTHONNOUSERSITE=1
# If the environment is active, the interpreter is looked for elsewhere: this one may be deleted.
PATH=:$PATH: PATH=${PATH//":$venv/bin:"/:} PATH=${PATH#:} PATH=${PATH%:}
use_active
if is_complete; then
  $quiet || say "nothing to do: $venv is complete (Python $(stamped python), extras: $(stamped extras))"
else
  # In this order, since another call may be creating it at this moment: the mark comes before anything else.
  if [[ -L $venv || (-n $(ls -A "$venv" 2>/dev/null) && ! -f $made && $(stamped root) != "$root") ]]; then
    refuse_foreign
  fi
  mkdir -p "$venv" && { [[ -f $stamp ]] || touch "$made"; } && touch "$venv/setup.lock" ||
    die "$venv cannot be written; clone into a folder of your own"
  exec 9>>"$venv/setup.lock"
  flock -n 9 || { say 'another set-up of this clone is running; waiting for it'; flock 9; }
  is_complete || set_up
fi
echo "$venv"
