"""swarmd in a process of its own, which tests kill -9 and start again."""

import subprocess
import sys
from pathlib import Path

PATIENCE = 20.0  # s


class Swarmd:
    def __init__(self, root: Path, socket: Path, cgroup_parent: str) -> None:
        self._root, self.socket, self._group = root, socket, cgroup_parent
        self.start()

    def start(self) -> None:
        with (self._root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "swarmd.agent.main", "--cgroup-parent", self._group),
                    *("--data-root", str(self._root / "data"), "--run-root", str(self._root / "run")),
                    *("-H", f"unix://{self.socket}"),
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def log(self) -> str:
        return (self._root / "log").read_text()
