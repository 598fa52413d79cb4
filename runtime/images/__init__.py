"""Images on this host; see `store.py`."""

from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.references import familiar, normalised
from swarmd.runtime.images.store import ImageStore

__all__ = ["Image", "ImageConfig", "ImageStore", "familiar", "normalised"]
