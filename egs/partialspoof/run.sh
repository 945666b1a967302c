#!/usr/bin/env bash
# PartialSpoof: which parts of an utterance are spoofed? Post-trains on mixes of ASVspoof 2019 LA with frame targets for
# spoofed audio, and evaluates frames and segments on PartialSpoof, which is not in the training data.
#
#   ./run.sh --la19 /data/asvspoof2019/LA --corpus /data/PartialSpoof
#   ./run.sh --stage 4 --overwrite         # compute frame scores and figures again
set -euo pipefail

la19=                    # ASVspoof 2019 LA: ASVspoof2019_LA_{train,dev} and ASVspoof2019_LA_cm_protocols
corpus=                  # PartialSpoof: database/{dev,eval}/con_wav, database/protocols, database/segment_labels
conf=conf/xlsr300m.yaml  # settings of the experiment
stage=1                  # first stage to run
stop_stage=5             # last stage to run
inputs=(la19 corpus) train=la19/train dev=la19/dev posttrain=true share=1.0
. "$(dirname "$0")/../../tools/stages.sh"
need 4 3 "$exp/posttrain/encoder"
for set in dev eval; do
  need 4 1 "$data/$set.tsv"
  need 5 1 "$data/$set.segments.tsv"
  need 5 4 "$exp/frames/$set.npz"
done
prepare_data() {
  prepared asvspoof2019_la "$la19" "$data/la19" "train dev"
  prepared partialspoof "$corpus" "$data" "dev eval"
}
begin

if stage 1 "data"; then prepare_data; fi
if stage 2 "mix lists"; then mix_lists; fi
if stage 3 "post-training"; then post_training; fi
if stage 4 "frame scores"; then
  for set in dev eval; do frame_scores "$exp/posttrain" "$data/$set.tsv" "$exp/frames/$set.npz"; done
fi
if stage 5 "report"; then
  for set in dev eval; do
    segment_report "$exp/frames/$set.npz" "$data/$set.segments.tsv" "$exp/results/$set"
  done
fi
