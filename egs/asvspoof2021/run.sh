#!/usr/bin/env bash
# ASVspoof 2021: train on ASVspoof 2019 LA, evaluate on 2019 LA, 2021 LA, 2021 DF and In-the-Wild, and compute the gap
# between LA and DF (method: arXiv:2606.25328, which claims a gap of 0.16 points).
#
#   ./run.sh --la19 /data/asvspoof2019/LA --la21 /data/asvspoof2021/LA --df21 /data/asvspoof2021/DF \
#     --itw /data/release_in_the_wild
#   ./run.sh --stage 5 --overwrite                              # score and evaluate again
#   ./run.sh --posttrain false --exp exp/direct --la19 DIR …    # the control: no post-training
#
# A corpus that is not given is not evaluated; only 2019 LA is required.
set -euo pipefail

la19=                    # ASVspoof 2019 LA: ASVspoof2019_LA_{train,dev,eval} and ASVspoof2019_LA_cm_protocols
la21=                    # ASVspoof 2021 LA: ASVspoof2021_LA_eval and keys/LA
df21=                    # ASVspoof 2021 DF: ASVspoof2021_DF_eval and keys/DF
itw=                     # In-the-Wild: meta.csv and the files it lists
asv21=                   # ASV scores of 2021 LA, keys/LA/ASV/ASVTorch_Kaldi/score.txt: adds the min t-DCF to its report
conf=conf/xlsr300m.yaml  # settings of the experiment
posttrain=true           # false: fine-tune the encoder directly (no stages 2 and 3)
share=1.0                # 0.2: fine-tune on a fifth of train, drawn with the seed of the settings
stage=1                  # first stage to run
stop_stage=7             # last stage to run
inputs=(la19) optional=(la21 df21 itw asv21) train=la19/train dev=la19/dev
. "$(dirname "$0")/../../tools/stages.sh"
detector_needs la19/dev la19/eval
prepare_data() {
  prepared asvspoof2019_la "$la19" "$data/la19" "train dev eval"
  if [[ -n $la21 ]]; then prepared asvspoof2021_la "$la21" "$data/la21" eval; fi
  if [[ -n $df21 ]]; then prepared asvspoof2021_df "$df21" "$data/df21" eval; fi
  if [[ -n $itw ]]; then prepared in_the_wild "$itw" "$data/itw" eval; fi
}
begin

if stage 1 "data"; then prepare_data; fi
if $posttrain && stage 2 "mix lists"; then mix_lists; fi
if $posttrain && stage 3 "post-training"; then post_training; fi
if stage 4 "fine-tuning"; then fine_tuning; fi

evaluated=() # the sets that stage 1 prepared
for set in la19/dev la19/eval la21/eval df21/eval itw/eval; do
  if [[ -f $data/$set.tsv ]]; then evaluated+=("$set"); fi
done
if stage 5 "scores"; then scores "${evaluated[@]}"; fi
if stage 6 "report"; then
  for set in "${evaluated[@]}"; do
    case $set in
      la21/eval) report_with "$set" ${asv21:+--asv "$asv21"} ;;
      df21/eval) report_with "$set" --by vocoder ;;
      *) report "$set" ;;
    esac
  done
fi
if stage 7 "gap between LA and DF"; then
  if [[ -f $data/la21/eval.tsv && -f $data/df21/eval.tsv ]]; then
    python local/gap.py "$exp" "$data" la21/eval df21/eval
  else
    echo "$0: $data does not have both 2021 LA and DF, so no gap is computed" >&2
  fi
fi
