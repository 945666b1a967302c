# The options and the stages that recipes share. Sourced by run.sh below its own options:
#
#   corpus=          # an option of this recipe
#   stage=1          # first stage to run
#   stop_stage=6     # last stage to run
#   share=1.0        # share of $train that fine-tuning sees
#   inputs=(corpus) optional=() train=train dev=dev
#   . "$(dirname "$0")/../../tools/stages.sh"
#   detector_needs dev eval
#   prepare_data() { prepared …; }   # stage 1; `begin` has it check the lists
#   begin
#
# Sourcing it changes to the folder of run.sh. Nothing is written before `begin`, which ends the checks. Set by run.sh:
#
#   inputs, optional     names of options with a folder or file: those that stage 1 must have, and others
#   train, dev           names of manifests below $data, without .tsv
#
#   need READER WRITER FILE...   stage READER reads FILEs of stage WRITER: refused if one is missing and WRITER will not run
#   detector_needs SET...        the same for stages 4 to 6
#   timeline_needs               the same for stage 7, if --timeline is true
#   begin                        with --dry-run: prints what would run, and exits
#
#   prepared CORPUS DIR OUT "SET..." OPTION...   stage 1: OUT/SET.tsv of a corpus, each checked against the disk
#   mix_lists            stage 2: $exp/posttrain/mix.tsv and mix_dev.tsv
#   post_training        stage 3: $exp/posttrain/encoder
#   fine_tuning          stage 4: $exp/finetune/model, from that encoder if $posttrain is true; with --share S below 1 on
#                        $exp/data/train_shareS.tsv, drawn with the seed of the experiment
#   scores SET...        stage 5: $exp/scores/SET.tsv of the manifest $data/SET.tsv
#   report SET...        stage 6: $exp/results/SET; report_with SET OPTION... with options of `evaluate`
#   both_heads           stage 7: $exp/timeline/model, which scores as that of stage 4 and says where, and from held-out
#                        mixes of $dev the threshold for it: $exp/timeline/results/segments.json
#   frame_scores MODEL MANIFEST OUT.npz OPTION...   for `localize`
#   segment_report FRAMES.npz SEGMENTS.tsv OUT OPTION...   for `evaluate-segments`
#
# A job of slurm/ sets SPOOFKIT_GPU_CMD, which replaces cmd.sh's gpu_cmd, and SPOOFKIT_TORCHRUN, the options by which
# the processes of several machines find each other.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2086

HELP_OF_RECIPES='A stage that was interrupted resumes; one whose results are up to date is skipped. Each stage reads
files that an earlier one wrote, and nothing else, so any can be run alone. Options, settings and the files that the
chosen stages read are checked before the first of them begins. Relative paths are relative to the current folder; files
and folders to read are also looked for beside run.sh. Without --exp, --conf conf/NAME.yaml works in exp/NAME, beside
run.sh. --partial means --partial true; likewise every option that is true or false.'
data=data                # folder of the manifests
exp=                     # checkpoints, scores and results. Default: exp/NAME with --conf NAME.yaml
encoder=                 # instead of the conf's encoder.name: a folder, or a name on the Hugging Face hub
settings=                # settings to override, separated by spaces, such as "seed=1 finetune.optim.lr=1e-6"
partial=false            # true: accept corpora that are subsets of the published ones
on_error=stop            # stop, or skip: skip files that cannot be read, and list them in SET.rejected.tsv
overwrite=false          # true: run the chosen stages again, even if their results are up to date
device=auto              # auto, cpu, cuda, cuda:1
workers=4                # loader processes (training) or decoding threads (scoring) for each process
ngpu=                    # 4: train and score in four processes, one per GPU; 0: on the CPU. Default: one, on --device
nj=16                    # threads that read file headers in stage 1
dry_run=false            # true: check options, settings and the inputs of all chosen stages, and run nothing
prepare_args=            # more options for `spoofkit prepare`
validate_args=           # for `validate`, such as "--read-audio"
mixlist_args=            # for `mixlist draw`
posttrain_args=          # for `posttrain`, such as "--tensorboard --compile"
finetune_args=           # for `finetune`
score_args=              # for `score`
evaluate_args=           # for `evaluate`
localize_args=           # for `localize`
evaluate_segments_args=  # for `evaluate-segments`
. "${BASH_SOURCE[0]%/*}/parse_options.sh"

checking=false
refuse() {
  printf '%s: %s\n' "$0" "$*" >&2
  exit 1
}

[[ -z $ngpu || $ngpu =~ ^(0|[1-9][0-9]*)$ ]] || refuse "--ngpu is '$ngpu', but must be a whole number"
[[ $ngpu != 0 || $device =~ ^(auto|cpu)$ ]] ||
  refuse "--ngpu 0 means the CPU, but --device is $device; omit one of them"
[[ $device =~ ^(auto|cpu|cuda(:[0-9]+)?)$ ]] || refuse "--device is '$device', but must be auto, cpu, cuda or cuda:N"
[[ $on_error =~ ^(stop|skip)$ ]] || refuse "--on-error is '$on_error', but must be stop or skip"
[[ $share =~ ^(0\.[0-9]*[1-9][0-9]*|1(\.0*)?)$ ]] ||
  refuse "--share is '$share', but must be above 0 and at most 1, such as 0.2"
input_paths conf "${inputs[@]}" ${optional[@]+"${optional[@]}"}
for name in "${inputs[@]}"; do
  ((stage > 1)) || [[ -n ${!name} ]] || refuse "stage 1 needs --${name//_/-} DIR: ${_po_help[$name]}"
done
read_settings
enter_recipe data exp
. ./path.sh
. ./cmd.sh
gpu_cmd=${SPOOFKIT_GPU_CMD-$gpu_cmd}
set -f # words of options are not file name patterns

conf_name=${conf##*/}
exp=${exp:-exp/${conf_name%.*}}
sets=()
for word in ${overrides[@]+"${overrides[@]}"}; do sets+=(--set "$word"); done
keep=--reuse # skip what is up to date, refuse what was made from other inputs or settings
again=()
if $overwrite; then keep=--overwrite again=(--overwrite); fi
part=()
if $partial; then part=(--partial); fi
if [[ $ngpu == 0 ]]; then device=cpu ngpu=1; fi
if [[ $device == auto && -n $ngpu ]]; then device=cuda; fi
processes=(spoofkit) # how verbs start that several processes share: posttrain, finetune, score
if ((${ngpu:-1} > 1)) || [[ -n ${SPOOFKIT_TORCHRUN-} ]]; then
  processes=(python -m spoofkit.torchrun ${SPOOFKIT_TORCHRUN:---standalone} --nproc-per-node "${ngpu:-1}" -m spoofkit)
fi
place=(--device "$device" --workers "$workers")

need() { # need READER WRITER FILE...
  local file
  (($1 < stage || $1 > stop_stage || $2 >= stage)) && return
  for file in "${@:3}"; do
    [[ -e $file ]] || refuse "stage $1 reads $file, which does not exist; stage $2 writes it:" \
      "begin with --stage $2, or correct --data, --exp or --conf"
  done
}

trained=()
if $posttrain; then
  need 2 1 "$data/$train.tsv" "$data/$dev.tsv"
  need 3 1 "$data/$train.tsv" "$data/$dev.tsv"
  need 3 2 "$exp/posttrain/mix.tsv" "$exp/posttrain/mix_dev.tsv"
  if ((stage <= 3 && stop_stage >= 3)); then trained+=(--train posttrain); fi
elif ((stage > 1 && stop_stage < 4)); then
  refuse "--posttrain false skips stages 2 and 3, so nothing would run; change --stage or --stop-stage"
fi

detector_needs() { # detector_needs SET...
  local set
  if $posttrain; then need 4 3 "$exp/posttrain/encoder"; fi
  need 4 1 "$data/$train.tsv" "$data/$dev.tsv"
  if ((stage <= 4 && stop_stage >= 4)); then trained+=(--train finetune); fi
  need 5 4 "$exp/finetune/model"
  for set in "$@"; do
    need 5 1 "$data/$set.tsv"
    need 6 1 "$data/$set.tsv"
    need 6 5 "$exp/scores/$set.tsv"
  done
}

timeline_needs() {
  need 7 4 "$exp/finetune/model"
  need 7 1 "$data/$train.tsv" "$data/$dev.tsv"
  if $posttrain; then need 7 2 "$exp/posttrain/mix.tsv" "$exp/posttrain/mix_dev.tsv"; fi
}

begin() {
  local verb called words same=() number to_run=()
  # What the recipe gives itself: -c and -o may have their value attached.
  local given='(^|[[:space:]])(-[co][^[:space:]]*|--(config|set|encoder|train|dev|mix|dev-mix|onto|out|held-out)([=[:space:]]|$))'
  for verb in mixlist posttrain finetune; do
    words=${verb}_args
    [[ ! ${!words} =~ $given ]] || refuse "--$verb-args: ${BASH_REMATCH[2]%%[=[:space:]]*} is given by the recipe itself, and no" \
      "check would know of another one; use --settings, --conf, --encoder or --data"
  done
  # The trainings that the chosen stages resume or read, except those that they repeat.
  if $posttrain && ((stop_stage >= 3)) && ! { $overwrite && ((stage <= 3)); }; then
    same+=(--same "$exp/posttrain")
  fi
  if ((stop_stage >= 4)) && ! { $overwrite && ((stage <= 4)); }; then same+=(--same "$exp/finetune"); fi
  seed=$(python -m spoofkit.checks.experiment "$conf" --processes "${ngpu:-1}" ${trained[@]+"${trained[@]}"} \
    ${same[@]+"${same[@]}"} \
    ${overrides[@]+"${overrides[@]}"})
  for verb in prepare validate mixlist posttrain finetune score evaluate localize evaluate-segments; do
    words=${verb//-/_}_args
    # An unknown option is refused before --help is reached.
    called=${verb/mixlist/mixlist draw}
    [[ -z ${!words} ]] || python -m spoofkit $called ${!words} --help >/dev/null ||
      refuse "--$verb-args: 'spoofkit $called' does not take '${!words}', see above"
  done
  # Check lists and counts of all corpora before the first header is read.
  if ((stage <= 1)); then checking=true; prepare_data; checking=false; fi
  if $dry_run; then
    for ((number = stage; number <= stop_stage; number++)); do
      if ! $posttrain && ((number == 2 || number == 3)); then continue; fi
      if ((number == 7)) && ! ${timeline:-true}; then continue; fi
      to_run+=("$number")
    done
    echo "$0: stages ${to_run[*]} can run: settings $conf, manifests $(realpath -m "$data")," \
      "experiment $(realpath -m "$exp"); options given:" >&2
    given_options
    exit 0
  fi
}

prepared() { # prepared CORPUS DIR OUT "SET..." OPTION...
  local corpus=$1 folder=$2 out=$3 set manifests=()
  for set in $4; do manifests+=("$out/$set.tsv"); done
  local call=(spoofkit prepare "$corpus" "$folder" -o "$out" --sets "${4// /,}" --on-error "$on_error" "$keep"
    --workers "$nj" ${part[@]+"${part[@]}"} "${@:5}" $prepare_args)
  if $checking; then "${call[@]}" --dry-run >/dev/null; return; fi
  $cpu_cmd "${call[@]}"
  $cpu_cmd spoofkit validate "${manifests[@]}" --on-error "$on_error" --workers "$nj" $validate_args
}

mix_lists() {
  local options=(--config "$conf" "$keep" ${sets[@]+"${sets[@]}"} $mixlist_args)
  spoofkit mixlist draw "$data/$train.tsv" -o "$exp/posttrain/mix.tsv" "${options[@]}"
  spoofkit mixlist draw "$data/$dev.tsv" -o "$exp/posttrain/mix_dev.tsv" --held-out "${options[@]}"
}

training() { # training VERB EXP TRAIN.tsv OPTION...
  $gpu_cmd "${processes[@]}" "$1" "$2" --train "$3" --dev "$data/$dev.tsv" --config "$conf" "${place[@]}" \
    ${again[@]+"${again[@]}"} ${sets[@]+"${sets[@]}"} "${@:4}"
}

post_training() { training posttrain "$exp/posttrain" "$data/$train.tsv" $posttrain_args; }

fine_tuning() {
  local from=() manifest=$data/$train.tsv
  if $posttrain; then from=(--encoder "$exp/posttrain/encoder" --set encoder.revision=null); fi
  if [[ $share != 1* ]]; then
    manifest=$exp/data/train_share$share.tsv
    $cpu_cmd spoofkit subset "$data/$train.tsv" -o "$manifest" --share "$share" --seed "$seed" "$keep"
  fi
  training finetune "$exp/finetune" "$manifest" ${from[@]+"${from[@]}"} $finetune_args
}

scores() { # scores SET...
  local set
  for set in "$@"; do
    $gpu_cmd "${processes[@]}" score "$exp/finetune/model" "$data/$set.tsv" -o "$exp/scores/$set.tsv" "${place[@]}" \
      "$keep" $score_args
  done
}

report() { # report SET...
  local set
  for set in "$@"; do report_with "$set"; done
}

report_with() { # report_with SET OPTION...
  echo "$exp: $1"
  spoofkit evaluate "$exp/scores/$1.tsv" "$data/$1.tsv" -o "$exp/results/$1" "$keep" "${@:2}" $evaluate_args
}

frame_scores() { # frame_scores MODEL MANIFEST OUT.npz OPTION...
  $gpu_cmd spoofkit localize "$1" "$2" -o "$3" "${@:4}" "${place[@]}" "$keep" $localize_args
}

segment_report() { # segment_report FRAMES.npz SEGMENTS.tsv OUT OPTION...
  spoofkit evaluate-segments "$1" "$2" -o "$3" "$keep" "${@:4}" $evaluate_segments_args
}

both_heads() {
  local out=$exp/timeline
  local mixes=(--mix "$exp/posttrain/mix.tsv" --dev-mix "$exp/posttrain/mix_dev.tsv")
  if ! $posttrain; then mix_lists; fi # else stage 2 has drawn them
  # The same mixes, but with targets that say which frames are spoofed, as a timeline shows.
  training posttrain "$out" "$data/$train.tsv" --onto "$exp/finetune/model" "${mixes[@]}" \
    --set mix.frame_target=authenticity --set posttrain.supervision=frames $posttrain_args
  frame_scores "$out/model" "$data/$dev.tsv" "$out/mix_dev.npz" --mix "$exp/posttrain/mix_dev.tsv"
  segment_report "$out/mix_dev.npz" "$out/mix_dev.segments.tsv" "$out/results" --smooth fit
}
