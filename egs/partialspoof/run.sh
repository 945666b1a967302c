#!/usr/bin/env bash
# PartialSpoof: which parts of an utterance are spoofed? Post-trains on mixes of ASVspoof 2019 LA with frame targets
# that say what is spoofed, and evaluates frames and segments on PartialSpoof, which it has never seen.
#
#   ./run.sh --la19 /data/asvspoof2019/LA --corpus /data/PartialSpoof
#   ./run.sh --stage 4                     # frame scores and figures again
#
# A stage that was interrupted goes on where it stopped; one that is done is left as it is.
set -euo pipefail

la19=                    # ASVspoof 2019 LA: ASVspoof2019_LA_{train,dev} and ASVspoof2019_LA_cm_protocols
corpus=                  # PartialSpoof: database/{dev,eval}/con_wav, database/protocols, database/segment_labels
data=data                # manifests: la19/{train,dev}.tsv, {dev,eval}.tsv and {dev,eval}.segments.tsv
exp=exp/xlsr300m         # checkpoints, frame scores and results of this experiment
conf=conf/xlsr300m.yaml  # its settings
settings=                # settings to override, separated by spaces, such as "seed=1 posttrain.n_steps=8000"
partial=false            # true: the corpora are knowing subsets
on_error=stop            # skip: leave out files that cannot be read, and list them in SET.rejected.tsv
overwrite=false          # true: do the chosen stages anew
device=auto              # auto, cpu, cuda, cuda:1
workers=4                # processes that load audio, for each that trains or scores
ngpu=                    # 4: train and score in four processes, a GPU each; 0: on the CPU; empty: one, on --device
nj=16                    # threads that read file headers in stage 1
stage=1                  # first stage to run
stop_stage=5             # last stage to run
. "$(dirname "$0")/../../tools/parse_options.sh"
enter_recipe la19 corpus data exp conf
. ./path.sh
. ./cmd.sh
train=la19/train dev=la19/dev posttrain=true
. ../../tools/stages.sh

if stage 1 "data"; then
  if [[ -z $la19 || -z $corpus ]]; then
    echo "$0: stage 1 needs --la19 DIR and --corpus DIR; see --help for what they hold" >&2
    exit 1
  fi
  prepared asvspoof2019_la "$la19" "$data/la19" "train dev"
  prepared partialspoof "$corpus" "$data" "dev eval"
fi
if stage 2 "mix lists"; then mix_lists; fi
if stage 3 "post-training"; then post_training; fi
if stage 4 "frame scores"; then
  for set in dev eval; do
    $gpu_cmd spoofkit localize "$exp/posttrain" "$data/$set.tsv" -o "$exp/frames/$set.npz" "${place[@]}" "$keep"
  done
fi
if stage 5 "report"; then
  for set in dev eval; do
    spoofkit evaluate-segments "$exp/frames/$set.npz" "$data/$set.segments.tsv" "$exp/results/$set" "$keep"
  done
fi
