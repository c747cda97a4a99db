"""The verdict in a sentence, how far it may be believed, the few numbers that matter, and how to apply it."""

from collections.abc import Iterator, Mapping

from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Facts, Listing, Paragraph
from rtmo_optuna.show.scores import objective, typical, with_unit
from rtmo_optuna.show.sections.answers import changed
from rtmo_optuna.show.sections.confirmation import called, claim_sentence, estimate, whom
from rtmo_optuna.show.sections.noise import findable
from rtmo_optuna.show.sections.time import study_stages
from rtmo_optuna.show.words import NBSP, TIMES, number
from rtmo_optuna.space.knobs import knob_table
from rtmo_optuna.space.resolve import size
from rtmo_optuna.space.values import as_yaml
from rtmo_optuna.types.findings import LEAST_PAIRS, FinalsRecord, Status
from rtmo_optuna.types.measurement import Outcome
from rtmo_optuna.types.request import Scope, Settings
from rtmo_optuna.types.study import ENOUGH_TRIED, StudyRecord

_TIME_UP = "The time was up before all pairs were run; the same command goes on."
_OPENED = 'session = rtmo_optuna.open_session("model.onnx", "config.yaml")'


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield the verdict in bold, how far it may be believed, and the few numbers that matter."""
    yield Paragraph(words.sentence(sentence(record)), strong=True)
    yield from (Paragraph(line) for line in (status_line(record), pace_line(record)) if line)
    yield Facts(facts(record))


def application(record: StudyRecord, applied: str) -> Iterator[Block]:
    """Yield the settings, and how a session takes them; `applied` says where they were written, if they were."""
    best = record.verdict.best
    if best is None:
        yield Paragraph(words.sentence(applied) or "There is nothing to apply.")
        return
    if applied:
        yield Paragraph(words.sentence(applied))
    elif record.verdict.status is Status.MEASURED:
        yield Paragraph("These are the best measured settings; nothing is proven of them.")
    if not len(best.settings):
        yield Paragraph("These are ONNX Runtime's defaults: there is nothing to set.")
    yaml = (f"{as_yaml(knob)}: {as_yaml(value)}" for knob, value in best.settings)
    yield Listing("\n".join(yaml) or "{}", "yaml")
    table = knob_table(record.space.provider)
    if any(knob in table and table[knob].scope is Scope.CALL for knob, _ in best.settings):
        yield from _opened(record)
    if record.inputs.pixels:
        yield from _pixels(record.inputs.pixels.input)


def _pixels(name: str) -> Iterator[Block]:
    """Yield how a session is opened and called that takes pixels for the input `name`."""
    yield Paragraph("The session takes pixels: a frame of any size is written into its buffer.")
    yield Listing(
        f'{_OPENED}\nbuffer = session.input_buffer("{name}")\nratio = rtmo_optuna.letterbox(frame, buffer)\n'
        f'outputs = session.run(None, {{"{name}": buffer}})',
        "python",
    )


def _opened(record: StudyRecord) -> Iterator[Block]:
    """Yield how a session with settings that are no options of ONNX Runtime's is opened."""
    if not PROVIDERS[record.space.provider].on_gpu:
        yield Paragraph(
            "They need a session that is opened as the trials' were: not all are ONNX Runtime's own options."
        )
        yield Listing(_OPENED, "python")
        return
    yield Paragraph(
        "They need a session that is called as the trials were: bound buffers, CUDA graphs, cut models and another "
        "precision are no options of ONNX Runtime's own. What is written into an input buffer of the session is copied "
        "to the GPU faster than any other array."
    )
    name = next(iter(record.inputs.shapes), "input")
    yield Listing(f'{_OPENED}\nbuffer = session.input_buffer("{name}")', "python")


def sentence(record: StudyRecord) -> str:
    """Return the verdict of a study."""
    verdict, finals = record.verdict, record.finals
    if verdict.status is None:
        return "No settings could be measured."
    if verdict.status is Status.TOO_LITTLE:
        return _too_little(record)
    if not finals.ended:
        return _measured(record)
    held = finals.incumbent
    if not finals.decided:
        blocks = words.count(finals.blocks, "block")
        spent = f"{blocks} of the race and {finals.rounds} of the {LEAST_PAIRS} pairs that a claim takes"
        return f"Not confirmed: the time allowed {spent}. {_stays(record, held)}"
    told = _told(record, finals)
    if verdict.incumbent_failed and verdict.best:
        failed = f"{_words(record, held).capitalize()} failed."
        return f"{failed} Fastest of the others: {verdict.best.settings}. {told}".strip()
    told = told or f"No proven gain: nothing was faster than {_words(record, held)}."
    kept = verdict.best is not None and verdict.best.settings == held
    return f"{told} {_stays(record, held) if kept else changed(record)}".strip()


def _told(record: StudyRecord, finals: FinalsRecord) -> str:
    """Return what the claims say, at last that of the default settings where they are taken in the winner's place."""
    told = [
        (claim.subject == finals.winner, claim_sentence(claim, whom(record, claim.rival))) for claim in finals.claims
    ]
    ours = [text for of_winner, text in told if of_winner]
    also = [f"The default settings are, too, and taken: {text}" for of_winner, text in told if not of_winner]
    return " ".join([*ours, *([] if finals.over else [_TIME_UP]), *also])


def _too_little(record: StudyRecord) -> str:
    verdict, finals, every = record.verdict, record.finals, size(record.space)
    advice = [
        *([f"more --trials than {record.definition.trials}"] if verdict.more_trials else []),
        *([f"--timeout {verdict.minutes}m or more"] if verdict.minutes else []),
    ]
    tried = f"{record.tried} of {every:,} settings" if record.tried <= every else f"{record.tried} settings"
    raced = "" if finals.ended and finals.blocks else ", and no race"
    what = f"Give {' and '.join(advice)}." if advice else "The same command goes on from here."
    stays = _stays(record, finals.incumbent if finals.ended else record.space.fixed)
    return f"Too little was tried for a verdict: {tried}{raced}. {what} {stays}"


def _measured(record: StudyRecord) -> str:
    best, default, unit = record.verdict.best, record.default, objective(record).unit
    value = f"{_short(best.value if best else None)} {unit}"
    if best and default and best.settings == default.settings:
        reached = f"no other of the {record.tried} settings tried was measured faster than the default settings"
        return f"Not confirmed: {reached} ({value})."
    if default is None or default.value is None:
        return f"Best measured, not confirmed: {value}; the default settings could not be measured."
    beside = f"{_short(default.value)} {unit} with the default settings"
    return f"Best measured, not confirmed: {value} against {beside}."


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def _words(record: StudyRecord, settings: Settings) -> str:
    return "the default settings" if settings == record.space.fixed else "what config.yaml holds"


def _stays(record: StudyRecord, held: Settings) -> str:
    words = _words(record, held).capitalize()
    return f"{words} {'stay' if held == record.space.fixed else 'stays'}."


def status_line(record: StudyRecord) -> str:
    """Return the sentence below the verdict, empty where nothing could be measured."""
    found = record.verdict.status
    if found is None:
        return ""
    return f"Status: {found.value}. {_no_gain(record) if found is Status.NO_GAIN else _MEANS[found]}"


def pace_line(record: StudyRecord) -> str:
    """Return at which pace all calls came, and how many were missed; empty where one followed the other."""
    rate_hz = record.definition.measuring.rate_hz
    if rate_hz is None:
        return ""
    calls, missed = (sum(getattr(trial.measurement, what) for trial in record.runs) for what in ("calls", "missed"))
    lost = f" Of those of the trials {missed} in {calls + missed} were due while another one ran, and missed."
    return (
        f"All of it holds for {words.pace(rate_hz)}, as a camera's frames come: the wait is in no latency, but what a "
        f"pause costs the call after it is.{lost if missed else ''}"
    )


def _no_gain(record: StudyRecord) -> str:
    best = record.verdict.best
    default = best is not None and best.settings == record.space.fixed
    stays = "ONNX Runtime's defaults are" if default and not len(record.space.fixed) else "What there was is"
    found = findable(record)
    sure = f" A gain of {100 * found:.1f}{NBSP}% would have been found in four studies of five." if found else ""
    every = size(record.space)
    few = record.tried < min(ENOUGH_TRIED, every)
    end = (
        f", but only {record.tried} of {every:,} settings were" if few
        else ", but the search had no time for more" if record.cut_short
        else ": there is nothing to change"
    )  # fmt: skip
    return f"{stays} as fast as anything tried here{end}.{sure}"


_MEANS: Mapping[Status, str] = {
    Status.CONFIRMED: "The figures are from pairs of fresh processes that were run after the settings had been chosen, "
    "so the luck of the search is not in them.",
    Status.UNCONFIRMED: "Too few fresh processes could be run side by side in the time allowed, so nothing is claimed "
    "and what there was stays. More time is needed to tell.",
    Status.MEASURED: "Race and confirmation did not reach their end, so a part of this lead may be luck. The same "
    "command goes on from here.",
    Status.TOO_LITTLE: "Nothing was compared with what there was, so nothing can be said of it, and the settings stay "
    "as they are.",
}


def facts(record: StudyRecord) -> tuple[tuple[str, str], ...]:
    """Return the few numbers that matter, each with its name; those that the study lacks are left out."""
    outcomes = [trial.measurement.outcome for trial in record.runs]
    ended = [f"{outcomes.count(o)}{NBSP}{o.value}" for o in (Outcome.PRUNED, Outcome.FAILED) if o in outcomes]
    beside, rate_hz = len(record.processes), record.definition.measuring.rate_hz
    return (
        *_latencies(record),
        *_gains(record),
        *((("Calls a second", f"{rate_hz:g}"),) if rate_hz is not None else ()),
        ("Trials", " ".join([str(len(outcomes)), *([f"({', '.join(ended)})"] if ended else [])])),
        *((("Processes beside them", str(beside)),) if beside else ()),
        *_noise(record),
        ("Time spent", words.seconds(sum(stage.wall_s for stage in study_stages(record)))),
    )


def _latencies(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Yield what is typical of the best and of the default, both from the same kind of process."""
    best, default = record.verdict.best, record.default
    goal = objective(record).name
    same = best is not None and default is not None and best.settings == default.settings
    sides = {
        **({f"Best {goal}": best} if best is not None and not same else {}),
        **({f"Default {goal}": default} if default is not None else {}),
    }
    found = dict(zip(sides, typical(record, tuple(sides.values())), strict=True))
    for name, value in found.items():
        if value is not None:
            yield f"{name}{value.source}", with_unit(record, value.score)
    first = next(iter(found.values()), None)
    if best is not None and first is not None and first.latency_ms:
        if goal == "throughput":
            yield f"Latency of {words.count(record.batch, 'item')}", f"{number(first.latency_ms)}{NBSP}ms"
        elif record.definition.measuring.rate_hz is None:
            yield "FPS", number(record.batch * 1e3 / first.latency_ms)


def _gains(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Yield each claim that is proven; where none is, what the verdict comes to."""
    status = record.verdict.status
    for claim in record.finals.claims:
        if claim == record.proven(claim.rival) and (figures := estimate(claim)):
            ratio, low, high = figures
            yield f"Speed-up over {called(record, claim.rival)}", f"{ratio}{TIMES} ({low}{NBSP}to{NBSP}{high})"
    if status and status is not Status.CONFIRMED:
        yield "Gain", status.value


def _noise(record: StudyRecord) -> Iterator[tuple[str, str]]:
    if record.noise and record.noise.between is not None:
        yield "Noise between processes", f"{100 * record.noise.between:.1f}{NBSP}%"
