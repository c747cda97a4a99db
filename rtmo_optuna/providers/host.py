"""The host's processor, with the CPU provider and OpenVINO as rivals: which of them runs a model is a knob."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rtmo_optuna.providers import cpu, openvino
from rtmo_optuna.providers.base import Knob, Provider, Untyped, combined
from rtmo_optuna.types.request import Choice, Dimension, Scope, Settings, Value
from rtmo_optuna.types.subject import Gpu

_RIVALS = {one.name: one for one in (cpu.PROVIDER, openvino.PROVIDER)}
_WHO = Knob("host_provider", Scope.CALL, tuple(_RIVALS), "who runs the model")


@dataclass(frozen=True, slots=True)
class _Host(Provider):
    """The rivals' knobs in one space; the default is ONNX Runtime's own, the CPU provider."""

    def suits(self, gpu: Gpu | None) -> bool:
        """Return whether there is no GPU, and there are rivals."""
        return gpu is None and not openvino.PROVIDER.missing()

    def chosen(self, settings: Settings) -> tuple[Provider, Settings]:
        """Return the rival that `settings` name, and what it knows of them."""
        rival = _RIVALS[str(settings.get(_WHO.name, _WHO.default))]
        known = {knob.name for knob in rival.knobs}
        return rival, Settings.of({name: value for name, value in settings if name in known})

    def lacks(self, name: str, value: Value) -> str:
        """Return that OpenVINO is not installed."""
        return openvino.PROVIDER.missing() if (name, value) == (_WHO.name, openvino.PROVIDER.name) else ""

    def versions(self, ort: Untyped) -> dict[str, str]:
        """Return the versions of all rivals."""
        return {name: version for rival in _RIVALS.values() for name, version in rival.versions(ort).items()}


def _knobs() -> Iterator[Knob]:
    """Yield the rivals' knobs, none of which two of them share: each means something only where its rival runs."""
    for rival in _RIVALS.values():
        yield from (knob if knob.needs else replace(knob, needs=(_WHO.name, rival.name)) for knob in rival.knobs)


def _threads() -> Dimension:
    """Return the number of threads as one dimension, whoever runs the model: the other's means nothing then."""
    of_cpu, of_openvino = "intra_op_num_threads", "INFERENCE_NUM_THREADS"
    numbers = next(knob.choices for knob in cpu.PROVIDER.knobs if knob.name == of_cpu)
    return Dimension("threads", tuple(Choice(n, ((of_cpu, n), (of_openvino, n))) for n in numbers))


def _runs(**settings: Value) -> dict[str, Value]:
    return {_WHO.name: openvino.PROVIDER.name, **settings}


PROVIDER = _Host(
    "host",
    cpu.PROVIDER.ort_name,
    knobs=(_WHO, *_knobs()),
    combined=(
        combined(
            "provider",
            cpu={},
            openvino=_runs(),
            openvino_f16=_runs(INFERENCE_PRECISION_HINT="f16"),
            openvino_bf16=_runs(INFERENCE_PRECISION_HINT="bf16"),
        ),
        _threads(),
        *cpu.PROVIDER.combined,
    ),
)
