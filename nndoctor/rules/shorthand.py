"""Series of numbers in shorthand, for the tests of rules: ``2.0 x600, 2.0..9.0 x400``."""

from __future__ import annotations

import math
import re
import zlib

import numpy as np
from numpy.typing import NDArray

from nndoctor.rules.expression import ExpressionError

MOST_SAMPLES = 200_000

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf"
_PIECE = re.compile(
    rf"(?P<first>{_NUMBER}|_)(?:(?P<ramp>\.\.\.?)(?P<last>{_NUMBER}))?(?:~(?P<noise>{_NUMBER}))?(?:\s*x\s*(?P<times>\d{{1,7}}))?(?=[\s,]|\Z)"
)
_FORMS = "2.0 x600 (constant), 2..9 x400 (ramp), 1...1e6 x100 (geometric ramp), 2~0.1 x50 (noise), _ x10 (not measured)"


def parse_series(text: str | float) -> NDArray[np.float64]:
    """The numbers that a shorthand stands for, one per step; NaN where nothing is measured.

    Pieces follow each other, with or without commas: ``2.0 x600`` repeats, ``2..9 x400`` goes there in
    equal steps, ``1...1e6 x100`` in equal ratios, ``2~0.1 x50`` adds normal noise of that standard
    deviation (the same on every run), ``_ x10`` measures nothing.

    >>> parse_series("1 x2, 1..4 x4").tolist()
    [1.0, 1.0, 1.0, 2.0, 3.0, 4.0]

    Raises:
        ExpressionError: with the offset of what is no such piece.
    """
    if isinstance(text, (int, float)):
        return np.array([float(text)])
    pieces: list[NDArray[np.float64]] = []
    total, at = 0, 0
    while at < len(text):
        if text[at].isspace() or text[at] == ",":
            at += 1
            continue
        match = _PIECE.match(text, at)
        if match is None:
            length = len(re.split(r"[\s,]", text[at:], maxsplit=1)[0])
            raise ExpressionError(
                f"cannot read the series at '{text[at : at + 20]}'", at, length, f"forms are {_FORMS}"
            )
        total += int(match["times"] or 1)
        if total > MOST_SAMPLES:
            raise ExpressionError(f"the series is longer than {MOST_SAMPLES} samples", at, match.end() - at)
        pieces.append(_numbers(match, at, zlib.crc32(text.encode())))
        at = match.end()
    if not pieces:
        raise ExpressionError("the series is empty", 0, 1, f"forms are {_FORMS}")
    return np.concatenate(pieces)


def _numbers(match: re.Match[str], at: int, seed: int) -> NDArray[np.float64]:
    times = int(match["times"] or 1)
    if match["first"] == "_":
        return np.full(times, np.nan)
    first = float(match["first"])
    last = first if match["last"] is None else float(match["last"])
    if match["ramp"] == "...":
        if not (first * last > 0 and math.isfinite(first * last)):
            raise ExpressionError("a geometric ramp needs two numbers of the same sign, not zero", at, match.end() - at)
        numbers = np.geomspace(first, last, times)
    else:
        numbers = np.linspace(first, last, times) if first != last else np.full(times, first)
    if match["noise"] is not None:
        # the seed is the text itself, so that a test reads the same numbers on every machine and run
        numbers = numbers + float(match["noise"]) * np.random.default_rng((seed, at)).standard_normal(times)
    return numbers
