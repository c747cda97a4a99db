"""Checks of what is installed: packages, driver, libraries, and whether a convolution really runs."""

import re
from collections.abc import Iterator, Mapping

from rtmo_optuna.doctor.facts import Facts, Finding, Level
from rtmo_optuna.providers.cudalibs import DRIVER
from rtmo_optuna.show.words import count, listed

_EXTRA = {True: "rtmo-optuna[gpu]", False: "rtmo-optuna[cpu]"}
_FOR_CUDA = re.compile(r"-cu(\d+)$")


def packages(facts: Facts) -> Iterator[Finding]:
    """Yield whether one package, and no other, fills the folder `onnxruntime`."""
    found, wanted = facts.software.packages, _EXTRA[facts.on_gpu]
    seen = listed(f"{name} {version}" for name, version in found.items()) if found else "no ONNX Runtime"
    if len(found) > 1:
        todo = f"pip uninstall -y {' '.join(found)}, then pip install '{wanted}'."
        yield Finding("packages", Level.FAIL, f"{seen} fill the same folder, and break each other.", todo)
    else:
        todo = "" if found else f"pip install '{wanted}'."
        yield Finding("packages", Level.OK if found else Level.FAIL, f"{seen} is installed.", todo)


def runtime(facts: Facts) -> Iterator[Finding]:
    """Yield whether a child loads ONNX Runtime with the provider."""
    software = facts.software
    if software.broken:
        yield Finding("runtime", Level.FAIL, software.broken, f"pip install '{_EXTRA[facts.on_gpu]}'.")
        return
    versions = listed(f"{name} {version}" for name, version in software.versions.items())
    yield Finding("runtime", Level.OK, f"{versions}: the provider {facts.provider} is there.")


def driver(facts: Facts) -> Iterator[Finding]:
    """Yield whether an NVIDIA driver answers, and serves the CUDA that ONNX Runtime was built for."""
    card, gpu = facts.card, facts.machine.gpu
    if not facts.on_gpu:
        yield Finding("driver", Level.SKIPPED, f"The provider {facts.provider} needs no GPU.")
    elif gpu is None and card.serves:
        seen = f"The driver shows no GPU{f' ({card.hidden})' if card.hidden else ''}."
        yield Finding("driver", Level.FAIL, seen, "Unset CUDA_VISIBLE_DEVICES, or let it name a GPU of nvidia-smi -L.")
    elif gpu is None:
        there = (
            f"{count(card.cards, 'NVIDIA card')} without a driver that answers" if card.cards else "No NVIDIA driver"
        )
        todo = "Install NVIDIA's driver until nvidia-smi lists the GPU; start a container with --gpus all."
        seen = f"{there}{'' if card.cards else ' answers, and there is no NVIDIA card to be seen'}."
        yield Finding("driver", Level.FAIL, seen, f"{todo} Without a GPU: --provider cpu.")
    else:
        built, serves = _major(facts.software.versions), card.serves
        seen = f"{gpu.name}, driver {gpu.driver}{f', up to CUDA {serves[0]}.{serves[1]}' if serves else ''}."
        if serves and built > serves[0]:
            todo = f"Install a driver for CUDA {built}, or an onnxruntime-gpu for CUDA {serves[0]}."
            yield Finding("driver", Level.FAIL, f"{seen} ONNX Runtime was built for CUDA {built}.", todo)
        else:
            yield Finding("driver", Level.OK, seen)


def _major(versions: Mapping[str, str]) -> int:
    """Return the major version of the CUDA that ONNX Runtime was built for, 0 where it does not say."""
    return int(versions.get("cuda", "0").split(".")[0] or 0)


def libraries(facts: Facts) -> Iterator[Finding]:
    """Yield whether CUDA and cuDNN are found, in the major versions that ONNX Runtime was built for."""
    found = {name: place for name, place in facts.software.libraries.items() if name != DRIVER}
    if not found:
        yield Finding("libraries", Level.SKIPPED, f"The provider {facts.provider} asks for none, or does not load.")
        return
    for name, place in found.items():
        if place:
            continue
        stem = name.rpartition(".")[0]
        others = [other for other, there in found.items() if there and other.rpartition(".")[0] == stem]
        instead = f", only {listed(others)}" if others else ""
        todo = "pip install 'rtmo-optuna[gpu]', or let LD_LIBRARY_PATH name the folder that it lies in."
        yield Finding("libraries", Level.FAIL, f"{name} is not found{instead}.", todo)
    if all(found.values()):
        yield Finding("libraries", Level.OK, f"{count(len(found), 'library', 'libraries')} found: {', '.join(found)}.")
    built = _major(facts.software.versions)
    marks = {name: _FOR_CUDA.search(name) for name in facts.software.nvidia}
    wrong = [name for name, mark in marks.items() if mark and built and int(mark[1]) != built]
    if wrong:
        seen = f"{listed(wrong)} {'is' if len(wrong) == 1 else 'are'} for another CUDA than ONNX Runtime's, {built}."
        todo = f"pip uninstall -y {' '.join(wrong)}, then pip install 'rtmo-optuna[gpu]' anew."
        yield Finding("libraries", Level.WARN, seen, todo)


def convolution(facts: Facts) -> Iterator[Finding]:
    """Yield whether a convolution runs on the provider, in a child, and comes out as on the CPU."""
    software = facts.software
    if software.convolved:
        yield Finding("convolution", Level.OK, f"A convolution ran on {facts.provider}, and came out as on the CPU.")
    elif software.broken and not software.not_convolved:
        yield Finding("convolution", Level.SKIPPED, "ONNX Runtime does not load.")
    else:
        todo = "See what failed above: driver, libraries, memory of the GPU."
        yield Finding("convolution", Level.FAIL, software.not_convolved, todo)
