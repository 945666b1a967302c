# The stages that recipes share. Sourced by run.sh below its options, in the recipe's folder, with ./cmd.sh read.
#
#   prepared CORPUS DIR OUT "SET..." OPTION...   stage 1: OUT/SET.tsv of a corpus, each checked against the disk
#   mix_lists            stage 2: $exp/posttrain/mix.tsv and mix_dev.tsv
#   post_training        stage 3: $exp/posttrain/encoder
#   fine_tuning          stage 4: $exp/finetune/model, from that encoder if $posttrain is true
#   scores SET...        stage 5: $exp/scores/SET.tsv of the manifest $data/SET.tsv
#   report SET...        stage 6: $exp/results/SET; report_with SET OPTION... with options of `evaluate`
#   both_heads           stage 7: $exp/timeline/model, which scores as that of stage 4 and says where, and from held-out
#                        mixes of $dev the threshold for it: $exp/timeline/results/segments.json
#
# What they read: data exp conf settings posttrain partial on_error overwrite device workers ngpu nj
# (options of run.sh), train and dev
# (names of manifests below $data, without .tsv), cpu_cmd and gpu_cmd (cmd.sh).
# shellcheck shell=bash
# shellcheck disable=SC2154

sets=()
for setting in $settings; do sets+=(--set "$setting"); done
keep=--reuse # keep what was made from the same inputs and settings, refuse what was made from others
again=()
if $overwrite; then keep=--overwrite again=(--overwrite); fi
part=()
if $partial; then part=(--partial); fi
processes=(spoofkit) # how verbs start that several processes share: posttrain, finetune, score
if [[ $ngpu == 0 && $device =~ ^(auto|cpu)$ ]]; then
  device=cpu
elif [[ $ngpu =~ ^[1-9][0-9]*$ ]]; then
  if [[ $device == auto ]]; then device=cuda; fi
  if ((ngpu > 1)); then
    processes=(python -m spoofkit.torchrun --standalone --nproc-per-node "$ngpu" -m spoofkit)
  fi
elif [[ -n $ngpu ]]; then
  echo "$0: --ngpu is '$ngpu' with --device $device, but must be a number, and 0 only goes with --device cpu" >&2
  exit 1
fi
place=(--device "$device" --workers "$workers")
sources=(--train "$data/$train.tsv" --dev "$data/$dev.tsv")

prepared() { # prepared CORPUS DIR OUT "SET..." OPTION...
  local corpus=$1 folder=$2 out=$3 set manifests=()
  for set in $4; do manifests+=("$out/$set.tsv"); done
  $cpu_cmd spoofkit prepare "$corpus" "$folder" "$out" --sets "${4// /,}" --on-error "$on_error" "$keep" \
    --workers "$nj" ${part[@]+"${part[@]}"} "${@:5}"
  $cpu_cmd spoofkit validate "${manifests[@]}" --on-error "$on_error" --workers "$nj"
}

mix_lists() {
  local options=(--config "$conf" "$keep" ${sets[@]+"${sets[@]}"})
  spoofkit mixlist "$data/$train.tsv" "$exp/posttrain/mix.tsv" "${options[@]}"
  spoofkit mixlist "$data/$dev.tsv" "$exp/posttrain/mix_dev.tsv" --held-out "${options[@]}"
}

post_training() {
  $gpu_cmd "${processes[@]}" posttrain "$exp/posttrain" "${sources[@]}" --config "$conf" "${place[@]}" \
    ${again[@]+"${again[@]}"} ${sets[@]+"${sets[@]}"}
}

fine_tuning() {
  local encoder=()
  if $posttrain; then encoder=(--encoder "$exp/posttrain/encoder"); fi
  $gpu_cmd "${processes[@]}" finetune "$exp/finetune" "${sources[@]}" --config "$conf" "${place[@]}" \
    ${encoder[@]+"${encoder[@]}"} ${again[@]+"${again[@]}"} ${sets[@]+"${sets[@]}"}
}

scores() { # scores SET...
  local set
  for set in "$@"; do
    $gpu_cmd "${processes[@]}" score "$exp/finetune/model" "$data/$set.tsv" -o "$exp/scores/$set.tsv" "${place[@]}" "$keep"
  done
}

report() { # report SET...
  local set
  for set in "$@"; do report_with "$set"; done
}

report_with() { # report_with SET OPTION...
  echo "$exp: $1"
  spoofkit evaluate "$exp/scores/$1.tsv" "$data/$1.tsv" "$exp/results/$1" "$keep" "${@:2}"
}

both_heads() {
  local out=$exp/timeline
  local mixes=(--mix "$exp/posttrain/mix.tsv" --dev-mix "$exp/posttrain/mix_dev.tsv")
  if ! $posttrain; then mix_lists; fi # else stage 2 has drawn them
  # The same mixes; of their frames is asked whether they are spoofed, as a timeline is to say.
  $gpu_cmd "${processes[@]}" posttrain "$out" --onto "$exp/finetune/model" "${mixes[@]}" "${sources[@]}" --config "$conf" \
    "${place[@]}" ${again[@]+"${again[@]}"} ${sets[@]+"${sets[@]}"} --set mix.frame_target=authenticity
  $gpu_cmd spoofkit localize "$out/model" "$data/$dev.tsv" -o "$out/mix_dev.npz" --mix "$exp/posttrain/mix_dev.tsv" \
    "${place[@]}" "$keep"
  spoofkit evaluate-segments "$out/mix_dev.npz" "$out/mix_dev.segments.tsv" "$out/results" --smooth fit "$keep"
}
