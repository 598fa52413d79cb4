"""swarmctl in a process of its own, as its installed program starts it: in half the time of `python -m`."""

import sys
import sysconfig
from pathlib import Path

import swarmd.swarmctl.main

_PLACES = [str(Path(swarmd.swarmctl.main.__file__).parents[2]), sysconfig.get_path("purelib")]
_PROGRAM = f"import sys; sys.path += {_PLACES!r}; from swarmd.swarmctl.main import command; command()"
SWARMCTL = (sys.executable, "-ISc", _PROGRAM)
