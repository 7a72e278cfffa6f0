"""The same random numbers in every run."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def seed_everything(seed: int = 1234) -> None:
    """Python, numpy and torch (all devices) start at `seed`, and cuDNN chooses deterministic algorithms.

    ``PYTHONHASHSEED`` is set for processes that are started from here. In this one it is too late: the order of sets of
    strings is decided when Python starts, so set it in the shell where a run depends on that.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    os.environ["PYTHONHASHSEED"] = str(seed % 2**32)
