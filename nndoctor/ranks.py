"""Which of the processes of a distributed training this one is, and the files that are its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def rank() -> int:
    """The number of this process: as the process group says where there is one, else as the launcher told it; 0 alone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    told = os.environ.get("RANK", "")
    return int(told) if told.isdecimal() else 0


def own_folder(folder: Path, rank: int) -> Path:
    """`folder` for the first process, ``folder-rank3`` beside it for the fourth."""
    return folder if rank == 0 else folder.with_name(f"{folder.name}-rank{rank}")
