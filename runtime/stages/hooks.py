"""Hooks of an OCI config: programs of the host (or of the image, for startContainer) run at points of a start.

Each gets the container's state as JSON on its standard input; one that fails, or takes longer than its timeout, ends
the start.  Standard library only, and no subprocess module: this runs in the stages.
"""

import os
import select
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from swarmd.runtime.stages import files
from swarmd.runtime.stages.privileges import StepError


def run(config: Mapping[str, Any], kinds: Sequence[str], state: Mapping[str, Any]) -> None:
    """Run those of these kinds, in order. Raises StepError naming the hook."""
    for kind in kinds:
        for hook in (config.get("hooks") or {}).get(kind) or ():
            problem = _run_one(hook, files.dump_json(dict(state)))
            if problem:
                raise StepError(f"hook {kind} {hook['path']}: {problem}")


def _run_one(hook: Mapping[str, Any], state: bytes) -> str:
    """Return what went wrong, "" for nothing."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(reader, 0)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        env = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
        try:
            os.execve(hook["path"], hook.get("args") or [hook["path"]], env)
        finally:
            os._exit(127)
    os.close(reader)
    try:
        files.write_all(writer, state)
    except BrokenPipeError:
        pass  # it does not care
    finally:
        os.close(writer)
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    timeout = hook.get("timeout")
    late = not poll.poll(None if not timeout else timeout * 1000)
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(ended)
    if late:
        return f"took longer than its {timeout} s"
    code = os.waitstatus_to_exitcode(status)
    return "" if code == 0 else "can't be run" if code == 127 else f"ended with {code}"
