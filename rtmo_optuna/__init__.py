"""Finds the fastest ONNX Runtime settings for a model on the machine at hand, and opens sessions with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtmo_optuna.engine.clients import adapt
    from rtmo_optuna.engine.dropin import Session
    from rtmo_optuna.engine.letterbox import letterbox
    from rtmo_optuna.engine.runtime import open_session, provider_options, session_options

__all__ = ["Session", "adapt", "letterbox", "open_session", "provider_options", "session_options"]

_PLACES = {"Session": "dropin", "adapt": "clients", "letterbox": "letterbox"}


def __getattr__(name: str) -> object:
    if name in __all__:  # imported when asked for: children and the command line start without it
        import importlib  # noqa: PLC0415 - likewise

        return getattr(importlib.import_module(f"rtmo_optuna.engine.{_PLACES.get(name, 'runtime')}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
