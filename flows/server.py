"""`python -m flows.server ARGUMENTS`: `prefect server start ARGUMENTS`, which also ends when its input closes.

Nothing else ends it when `prescore serve` is killed: a signal that kills cannot be passed on.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

# Seconds that the server gets to end by itself.
PATIENCE = 10.0


def main() -> None:
    """Run the server, in this process."""
    threading.Thread(target=_end_with_input, name="prescore lifeline", daemon=True).start()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _end_with_input() -> None:
    while os.read(0, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    os._exit(1)


if __name__ == "__main__":
    main()
