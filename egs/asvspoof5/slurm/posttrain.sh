#!/usr/bin/env bash
# Stage 3 of run.sh, post-training, on all GPUs of one machine or several; resumes by itself after Slurm ends it.
#
#   cd egs/asvspoof5; sbatch slurm/posttrain.sh --exp exp/try1 --settings seed=1   # the options of run.sh
#
# Change the lines marked EDIT; their values are for conf/mfpt.yaml on one machine with four GPUs.
#SBATCH --job-name=posttrain
#SBATCH --output=slurm/%x-%j.log     # beside this file; the folder must exist, or the job fails silently
#SBATCH --open-mode=append           # a requeued job appends to its log
##SBATCH --account=PROJECT           # EDIT: remove one # and name the project, if the cluster charges one
##SBATCH --partition=gpu             # EDIT: remove one # and name the queue with the GPUs, if it is not the default
#SBATCH --nodes=1                    # EDIT: machines
#SBATCH --gpus-per-node=4            # EDIT: GPUs of each; their number divides posttrain.batch_size / micro_batch_size
#SBATCH --cpus-per-task=32           # EDIT: cores of each machine, about 8 a GPU: they read and decode the audio
#SBATCH --mem=128G                   # EDIT: memory of each machine
#SBATCH --time=2:00:00               # EDIT: a short time starts sooner, the job then resumes; README.md has the minimum
#SBATCH --ntasks-per-node=1          # one torchrun on each machine, which starts a process for each GPU
#SBATCH --requeue                    # after a preemption or the failure of a machine
#SBATCH --signal=B:USR1@300          # five minutes before the time is over: see train.sh
set -euo pipefail

# export NCCL_SOCKET_IFNAME=ib0      # EDIT: the network between the machines, if NCCL does not find it by itself

. slurm/train.sh
train_stage 3 "$@"
