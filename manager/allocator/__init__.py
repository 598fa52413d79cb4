"""Addresses, virtual IPs, subnets and published ports; see `allocator.py` for the loop and `plan.py` for the rules."""

from swarmd.manager.allocator.allocator import Allocator

__all__ = ["Allocator"]
