#!/usr/bin/env bash
# The whole pipeline on real speech, on a CPU, in minutes: a small corpus in the layout of ASVspoof 5, then the stages
# of ../asvspoof5/run.sh on the first layers of Whisper base, with mix-frame post-training and, for comparison, direct
# fine-tuning with as many steps.
#
#   ./run.sh                              # everything: set-up, corpus, encoder, training, report
#   ./run.sh --seeds "0 1 2"              # three pairs of experiments instead of one
#   ./run.sh --encoder tiny               # a small encoder from scratch, not downloaded; in exp/tiny
#   ./run.sh --encoder DIR --exp exp/mine # another encoder, with the settings of conf/whisper.yaml
#   ./run.sh --speech ~/recordings        # your own human speech instead of Debian's packages
#   ./run.sh --stage 5 --overwrite        # score, evaluate and compare again
#
# A stage that was interrupted resumes; one whose results are up to date is skipped. Relative paths are relative to the
# current folder; files and folders to read are also looked for beside this file. The recipe shows that the pipeline
# works and what it costs; it is no evidence for or against the method (README.md says why).
set -euo pipefail
[[ -t 2 ]] || export TQDM_MININTERVAL=30  # in a log, show progress rarely

speech=               # folder of human recordings, one sub-folder per speaker. Default: Debian's packages
downloads=downloads   # cache of downloads; once it is filled, no network is needed
corpus=corpus         # the corpus that stage 0 builds
data=data             # manifests
exp=                  # mixframe_seed0, direct_seed0, mixframe_seed1 … Default: exp, or exp/NAME with --conf NAME.yaml
conf=                 # settings of both experiments. Default: conf/whisper.yaml; with --encoder tiny, conf/tiny.yaml
encoder=              # tiny, a folder, or a name on the Hugging Face hub. Default: Whisper base, which stage 0 fetches
settings=             # settings to override, separated by spaces, such as "finetune.n_steps=100"
overwrite=false       # true: run the chosen stages again, even if their results are up to date
dry_run=false         # true: check options, settings and, without stage 0, the corpus, and run nothing
seeds=                # one pair of experiments per seed, such as "0 1 2". Default: 0
stage=0               # first stage to run; 1 to 6 are those of ../asvspoof5/run.sh
stop_stage=8          # last stage to run: 7 compares, 8 pastes a word into a sentence, to see and hear
. "$(dirname "$0")/../../tools/parse_options.sh"
input_paths speech conf
read_settings
enter_recipe downloads corpus data exp
seeds=${seeds:-0}
if [[ -z $conf ]]; then
  conf=conf/whisper.yaml
  if [[ $encoder == tiny ]]; then conf=conf/tiny.yaml; fi
fi
name=${conf##*/}
if [[ -z $exp ]]; then
  exp=exp
  if [[ ! $conf -ef conf/whisper.yaml ]]; then exp=exp/${name%.*}; fi
fi
. ./path.sh

# Direct fine-tuning gets the optimiser steps of both stages together. Wrong settings are refused here.
total_steps() { python local/total_steps.py "$conf" ${overrides[@]+"${overrides[@]}"} "$@"; }
fetched=$downloads/whisper-base-encoder  # the encoder that conf/whisper.yaml names
if [[ -n $encoder || ! $conf -ef conf/whisper.yaml || " ${overrides[*]-}" == *" encoder.name="* ]]; then
  fetched=
  direct_steps=$(total_steps)
else
  direct_steps=$(total_steps encoder.name=.)  # it may not be there yet
  encoder=$fetched
  if ((1 <= stage && stage <= 6)) && [[ ! -d $fetched ]]; then
    echo "$0: stage $stage needs $fetched, which stage 0 fetches: begin with --stage 0, or give --encoder" >&2
    exit 1
  fi
fi

recipe() { # recipe FIRST_STAGE LAST_STAGE OPTIONS...: those of the stages that were chosen
  local first=$1 last=$2; shift 2
  first=$(( first > stage ? first : stage )) last=$(( last < stop_stage ? last : stop_stage ))
  (( first > last )) || ../asvspoof5/run.sh --stage "$first" --stop-stage "$last" --corpus "$corpus" --data "$data" \
    --conf "$conf" --encoder "$encoder" --overwrite "$overwrite" --partial --device cpu --workers 0 "$@"
}

if $dry_run; then
  # Stage 0 builds what all others read, and nothing is there before it.
  if ((stage == 0)); then echo "$0: stages 0 to $stop_stage can run; encoder and corpus do not exist before stage 0" >&2; exit; fi
  for seed in $seeds; do
    recipe 1 6 --exp "$exp/mixframe_seed$seed" --settings "$settings seed=$seed" --dry-run >/dev/null
    recipe 1 6 --exp "$exp/direct_seed$seed" --posttrain false \
      --settings "$settings seed=$seed finetune.n_steps=$direct_steps" --dry-run >/dev/null
  done
  exit
fi

if stage 0 "encoder and corpus"; then
  if [[ -n $fetched ]]; then python local/fetch_encoder.py "$fetched"; fi
  python local/build_corpus.py "$corpus" --cache "$downloads" ${speech:+--speech "$speech"}
fi

# The two experiments of a seed run at once, each on half of the cores: the first prints, the second writes a log.
export OMP_NUM_THREADS=$(( ($(nproc) + 1) / 2 ))

recipe 1 1
for seed in $seeds; do
  (( stage <= 6 && stop_stage >= 2 )) || break
  shown=$exp/mixframe_seed$seed logged=$exp/direct_seed$seed
  mkdir -p "$logged"
  echo "== Seed $seed: $shown here, $logged beside it (its log: $logged/run.log) ==" >&2
  set -m  # its own process group, so that all of it can be stopped
  recipe 4 6 --exp "$logged" --posttrain false \
    --settings "$settings seed=$seed finetune.n_steps=$direct_steps" >"$logged/run.log" 2>&1 &
  set +m
  trap 'kill -- -$! 2>/dev/null || true' EXIT
  trap 'exit 130' INT TERM
  recipe 2 6 --exp "$shown" --settings "$settings seed=$seed"
  wait $! || { tail -n 5 "$logged/run.log" >&2; echo "$0: $logged failed, see $logged/run.log" >&2; exit 1; }
  trap - EXIT INT TERM
done

if stage 7 "comparison"; then
  python local/compare_seeds.py "$exp" "$data/eval.tsv" $seeds
fi

if stage 8 "pasted word"; then
  again=()
  if $overwrite; then again=(--overwrite); fi
  python local/pasted_word.py "$exp/mixframe_seed${seeds%% *}" "$data/eval.tsv" -o "$exp/pasted_word" \
    ${again[@]+"${again[@]}"}
fi
