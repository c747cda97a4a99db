"""Finds the fastest ONNX Runtime settings for a model on the machine at hand, and opens sessions with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtmo_optuna.engine.runtime import Session, open_session, provider_options, session_options

__all__ = ["Session", "open_session", "provider_options", "session_options"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from rtmo_optuna.engine import runtime  # noqa: PLC0415 - children and the command line start without it

        return getattr(runtime, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
