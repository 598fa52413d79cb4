"""Where tasks run; see `scheduler.py` for the loop and `plan.py` for the choice."""

from swarmd.manager.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
