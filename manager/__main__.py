"""`python -m swarmd.manager CONFIG.json`."""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when grpc is imported; we only exec

from swarmd.manager.main import main

main()
