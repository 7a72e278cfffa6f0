"""What a run record holds, byte by byte, whichever file keeps it.

A record is a sequence of entries. Both storages (`record_sqlite`, `record_segments`) keep the same entries:

=========  =====  ========================================================================================
kind       step   data
=========  =====  ========================================================================================
run        0      JSON object, merged: name, started, rules, status, process, heartbeat, last_step
facts      0      JSON object, merged: whatever the caller knows about the run
targets    0      JSON of ``Targets.to_dict()``; the newest replaces the former (targets only grow)
layout     id     JSON ``[[signal name, number of values], ...]``: what the frames with this layout hold
frame      step   the bytes below
findings   0      JSON list of ``Finding.to_dict()``; the newest replaces the former
event      step   JSON ``[kind, text]``: probe failures, notes, the crash
=========  =====  ========================================================================================

A frame is 32 bytes of header and then its values, little endian float32, signal after signal in the order of its
layout::

    crc32 of all that follows : u32 | layout : u32 | step : i64 | time : f64 | epoch : f64 (NaN: unknown) | values : f32...

Names are not repeated in each frame: the few different sets of signals that a run writes are layouts, which keeps a
frame of 30 run-level values at 152 bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias
from zlib import crc32

from nndoctor.record_thinning import Stored
from nndoctor.signals import Frame, Values

FORMAT_VERSION = 1

Kind: TypeAlias = Literal["run", "facts", "targets", "layout", "frame", "findings", "event"]
KINDS: tuple[Kind, ...] = ("run", "facts", "targets", "layout", "frame", "findings", "event")

_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<Iqdd")


class RecordError(Exception):
    """A run record cannot be found or read: says what was expected, what is there, and what to do."""


class Entry(NamedTuple):
    """One thing to be kept: its kind, its step (the id for a layout) and its bytes."""

    kind: Kind
    step: int
    data: bytes


Layout: TypeAlias = tuple[tuple[str, int], ...]


class Storage(Protocol):
    """Where entries go. `write` returns when they survive the death of the process, or raises.

    Where `forgets` is true, frames can be let go of: `stored` names the next `count` after a number, `forget` drops some.
    """

    forgets: bool

    def write(self, batch: Sequence[Entry]) -> None: ...

    def stored(self, after: int, count: int) -> Sequence[Stored]: ...

    def forget(self, numbers: Sequence[int]) -> None: ...

    def close(self) -> None: ...


class Source(Protocol):
    """Where entries come from; every method sees what has been written up to its call.

    What cannot be read is left out and named once in `problems`.
    """

    problems: list[str]

    def run(self) -> Mapping[str, Any]: ...

    def facts(self) -> Mapping[str, Any]: ...

    def targets(self) -> Mapping[str, Any]: ...

    def findings(self) -> Sequence[Mapping[str, Any]]: ...

    def events(self) -> Sequence[tuple[int, str, str]]: ...

    def layouts(self) -> Mapping[int, Layout]: ...

    def frames(self, after: int) -> Iterator[tuple[int, bytes]]: ...

    def last_step(self) -> int: ...

    def close(self) -> None: ...


@lru_cache(maxsize=4096)
def _entry(name: str, length: int) -> tuple[str, int]:
    """One object for all the layouts that have it: a run has a dozen layouts of a few hundred signals."""
    return name, length


def layout_of(frame: Frame) -> Layout:
    """The signals of `frame` and how many values each has, in the order in which they are written."""
    return tuple([_entry(name, len(values)) for name, values in frame.values.items()])


def encode_frame(frame: Frame, layout: int) -> bytes:
    """The bytes of `frame`, which has the signals of layout number `layout`; its arrays have one dimension each."""
    import numpy as np  # here and below: who only lists runs reads no frame

    epoch = math.nan if frame.epoch is None else frame.epoch
    header = _HEADER.pack(layout, frame.step, frame.time, epoch)
    parts = tuple(frame.values.values())
    body = header + (np.concatenate(parts).astype("<f4", copy=False).tobytes() if parts else b"")
    return _CHECKSUM.pack(crc32(body)) + body


def decode_frame(data: bytes, layouts: Mapping[int, Layout]) -> Frame:
    """The frame in `data`. Raises ValueError with the reason if it is damaged or its layout is unknown."""
    import numpy as np

    start = _CHECKSUM.size + _HEADER.size
    if len(data) < start:
        raise ValueError(f"{len(data)} bytes are too few for a frame")
    if crc32(data[_CHECKSUM.size :]) != _CHECKSUM.unpack_from(data)[0]:
        raise ValueError("its checksum does not match")
    number, step, time, epoch = _HEADER.unpack_from(data, _CHECKSUM.size)
    layout = layouts.get(number)
    if layout is None:
        raise ValueError(f"the list of its signals (layout {number}) is missing")
    body = np.frombuffer(data, dtype="<f4", offset=start)
    if body.size != sum(size for _, size in layout):
        raise ValueError(f"{body.size} values where its layout has {sum(size for _, size in layout)}")
    values: dict[str, Values] = {}
    offset = 0
    for name, size in layout:
        values[name] = body[offset : offset + size].astype(np.float32, copy=False)
        offset += size
    return Frame(step=step, time=time, epoch=None if math.isnan(epoch) else epoch, values=values)


def encode_json(data: object) -> bytes:
    """`data` as ASCII JSON; what JSON cannot hold is written as its text (a fact must never stop a run)."""
    return json.dumps(data, default=_plain, separators=(",", ":")).encode("ascii")


def decode_json(data: bytes | str) -> Any:
    return json.loads(data)


def decode_layout(data: bytes | str) -> Layout:
    return tuple((str(name), int(size)) for name, size in json.loads(data))


def _plain(value: object) -> object:
    """The nearest thing JSON has for numpy numbers and arrays; the text of anything else."""
    import numpy as np

    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return str(value)
