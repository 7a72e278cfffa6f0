"""A program that shows a panel and then ends in the way it is told.

    python small_program.py sleep | raise | fork
"""

from __future__ import annotations

import os
import sys
import time

from nndoctor.reports.footer import FooterDisplay
from nndoctor.reports.terminal import choose_display
from tests.terminal.noisy_program import state_at

how = sys.argv[1]
display = choose_display("footer")
assert isinstance(display, FooterDisplay), display
display.show(state_at(50, 100))
print(f"pid {os.getpid()}", flush=True)
if how == "raise":
    time.sleep(1.5)  # the panel has to be seen before
    raise RuntimeError("as told")
if how == "fork":
    time.sleep(0.5)
    child = os.fork()
    if child == 0:
        display.show(state_at(10, 100))
        sys.exit("child leaves by sys.exit")
    os.waitpid(child, 0)
    ready, tell = os.pipe()
    other = os.fork()
    if other == 0:
        os.write(tell, b"!")
        time.sleep(60)
    os.read(ready, 1)  # a signal before the interpreter is set up in the child would be lost
    os.kill(other, 15)
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]), flush=True)
time.sleep(60)
