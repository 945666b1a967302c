#!/usr/bin/env bash
# ASVspoof 5, track 1: mix-frame post-training, fine-tuning, scores, report (method: arXiv:2606.25328).
#
#   ./run.sh --corpus /data/asvspoof5                          # everything, with the settings of the paper
#   ./run.sh --corpus /data/asvspoof5 --ngpu 4                 # the same on four GPUs of this machine
#   ./run.sh --conf conf/xlsr300m.yaml --exp exp/xlsr300m --corpus /data/asvspoof5
#   ./run.sh --stage 5 --stop-stage 6                          # score and evaluate again
#   ./run.sh --posttrain false --exp exp/direct --corpus DIR   # the control: no post-training (see README.md)
#   ./run.sh --stage 7 --timeline true                         # a frame head for the model: where is it spoofed?
#
# A stage that was interrupted goes on where it stopped; one that is done is left as it is. Each stage reads files that
# an earlier one wrote, and nothing else, so any can be run alone.
set -euo pipefail

corpus=                  # folder with flac_T, flac_D, flac_E_eval and the ASVspoof5.*.tsv lists; needed by stage 1
data=data                # manifests: train.tsv, dev.tsv, eval.tsv
exp=exp/mfpt             # checkpoints, scores and results of this experiment
conf=conf/mfpt.yaml      # its settings
settings=                # settings to override, separated by spaces, such as "seed=1 finetune.optim.lr=1e-6"
posttrain=true           # false: fine-tune the encoder as it comes (no stages 2 and 3)
timeline=false           # true: stage 7, which trains for as many steps as stage 3, but a frame head alone
partial=false            # true: the corpus is a knowing subset
on_error=stop            # skip: leave out files that cannot be read, and list them in SET.rejected.tsv
overwrite=false          # true: do the chosen stages anew
device=auto              # auto, cpu, cuda, cuda:1
workers=4                # processes that load audio, for each that trains or scores
ngpu=                    # 4: train and score in four processes, a GPU each; 0: on the CPU; empty: one, on --device
nj=16                    # threads that read file headers in stage 1
stage=1                  # first stage to run
stop_stage=7             # last stage to run
. "$(dirname "$0")/../../tools/parse_options.sh"
enter_recipe corpus data exp conf
. ./path.sh
. ./cmd.sh

train=train dev=dev
. ../../tools/stages.sh

if stage 1 "data"; then
  if [[ -z $corpus ]]; then
    echo "$0: stage 1 needs --corpus DIR, the folder with flac_T, flac_D, flac_E_eval and the ASVspoof5.*.tsv lists" >&2
    exit 1
  fi
  prepared asvspoof5 "$corpus" "$data" "train dev eval"
fi
if $posttrain && stage 2 "mix lists"; then mix_lists; fi
if $posttrain && stage 3 "post-training"; then post_training; fi
if stage 4 "fine-tuning"; then fine_tuning; fi
if stage 5 "scores"; then scores dev eval; fi
if stage 6 "report"; then report dev eval; fi
if $timeline && stage 7 "timeline"; then both_heads; fi
