#!/usr/bin/env python3
"""Print the optimiser steps of post-training and fine-tuning together: python local/total_steps.py CONF KEY=VALUE..."""

import sys

from spoofkit.checks.experiment import require_folders
from spoofkit.config import load_config
from spoofkit.errors import SpoofkitError

try:
    settings = load_config(sys.argv[1], sys.argv[2:])
    require_folders(settings)
except SpoofkitError as error:
    sys.exit(f"total_steps: error: {error}")
print(settings.posttrain.n_steps + settings.finetune.n_steps)
