"""Providers that a package of their own brings as a library, which ONNX Runtime loads once it is told where it lies."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rtmo_optuna.errors import UsageError
from rtmo_optuna.providers.base import Provider, Untyped


@dataclass(frozen=True, slots=True)
class Plugin(Provider):
    """A provider of the package `package`, whose Python module is `module`, installed by the extra `extra`.

    `where` is what ONNX Runtime tells of a device that it may run on: a value that each of these keys must have.
    """

    package: str = ""
    module: str = ""
    extra: str = ""
    where: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str:
        """Return what to install, nothing where it is installed; nothing is loaded to know."""
        if importlib.util.find_spec(self.module):
            return ""
        return f"{self.package} is not installed: pip install 'rtmo-optuna[{self.extra}]', where there is a wheel of it"

    def load(self, ort: Untyped) -> None:
        """Register the library, once a process; raise UsageError where it is missing or finds no device."""
        if why := self.missing():
            raise UsageError(f"The provider {self.name} cannot be used: {why}.")
        if self._devices(ort):
            return
        try:
            ort.register_execution_provider_library(self.name, importlib.import_module(self.module).get_library_path())
        except Exception as error:
            raise UsageError(f"ONNX Runtime {ort.__version__} does not load {self.package}: {error}.") from error
        if not self._devices(ort):
            raise UsageError(self.why_missing(ort))

    def versions(self, ort: Untyped) -> dict[str, str]:
        """Return the versions of ONNX Runtime and of the plugin's package."""
        from importlib.metadata import version  # noqa: PLC0415 - slow to import, and children hardly ever need it

        own = {} if self.missing() else {self.package: version(self.package)}
        return Provider.versions(self, ort) | own

    def chain(self, ort: Untyped, options: Untyped, given: Mapping[str, str], device: int) -> dict[str, Untyped]:
        """Add a device to the SessionOptions `options`, the first one or the GPU of that number among those it takes.

        Raises UsageError where there is none of that number.
        """
        devices = self._devices(ort)[device if self.on_gpu else 0 :][:1]
        if not devices:
            raise UsageError(self.why_missing(ort))
        options.add_provider_for_devices(devices, self.spelled(given))
        return {}

    def spelled(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the options `given` as the plugin takes them."""
        return dict(given)

    def told(self, session: Untyped) -> None:
        """Return None: options come back as they were given, those too that the plugin does not know."""

    def why_missing(self, ort: Untyped) -> str:
        """Return that there is no device for it."""
        return f"{self.package} finds no device that the provider {self.name} can use (ONNX Runtime {ort.__version__})."

    def _devices(self, ort: Untyped) -> list[Any]:
        return [
            device
            for device in getattr(ort, "get_ep_devices", list)()
            if device.ep_name == self.ort_name and self.where.items() <= dict(device.ep_metadata).items()
        ]
