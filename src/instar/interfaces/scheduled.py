"""The process that carries out one firing of a schedule, which a server's controllers begin.

python -m instar.interfaces.scheduled --folder .instar --project . --firing fire_…
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from instar.app import App, open_app
from instar.core.errors import InstarError
from instar.core.identity import SYSTEM
from instar.operate.firing import Firing

log = logging.getLogger("instar.scheduled")

END_SECONDS = 20.0  # for a run that is interrupted because its server stops


class Launcher:
    """Begins firings in processes of their own, and ends those that still run when the server stops."""

    def __init__(self, app: App) -> None:
        self._folder, self._root = app.store.folder, app.root
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, firing: Firing) -> None:
        self._processes = {id_: one for id_, one in self._processes.items() if one.poll() is None}
        command = [sys.executable, "-m", "instar.interfaces.scheduled", "--folder", str(self._folder)]
        command += ["--project", str(self._root), "--firing", firing.id]
        self._processes[firing.id] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def lives(self, firing: str) -> bool:
        return firing in self._processes and self._processes[firing].poll() is None

    def close(self) -> None:
        """Interrupt what runs; the next server takes it up."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    """Carry one firing out."""
    import signal

    from instar.operate import schedules

    parser = argparse.ArgumentParser(description="One firing of a schedule")
    parser.add_argument("--folder", type=Path, required=True, help="the store's folder")
    parser.add_argument("--project", type=Path, required=True, help="the project's folder")
    parser.add_argument("--firing", required=True, help="which one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # To be told to end is to be interrupted: steps end, and what is being kept is kept whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_app(options.project, store_folder=options.folder) as app:
            loop = replace(app, store=replace(app.store, actor=SYSTEM)).loop()
            ended = schedules.carry_out(loop, options.firing)
        log.info("schedule %s: %s", ended.schedule, ended.state)
    except InstarError as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
