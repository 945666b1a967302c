#!/usr/bin/env bash
# ASVspoof 5, track 1: mix-frame post-training, fine-tuning, scores, report (method: arXiv:2606.25328).
#
#   ./run.sh --corpus /data/asvspoof5                          # everything, with the settings of the paper
#   ./run.sh --corpus /data/asvspoof5 --ngpu 4                 # the same on four GPUs of this machine
#   ./run.sh --corpus /data/asvspoof5 --conf conf/xlsr300m.yaml   # other settings, in exp/xlsr300m
#   ./run.sh --corpus /data/asvspoof5 --dry-run                # only check what can be checked
#   ./run.sh --stage 5 --stop-stage 6 --overwrite              # score and evaluate again
#   ./run.sh --posttrain false --exp exp/direct --corpus DIR   # the control: no post-training (see README.md)
#   ./run.sh --stage 7                                         # a frame head for the model, to localise spoofs
set -euo pipefail

corpus=                  # folder with flac_T, flac_D, flac_E_eval and the ASVspoof5.*.tsv lists
conf=conf/mfpt.yaml      # settings of the experiment
posttrain=true           # false: fine-tune the encoder directly (no stages 2 and 3)
share=1.0                # 0.2: fine-tune on a fifth of train, drawn with the seed of the settings
timeline=false           # true: run stage 7 too, which trains only a frame head, for as many steps as stage 3
stage=1                  # first stage to run; --stage 7 needs no --timeline
stop_stage=7             # last stage to run
inputs=(corpus) train=train dev=dev
. "$(dirname "$0")/../../tools/stages.sh"
if ((stage == 7)); then timeline=true; fi
detector_needs dev eval
if $timeline; then timeline_needs; fi
prepare_data() { prepared asvspoof5 "$corpus" "$data" "train dev eval"; }
begin

if stage 1 "data"; then prepare_data; fi
if $posttrain && stage 2 "mix lists"; then mix_lists; fi
if $posttrain && stage 3 "post-training"; then post_training; fi
if stage 4 "fine-tuning"; then fine_tuning; fi
if stage 5 "scores"; then scores dev eval; fi
if stage 6 "report"; then report dev eval; fi
if $timeline && stage 7 "timeline"; then both_heads; fi
if ! $timeline && ((stop_stage == 7)); then echo "$0: done; run the optional stage 7 (timeline) with --stage 7" >&2; fi
