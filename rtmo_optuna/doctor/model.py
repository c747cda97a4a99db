"""Checks of a model: which of its nodes a GPU's provider leaves to the host, why, and what that costs in copies."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rtmo_optuna.doctor.facts import Facts, Finding, Level
from rtmo_optuna.show.words import count, gib
from rtmo_optuna.types.placement import Alone, HostNode, Placement

_LOGGED: Mapping[str, re.Pattern[str]] = {
    "shapes": re.compile(r"[Ff]orce fallback to CPU execution for node: (.*?) because"),
    "left": re.compile(r"Fallback to CPU execution provider for Op type: \S+ node name: (.*)"),
    Alone.NEVER: re.compile(r"kernel not found in registries for Op type: \S+ node name: (.*)"),
}
"""How ONNX Runtime logs why a node goes to the host (fallback_cpu_capability.cc, cuda_execution_provider.cc)."""
_COPY = re.compile(r"Add Memcpy(?:FromHost after|ToHost before) (\S+) for ")
"""How it logs where it copies (transformer_memcpy.cc)."""
_SHAPES = "shape arithmetic, which is cheaper where its inputs are"
_REASONS: Mapping[str, tuple[str, str]] = {
    "shapes": (_SHAPES, ""),
    Alone.OLDER: (
        "no kernel for version {node.version} of the operator, one up to opset {node.opset}",
        "Export the model with opset {node.opset} at most.",
    ),
    Alone.FLOAT: ("no kernel for {types}, one for float32", "Cast before these nodes, or export them so."),
    "left": ("a kernel, but not for these attributes or inputs", "Export the operator with other attributes."),
    Alone.NEVER: ("no kernel for the operator", "Export it as other operators, or let what follows run there too."),
    Alone.PLACED: ("a kernel that is not taken here", ""),
    Alone.UNKNOWN: ("ONNX Runtime does not say why", ""),
}
"""Reasons, and what to do, by what the log says or what the node does alone."""
_BY_CERTAINTY = tuple(_REASONS)
_NAMED = 3


def opened(facts: Facts) -> Iterator[Finding]:
    """Yield whether the model opens on the provider, and how many nodes each provider runs."""
    model = facts.model
    if model is None:
        yield Finding("model", Level.SKIPPED, "No model was given.")
    elif model.refused:
        yield Finding("model", Level.FAIL, model.refused, "Mend what the sentence says, or what failed above.")
    elif model.placement is None:
        yield Finding(
            "model", Level.SKIPPED, f"{model.path} is not opened: the provider {facts.provider} does not run."
        )
    else:
        nodes = ", ".join(f"{name} {n}" for name, n in model.placement.nodes_by_provider.items())
        yield Finding("model", Level.OK, f"{model.path} opens (opset {model.placement.opset}; nodes: {nodes}).")


def nodes(facts: Facts) -> Iterator[Finding]:
    """Yield each reason for which nodes are left to the host, with what to do; nothing where there is no model."""
    model = facts.model
    if model is None or model.placement is None or not facts.on_gpu:
        return
    if not model.placement.on_host:
        yield Finding("nodes", Level.OK, "All nodes run on the GPU.")
    logged = {kind: frozenset(pattern.findall(model.log)) for kind, pattern in _LOGGED.items()}
    groups: dict[tuple[str, str], Counter[str]] = {}
    for node in model.placement.on_host:
        said = [kind for kind, names in logged.items() if node.name in names]
        groups.setdefault(why(node, said), Counter())[node.operator] += 1
    for (reason, todo), operators in groups.items():
        kinds = ", ".join(f"{n} {operator}" for operator, n in operators.most_common(_NAMED))
        more = f" and {len(operators) - _NAMED} more kinds" if len(operators) > _NAMED else ""
        level = Level.OK if reason == _SHAPES else Level.WARN
        yield Finding("nodes", level, f"On the host: {kinds}{more}: {reason}.", todo)


def copies(facts: Facts) -> Iterator[Finding]:
    """Yield how many tensors each call copies between GPU and host in the midst of the model."""
    model = facts.model
    if model is None or model.placement is None or not facts.on_gpu:
        return
    copied = _COPY.findall(model.log)
    if not copied:
        yield Finding("copies", Level.OK, "Nothing is copied between GPU and host within the model.")
        return
    sizes = _sizes(model.placement)
    known = [sizes[name] for name in copied if name in sizes]
    much = f", {gib(sum(known))} of those whose size is known ({len(known)})" if known else ""
    seen = f"Each call copies {count(len(copied), 'tensor')} between GPU and host{much}: {', '.join(copied[:_NAMED])}"
    more = f" and {len(copied) - _NAMED} more" if len(copied) > _NAMED else ""
    todo = "Each one waits for the GPU. Fixed shapes (--shape), or the opset named above, may spare them."
    yield Finding("copies", Level.WARN, f"{seen}{more}.", todo)


def why(node: HostNode, logged: Iterable[str]) -> tuple[str, str]:
    """Return why a node is on the host, by what was `logged` of it and what it does alone, and what to do about it."""
    kind = next(one for one in _BY_CERTAINTY if one in {*logged, node.alone, Alone.UNKNOWN})
    reason, todo = _REASONS[kind]
    types = ", ".join(dict.fromkeys(node.types))
    return reason.format(node=node, types=types), todo.format(node=node)


def _sizes(placement: Placement) -> dict[str, int]:
    return {name: size for node in placement.on_host for name, size in node.tensors.items()}
