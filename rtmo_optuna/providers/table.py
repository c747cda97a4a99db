"""The table of providers, by the name that `--provider` and study definitions give them: a row for each file here."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtmo_optuna.providers.base import Provider
    from rtmo_optuna.types.subject import Gpu

REFERENCE = "cpu"
"""Whose outputs are the reference, and who runs what no other can."""
AUTOMATIC = ("cuda", "host", REFERENCE)
"""What `--provider auto` stands for: the first one that suits the machine."""


class _Table(Mapping[str, "Provider"]):
    """Providers by name. A child needs one of them: each file is imported when its provider is first asked for."""

    def __init__(self, *names: str) -> None:
        self._found: dict[str, Provider | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Provider:
        found = self._found[name]
        if found is None:
            found = importlib.import_module(f"rtmo_optuna.providers.{name}").PROVIDER
            self._found[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @contextlib.contextmanager
    def having(self, provider: Provider) -> Iterator[None]:
        """Have a provider of somebody else's in this process while the body runs; its children do not know it."""
        self._found[provider.name] = provider
        try:
            yield
        finally:
            del self._found[provider.name]


PROVIDERS = _Table("cuda", "cpu", "openvino", "host", "tensorrt_rtx")


def device_of(name: str, gpu: Gpu | None) -> Gpu | None:
    """Return `gpu` where the provider of this name, or the one that `auto` stands for, computes on it; else None."""
    return gpu if PROVIDERS[automatic(gpu) if name == "auto" else name].on_gpu else None


def automatic(gpu: Gpu | None) -> str:
    """Return the name of the provider that `auto` stands for on a machine with `gpu`."""
    return next(name for name in AUTOMATIC if PROVIDERS[name].suits(gpu))
