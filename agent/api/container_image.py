"""The image of a container, for whatever shows containers: one whose image is damaged is listed all the same."""

import msgspec

from swarmd.agent.api.interface import Engine
from swarmd.runtime.errors import NotFound
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image, passing
from swarmd.runtime.model import ContainerState

_UNKNOWN = ImageConfig(cmd=("<unknown>",))


def image_of(engine: Engine, state: ContainerState) -> Image:
    """One that says nothing but its id where the image can't be read any more."""
    try:
        return engine.images.get(state.image_id)
    except NotFound:
        return msgspec.structs.replace(passing(_UNKNOWN, ()), id=state.image_id)
