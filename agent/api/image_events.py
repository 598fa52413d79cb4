"""Tells of what happens to images, as Docker does: by id for those that are here, by name for what comes and goes."""

from swarmd.agent.api.interface import Engine
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.references import Reference, familiar


def told(engine: Engine, action: str, image: Image, name: str = "") -> None:
    """tag, untag, delete, import, load, save: of an image, with the name that is meant."""
    engine.publish("image", action, image.id, {**image.config.labels, "name": name or image.id})


def moved(engine: Engine, action: str, ref: str, image: Image) -> None:
    """pull, push: of a full name."""
    name = familiar(Reference.parse(ref).repository)
    engine.publish("image", action, familiar(ref), {**image.config.labels, "name": name})
