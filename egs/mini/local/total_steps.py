#!/usr/bin/env python3
"""Print the optimiser steps of post-training and fine-tuning together: python local/total_steps.py CONF KEY=VALUE..."""

import sys

from spoofkit.config import load_config
from spoofkit.errors import SpoofkitError

try:
    settings = load_config(sys.argv[1], sys.argv[2:])
except SpoofkitError as error:
    sys.exit(f"total_steps: error: {error}")
print(settings.posttrain.n_steps + settings.finetune.n_steps)
