"""Resident models: each is built once, and stays until its owner lets go of it."""

import gc
import threading
from collections.abc import Callable, Hashable
from typing import Any

from models.devices import free_device_memory
from models.protocols import TokenCounter
from models.registry import Need, build, build_tokens, kind_of
from storage.ledger import Ledger
from storage.objects import ObjectStore


class ResidentModels:
    """The models of a run, or of several runs that follow one another; threads may share it.

    A thread that asks for a model which another one is building waits for it. If that fails, it
    tries again itself, so that the error comes to whoever needs the model.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._building: dict[Hashable, threading.Lock] = {}
        self._built: dict[Hashable, Any] = {}

    def model(self, config: Any, objects: ObjectStore) -> Any:
        """The model of a configuration.

        Args:
            config: Of any kind in the registry.
            objects: The dataset; the ledger of calls that were paid for it lies there.

        Raises:
            InputError: If weights, a key or a package are missing.
        """
        if kind_of(config).need is Need.SERVICE:
            place = (*_identity(config), objects.url)
            return self._once(place, lambda: build(config, Ledger(objects)))
        return self._once(_identity(config), lambda: build(config))

    def tokens(self, config: Any) -> TokenCounter:
        """The token counter of a painter; the painter itself is not built.

        Raises:
            InputError: If the painter's tokenizer is missing.
        """
        return self._once(("tokens", *_identity(config)), lambda: build_tokens(config))

    def release(self) -> None:
        """Let go of all models, so that a training on the same device has their memory.

        Nobody may be building one.
        """
        with self._guard:
            had_some = bool(self._built)
            self._built.clear()
        if had_some:  # to look for a device's memory would load torch
            gc.collect()
            free_device_memory()

    def _once(self, place: Hashable, make: Callable[[], Any]) -> Any:
        with self._guard:
            building = self._building.setdefault(place, threading.Lock())
        with building:
            if place not in self._built:
                self._built[place] = make()
            return self._built[place]


def _identity(config: Any) -> tuple[Hashable, ...]:
    """Tells configurations apart; one that holds a mapping has no hash of its own."""
    return type(config), config.model_dump_json()
