from swarmd.manager.dispatcher.dispatcher import Dispatcher
from swarmd.manager.dispatcher.liveness import LivenessLoop

__all__ = ["Dispatcher", "LivenessLoop"]
