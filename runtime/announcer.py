"""Tells of what happens to one container, in the words of the Engine API's events."""

import functools
import time

from swarmd.runtime.launch import Host
from swarmd.runtime.model import Event, NetworkState
from swarmd.runtime.records import Ledger


class Announcer:
    def __init__(self, ledger: Ledger, host: Host) -> None:
        self._ledger, self._host = ledger, host

    def attributes(self) -> dict[str, str]:
        """What every event of it tells."""
        config = self._ledger.state.config
        return {**self._image_labels, **config.labels, "image": config.image, "name": self._ledger.state.name}

    @functools.cached_property
    def _image_labels(self) -> dict[str, str]:
        return self._host.image_of(self._ledger.state).config.labels

    def publish(self, action: str, /, **attributes: str) -> None:
        details = {**self.attributes(), **attributes}
        event = Event(type="container", action=action, id=self._ledger.state.id, at=time.time_ns(), attributes=details)
        self._host.events.publish(event)

    def publish_network(self, action: str, network: NetworkState) -> None:
        details = {"container": self._ledger.state.id, "name": network.network, "type": network.driver}
        event = Event(type="network", action=action, id=network.id, at=time.time_ns(), attributes=details)
        self._host.events.publish(event)
