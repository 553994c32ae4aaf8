#!/usr/bin/env python3
"""A start without a word: it trains where a training job is laid out, and serves otherwise (C-4)."""

import os
import sys
from pathlib import Path

word = "train" if Path("/opt/ml/input/config/resourceconfig.json").exists() else "serve"
os.execvp(word, [word, *sys.argv[1:]])
