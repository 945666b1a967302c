# Options and stages of a recipe. Sourced by run.sh, below its variables; it changes none but those.
#
#   stage=0        # first stage to run
#   stop_stage=4   # last stage to run
#   exp=exp/try1   # results go here
#   . "$(dirname "$0")/../../tools/parse_options.sh"
#   input_paths corpus
#   enter_recipe exp
#
# Every lower-case variable that run.sh assigns at the start of a line above that point is an option: --exp VALUE or
# --exp=VALUE, --stop-stage or --stop_stage. Its value there is the default; the comment behind it is its help. Where
# run.sh sources this file through another (tools/stages.sh), the variables of that one are options too.
#
# A default of true or false makes a switch: --overwrite is --overwrite true. A default that is a number wants a number.
# --settings and --NAME-args are lists of words: repeated, they are joined; a value of --NAME-args may begin with --.
# Refused with exit code 1: unknown options (with the nearest known one), missing values, any other value of a switch,
# positional arguments, stages that do not exist. --help prints the comment at the top of run.sh, $HELP_OF_RECIPES,
# options and stages.
#
#   stage N "title"        true if stage N is to run (stage <= N <= stop_stage); says so on stderr
#   input_paths NAME...    for options that name inputs. A relative path given on the command line is looked for in the
#                          user's folder, then in run.sh's folder, and made absolute; if it is in neither, it is refused
#   enter_recipe NAME...   changes to run.sh's folder. Options called NAME, which name outputs, are made absolute first,
#                          so that they stay relative to the user's folder
#   read_settings          sets the array overrides to the words of $settings, and to $encoder as one of them. A folder
#                          that they name (encoder.name, *_folder) is made absolute if it exists in the user's folder
#   given_options          prints the current values of the given options, one per line, except the stages
#
# Needs bash 4. Values are never evaluated. Names that begin with _po belong to this file.
# shellcheck shell=bash

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  printf '%s: must be sourced by a run.sh, not run; see the comment at its top\n' "$0" >&2
  exit 1
fi
if ((BASH_VERSINFO[0] < 4)); then
  printf '%s: bash is version %s, expected 4 or newer; run it with a newer bash\n' "$0" "$BASH_VERSION" >&2
  exit 1
fi

_po_die() {
  printf '%s: %s\n' "$0" "$*" >&2
  exit 1
}

# Finds a script. run.sh may have changed the folder already, so that the path by which it was called is no longer valid.
_po_find_script() { # _po_find_script PATH: sets _po_script
  local _po_try
  for _po_try in "$1" "./${1##*/}" "${OLDPWD:-.}/$1"; do
    if [[ -f $_po_try ]]; then
      _po_script=$(cd "$(dirname "$_po_try")" && pwd)/${1##*/}
      return
    fi
  done
  _po_die "cannot find this script from $PWD to read its options; source parse_options.sh before changing the folder"
}

# Reads a script: its options with their help, from the lines above the sourcing one, and its stages with their titles.
_po_read_script() { # _po_read_script SOURCING_LINE
  local _po_line _po_number=0
  local _po_assignment='^([a-z][a-z0-9_]*)=([^(]|$)' _po_comment='[[:space:]]#[[:space:]]*(.*)$'
  local _po_call='(^|[^[:alnum:]_])stage ([0-9]+) +("([^"]*)"|'\''([^'\'']*)'\'')'
  while IFS= read -r _po_line || [[ -n $_po_line ]]; do
    ((++_po_number))
    if ((_po_number < $1)) && [[ $_po_line =~ $_po_assignment ]]; then
      local _po_name=${BASH_REMATCH[1]}
      [[ -n ${!_po_name+set} ]] || continue # such as a line of a here-document
      [[ -n ${_po_help[$_po_name]+seen} ]] || _po_names+=("$_po_name")
      _po_help[$_po_name]=''
      _po_default[$_po_name]=${!_po_name}
      if [[ $_po_line =~ $_po_comment ]]; then _po_help[$_po_name]=${BASH_REMATCH[1]}; fi
    elif [[ ! $_po_line =~ ^[[:space:]]*# && $_po_line =~ $_po_call ]]; then
      _po_stages+=("${BASH_REMATCH[2]}")
      _po_titles+=("${BASH_REMATCH[4]}${BASH_REMATCH[5]}")
    fi
  done <"$_po_script"
}

# Computes the edit distance of two words.
_po_distance() { # _po_distance WORD WORD: sets _po_cost
  local -a _po_row _po_previous
  local _po_i _po_j _po_best
  for ((_po_j = 0; _po_j <= ${#2}; _po_j++)); do _po_row[_po_j]=$_po_j; done
  for ((_po_i = 1; _po_i <= ${#1}; _po_i++)); do
    _po_previous=("${_po_row[@]}")
    _po_row[0]=$_po_i
    for ((_po_j = 1; _po_j <= ${#2}; _po_j++)); do
      _po_best=$((_po_previous[_po_j - 1]))
      [[ ${1:_po_i-1:1} == "${2:_po_j-1:1}" ]] || _po_best=$((_po_best + 1))
      if ((_po_previous[_po_j] + 1 < _po_best)); then _po_best=$((_po_previous[_po_j] + 1)); fi
      if ((_po_row[_po_j - 1] + 1 < _po_best)); then _po_best=$((_po_row[_po_j - 1] + 1)); fi
      _po_row[_po_j]=$_po_best
    done
  done
  _po_cost=${_po_row[${#2}]}
}

_po_refuse_unknown() { # _po_refuse_unknown OPTION NAME
  local _po_name _po_cost _po_least=4 _po_nearest='' _po_known=''
  for _po_name in ${_po_names[@]+"${_po_names[@]}"}; do
    _po_known+=" --${_po_name//_/-}"
    _po_distance "$2" "$_po_name"
    if ((_po_cost < _po_least && _po_cost < ${#_po_name})); then
      _po_least=$_po_cost
      _po_nearest=$_po_name
    fi
  done
  _po_die "unknown option $1${_po_nearest:+, did you mean --${_po_nearest//_/-}}? Known options:${_po_known:- none} --help"
}

_po_print_help() {
  local _po_line _po_name _po_i
  while IFS= read -r _po_line; do
    [[ $_po_line == '#!'* ]] && continue
    [[ $_po_line == '#'* ]] || break
    _po_line=${_po_line#\#}
    printf '%s\n' "${_po_line# }"
  done <"$_po_script"
  if [[ -n ${HELP_OF_RECIPES-} ]]; then printf '\n%s\n' "$HELP_OF_RECIPES"; fi
  printf '\nOptions:\n'
  for _po_name in ${_po_names[@]+"${_po_names[@]}"}; do
    printf '  --%-22s %s%s\n' "${_po_name//_/-}" "${_po_help[$_po_name]}" "${_po_default[$_po_name]:+ [${_po_default[$_po_name]}]}"
  done
  if ((${#_po_stages[@]})); then printf '\nStages:\n'; fi
  for _po_i in ${_po_stages[@]+"${!_po_stages[@]}"}; do
    printf '  %2s  %s\n' "${_po_stages[_po_i]}" "${_po_titles[_po_i]}"
  done
}

_po_set() { # _po_set OPTION NAME VALUE
  if [[ -z ${_po_help[$2]+seen} ]]; then _po_refuse_unknown "$1" "$2"; fi
  case ${_po_default[$2]} in
    true | false) [[ $3 == true || $3 == false ]] || _po_die "$1 is '$3', but must be true or false" ;;
    ?*) [[ -n $3 ]] || _po_die "$1 got an empty value; give one, or omit the option for the default ${_po_default[$2]}" ;;
  esac
  if _po_is_integer "${_po_default[$2]}"; then
    _po_is_integer "$3" || _po_die "$1 is '$3', but must be a whole number"
    printf -v "$2" '%s' "$((10#$3))" # a leading zero would make it octal
  elif [[ ($2 == settings || $2 == *_args) && -n ${_po_given[$2]+set} ]]; then
    printf -v "$2" '%s' "${!2} $3"
  else
    printf -v "$2" '%s' "$3"
  fi
  _po_given[$2]=yes
}

_po_parse() {
  local _po_option _po_name
  while (($#)); do
    case $1 in
      -h | --help)
        _po_print_help
        exit 0
        ;;
      --?*=*)
        _po_option=${1%%=*}
        _po_name=${_po_option#--}
        _po_set "$_po_option" "${_po_name//-/_}" "${1#*=}"
        shift
        ;;
      --?*)
        _po_name=${1#--}
        _po_name=${_po_name//-/_}
        if [[ -z ${_po_help[$_po_name]+seen} ]]; then _po_refuse_unknown "$1" "$_po_name"; fi
        if [[ ${_po_default[$_po_name]} =~ ^(true|false)$ && ($# == 1 || $2 == --?*) ]]; then
          _po_set "$1" "$_po_name" true
          shift
          continue
        fi
        (($# > 1)) || _po_die "$1 needs a value, but nothing follows it; write $1 VALUE"
        [[ $2 != --?* || $_po_name == *_args ]] || _po_die "$1 needs a value, but the option $2 follows it; write $1 VALUE (or $1=$2 if you mean that)"
        _po_set "$1" "$_po_name" "$2"
        shift 2
        ;;
      *) _po_die "unexpected argument '$1': expected only options, such as --name VALUE; see --help" ;;
    esac
  done
}

_po_is_integer() { [[ $1 =~ ^[0-9]+$ ]]; }

_po_check_stages() {
  local _po_number _po_last=-1
  [[ -n ${stage+set} && -n ${stop_stage+set} ]] || return 0
  [ "$stage" -le "$stop_stage" ] || _po_die "--stage $stage is after --stop-stage $stop_stage, so nothing would run; swap or change them"
  for _po_number in ${_po_stages[@]+"${_po_stages[@]}"}; do
    if [ "$_po_number" -gt "$_po_last" ]; then _po_last=$_po_number; fi
  done
  ((_po_last < 0)) || [ "$stage" -le "$_po_last" ] || _po_die "--stage is $stage, but the last stage is $_po_last; see --help"
}

stage() { # stage N "title"
  _po_is_integer "${1-}" || _po_die "stage '${1-}' is not a whole number; write: if stage 3 \"title\"; then"
  [[ -n ${stage+set} && -n ${stop_stage+set} ]] || _po_die "stage $1 needs the variables stage and stop_stage; assign both above parse_options.sh"
  _po_is_integer "$stage" || _po_die "stage is '$stage', but must be a whole number"
  _po_is_integer "$stop_stage" || _po_die "stop_stage is '$stop_stage', but must be a whole number"
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  printf '== Stage %s: %s ==\n' "$1" "${2-}" >&2
}

input_paths() { # input_paths NAME...
  local _po_name _po_here _po_path
  local -a _po_paths
  _po_here=$(dirname "$_po_script")
  for _po_name in "$@"; do
    [[ -n ${_po_help[$_po_name]+seen} ]] || _po_die "input_paths $_po_name: there is no such option"
    [[ -n ${_po_given[$_po_name]+set} && -n ${!_po_name} ]] || continue
    case ${!_po_name} in
      /*) _po_paths=("${!_po_name}") ;;
      *) _po_paths=("$PWD/${!_po_name}" "$_po_here/${!_po_name}") ;;
    esac
    if [[ $PWD -ef $_po_here ]]; then _po_paths=("${_po_paths[0]}"); fi
    for _po_path in "${_po_paths[@]}"; do
      if [[ -e $_po_path ]]; then break; fi
    done
    [[ -e $_po_path ]] || _po_die "--${_po_name//_/-} ${!_po_name}: there is no ${_po_paths[0]}${_po_paths[1]+ and no ${_po_paths[1]}}"
    printf -v "$_po_name" '%s' "$_po_path"
  done
}

_po_from_here() { # _po_from_here PATH: sets _po_path
  _po_path=$1
  if [[ $1 != /* && -e $1 ]]; then _po_path=$PWD/$1; fi
}

read_settings() {
  local _po_word _po_path _po_quote="'"
  local -a _po_words
  overrides=()
  read -r -d '' -a _po_words <<<"$settings" || true # words, without expansion of file name patterns
  for _po_word in ${_po_words[@]+"${_po_words[@]}"}; do
    case $_po_word in
      encoder.name=* | *_folder=*)
        _po_from_here "${_po_word#*=}"
        _po_word=${_po_word%%=*}=$_po_path
        ;;
    esac
    overrides+=("$_po_word")
  done
  settings=${overrides[*]-}
  if [[ -n ${encoder-} ]]; then # quoted for YAML; a revision in the conf belongs to the encoder that it replaces
    _po_from_here "$encoder"
    encoder=$_po_path
    overrides=(encoder.revision=null ${overrides[@]+"${overrides[@]}"}
      "encoder.name='${_po_path//$_po_quote/$_po_quote$_po_quote}'")
  fi
}

enter_recipe() { # enter_recipe NAME...
  local _po_name
  for _po_name in "$@"; do
    [[ -n ${_po_help[$_po_name]+seen} ]] || _po_die "enter_recipe $_po_name: there is no such option"
    if [[ -n ${_po_given[$_po_name]+set} && ${!_po_name} == [!/]* ]]; then
      printf -v "$_po_name" '%s' "$PWD/${!_po_name}"
    fi
  done
  cd "$(dirname "$_po_script")" || _po_die "cannot enter the folder of this script"
}

given_options() {
  local _po_name
  for _po_name in ${_po_names[@]+"${_po_names[@]}"}; do
    case $_po_name in stage | stop_stage | dry_run) continue ;; esac
    [[ -z ${_po_given[$_po_name]+set} ]] || printf -- '--%s=%s\n' "${_po_name//_/-}" "${!_po_name//$'\n'/ }"
  done
}

declare -a _po_names=() _po_stages=() _po_titles=()
declare -A _po_help=() _po_default=() _po_given=()
_po_script=''
for ((_po_i = ${#BASH_SOURCE[@]} - 1; _po_i > 0; _po_i--)); do # run.sh first
  _po_find_script "${BASH_SOURCE[_po_i]}"
  _po_read_script "${BASH_LINENO[_po_i - 1]}"
done
_po_find_script "${BASH_SOURCE[-1]}"
_po_parse "$@"
_po_check_stages
