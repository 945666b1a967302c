# Sourced by egs/*/path.sh and tools/test.sh: puts spoofkit's environment first on PATH, and creates it if necessary.
#
#   . ../../tools/activate.sh
#   SPOOFKIT_EXTRAS=mini . ../../tools/activate.sh   # with the extras of setup.cfg that the caller needs
#
# An active environment that has spoofkit is used instead; see tools/setup.sh.
# shellcheck shell=bash
_environment=$("$(dirname "${BASH_SOURCE[0]}")/setup.sh" --quiet --extras "${SPOOFKIT_EXTRAS:-}") || return 1
if [[ -f $_environment/pyvenv.cfg ]]; then export VIRTUAL_ENV=$_environment; fi
case $PATH in
  "$_environment/bin:"*) ;;
  *) export PATH=$_environment/bin:$PATH ;;
esac
unset _environment PYTHONHOME
