"""Finished pieces of a long examination on disk, so that it goes on where it was after it was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndoctor.lab.patient import Patient


class Workbook:
    """Numbers and arrays by key, each on disk as soon as it is known.

    Numbers are appended to ``pieces.jsonl``; a line that was cut off by a kill is done again. Arrays are files of
    their own, renamed into place when they are whole.

    Args:
        folder: belongs to this examination of this patient alone; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pieces: dict[str, Any] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._read(folder / "pieces.jsonl")

    @classmethod
    def of(cls, folder: Path | str | None, examination: str, patient: Patient, *settings: object) -> Workbook:
        """The workbook in `folder` of one examination with these settings; another model or setting gets another one."""
        if folder is None:
            return cls(None)
        return cls(Path(folder) / f"{examination}-{patient.fingerprint(examination, *settings)}")

    def __contains__(self, key: str) -> bool:
        return key in self._pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def get(self, key: str) -> Any:
        """The piece called `key`. Raises KeyError where it is not done yet."""
        return self._pieces[key]

    def put(self, key: str, piece: Any) -> None:
        """Keep `piece`, anything that JSON can hold; NaN and infinities too."""
        self._pieces[key] = piece
        if self._folder is not None:
            with open(self._folder / "pieces.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps([key, piece]) + "\n")

    def done(self, key: str, make: Callable[[], Any]) -> Any:
        """The piece called `key`; made, and kept, only where it is not there yet."""
        if key not in self._pieces:
            self.put(key, make())
        return self._pieces[key]

    def array(self, key: str) -> NDArray[Any] | None:
        """The array called `key`; None where it is not there."""
        path = None if self._folder is None else self._folder / f"{key}.npy"
        return np.load(path) if path is not None and path.exists() else None

    def put_array(self, key: str, array: NDArray[Any]) -> None:
        """Keep `array`; there is never half of it."""
        if self._folder is None:
            return
        unfinished = self._folder / f"{key}.part"
        with open(unfinished, "wb") as file:
            np.save(file, array)
        os.replace(unfinished, self._folder / f"{key}.npy")

    def drop_arrays(self, start: str) -> None:
        """Delete the arrays whose key starts with `start`: what they led to is kept by now."""
        if self._folder is not None:
            for path in self._folder.glob(f"{start}*.npy"):
                path.unlink()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):  # killed while writing: what follows must not be glued to half a line
            with open(path, "r+b") as file:
                file.truncate(end)
        for line in whole[:end].splitlines():
            key, piece = json.loads(line)
            self._pieces[key] = piece
