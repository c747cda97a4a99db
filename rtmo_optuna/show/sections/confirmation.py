"""The confirmation: the winner and its rivals in fresh pairs, and what they prove."""

from collections.abc import Iterable, Iterator, Mapping

from rtmo_optuna import stats
from rtmo_optuna.show import words
from rtmo_optuna.show.render.blocks import Block, Code, Column, Inline, Paragraph, Table, filled, numbers
from rtmo_optuna.show.render.chart import Axis, Band, Chart, Label, Line, Points, Role, Shape, Spans
from rtmo_optuna.show.render.layout import FAR, apart, spaced, ticks
from rtmo_optuna.show.scores import axis_name, differing
from rtmo_optuna.show.words import NBSP, number, written
from rtmo_optuna.types.findings import LEAST_GAIN, LEAST_PAIRS, Claim, Decided, Purpose
from rtmo_optuna.types.request import Settings
from rtmo_optuna.types.study import StudyRecord


def blocks(record: StudyRecord) -> Iterator[Block]:
    """Yield who met whom in fresh pairs, the claims, and the chart of the pairs."""
    claims, tables = _met(record), filled(table(record))
    if claims:
        rivals = words.listed(whom(record, claim.rival) for claim in claims)
        settings = Code(str(differing(record, claims[0].subject)))
        how = (
            f" of the race met {rivals} again, in fresh processes one right after the other and in alternating order. "
            "Nothing else in this report is a claim."
        )
        yield Paragraph(("The winner ", settings, how))
    if claims and not tables:
        yield Paragraph("It did not reach its end, so it says nothing yet.")
    yield from tables
    if claims:
        yield from filled(chart(record))


def _met(record: StudyRecord) -> tuple[Claim, ...]:
    """Return the winner's claims against those whom it met in pairs; none before the first pair."""
    finals = record.finals
    return tuple(one for one in finals.claims if one.subject == finals.winner) if finals.rounds else ()


def claim_sentence(claim: Claim, versus: str, *, two_sided: bool = False) -> str:
    """Return what pairs say of a claim's subject against its rival, which is called `versus`."""
    figures = estimate(claim)
    if figures is None:
        sound = words.count(claim.sound, "sound pair")
        return f"Not confirmed against {versus}: {sound} of {LEAST_PAIRS}, {claim.failed} failed."
    ratio, low, high = figures
    interval = f"(98 % interval {low} to {high}, {claim.pairs} pairs of fresh processes)"
    if claim.decided is not Decided.UNPROVEN:
        return f"{ratio} times as fast as {versus} {interval}."
    what = "difference from" if two_sided else "gain over"
    least, most = claim.interval or (1, 1)
    small = "" if least <= 1 <= most else f" Under {LEAST_GAIN:.0%} nothing is claimed."
    return f"No proven {what} {versus}: {ratio} times as fast {interval}.{small}"


def estimate(claim: Claim) -> tuple[str, str, str] | None:
    """Return a claim's ratio and the ends of its interval; None before it has any."""
    return None if claim.ratio is None or claim.interval is None else written(claim.ratio, *claim.interval)


def whom(record: StudyRecord, rival: Settings) -> str:
    """Return what a rival of the winner is."""
    return "the default settings" if rival == record.space.fixed else "what config.yaml held"


def called(record: StudyRecord, rival: Settings) -> str:
    """Return what a rival of the winner is called in short."""
    return "the default" if rival == record.space.fixed else "config.yaml"


def table(record: StudyRecord) -> Table | None:
    """Return what the pairs say of the winner against each rival; None before they say anything."""
    found = record.finals.claims if record.finals.ended else ()
    rows = tuple(_claim(record, claim) for claim in found)
    columns = (Column("Against"), *numbers("Times as fast", f"98{NBSP}% interval", "Pairs"), Column("Decided"))
    marked = frozenset(i for i, claim in enumerate(found) if claim.decided is Decided.FASTER)
    return Table(columns, rows, marked) if rows else None


def _claim(record: StudyRecord, claim: Claim) -> tuple[Inline, ...]:
    by = "" if record.finals.winner in {None, claim.subject} else ", by the default settings"
    ratio, *ends = estimate(claim) or ("not known",)
    return f"{whom(record, claim.rival)}{by}", ratio, " to ".join(ends), str(claim.pairs), claim.decided.value


def chart(record: StudyRecord) -> Chart | None:
    """Return the confirmation's processes, pair by pair: the winner, its rivals, and where the claim puts it."""
    claims = _met(record)
    sides = _sides(record, dict.fromkeys(side for claim in claims for side in (claim.subject, claim.rival)))
    if len(sides) < 2 or not all(sides.values()):  # noqa: PLR2004 - a pair
        return None
    medians = {settings: stats.median(list(values.values())) for settings, values in sides.items()}
    first, *others = sides
    fixed = record.space.fixed
    names = {first: "default" if first == fixed else "winner"} | {
        rival: called(record, rival).removeprefix("the ") for rival in others
    }
    roles = {first: Role.BEST} | {rival: Role.DEFAULT if rival == fixed else Role.CONFIG for rival in others}
    cap = FAR * max(medians.values())
    inside = [value for values in sides.values() for value in values.values() if value <= cap]
    band = _band(record, claims, medians)
    low, high = spaced(min([*inside, *([band.low] if band else [])]), max([*inside, *([band.high] if band else [])]))
    rounds = max(pair for values in sides.values() for pair in values)
    ends = (0.5, rounds + 0.5)
    lines = [Line(names[s], ends, (medians[s],) * 2, roles[s], dashed=True, thin=True) for s in sides]
    labels = [Label(medians[s], f"{names[s]} {number(medians[s])}", roles[s]) for s in sides]
    points = [_points(names[s], roles[s], sides[s], cap, high) for s in sides]
    beyond = sum(value > cap for values in sides.values() for value in values.values())
    late = f"; {words.count(beyond, 'slow process', 'slow processes')} beyond the top" if beyond else ""
    return Chart(
        name="confirmation",
        title=_title(record, claims),
        subtitle=f"Each dot is a fresh process, each thin line a pair; dashed are the medians{late}",
        x=Axis("pair, in order", *ends, ticks=ticks(1, rounds, 11, least_step=1)),
        y=Axis(axis_name(record), low, high, ticks=ticks(low, high)),
        marks=(
            *([band] if band else []),
            _spans(sides, cap, high),
            *lines,
            *(mark for pair in points for mark in pair),
            *apart(labels, high - low),
        ),
        caption="Fresh processes in pairs, in the order they were run; only these decide what is claimed.",
    )


def _sides(record: StudyRecord, settings: Iterable[Settings]) -> dict[Settings, dict[int, float]]:
    """Return each side's costs by pair, counted from 1."""
    sides: dict[Settings, dict[int, float]] = {one: {} for one in settings}
    for process in record.processes:
        confirms = process.purpose is Purpose.CONFIRMATION
        if confirms and process.cost is not None and process.settings in sides:
            sides[process.settings][process.index + 1] = process.cost
    return sides


def _band(record: StudyRecord, claims: Iterable[Claim], medians: Mapping[Settings, float]) -> Band | None:
    """Return where the interval of the first claim puts the winner, given its rival's median."""
    for claim in claims:
        if claim.interval:
            low, high = (medians[claim.rival] / end for end in reversed(claim.interval))
            name = f"where the 98{NBSP}% interval puts the winner, seen from {called(record, claim.rival)}"
            return Band(name, low, high, Role.BEST)
    return None


def _title(record: StudyRecord, claims: Iterable[Claim]) -> str:
    for claim in claims:
        if figures := estimate(claim):
            doubt = "" if claim.decided is Decided.FASTER else f"{claim.decided}: ".capitalize()
            ratio, low, high = figures
            return f"{doubt}{ratio} ({low} to {high}) times as fast as {called(record, claim.rival)}"
    return "Too few pairs for a claim"


def _points(name: str, role: Role, values: Mapping[int, float], cap: float, high: float) -> list[Points]:
    """Return one side's processes; those beyond `cap` lie at the edge, as arrows with their value."""
    inside = {pair: value for pair, value in values.items() if value <= cap}
    beyond = {pair: value for pair, value in values.items() if value > cap}
    marks = [Points(name, tuple(inside), tuple(inside.values()), role, hover=_hover(name, inside))]
    if beyond:
        heights, texts = (high,) * len(beyond), tuple(map(number, beyond.values()))
        marks.append(Points(name, tuple(beyond), heights, role, Shape.ARROW, _hover(name, beyond), texts, legend=False))
    return marks


def _hover(name: str, values: Mapping[int, float]) -> tuple[str, ...]:
    return tuple(f"pair {pair}, {name}: {number(value, 4)}" for pair, value in values.items())


def _spans(sides: Mapping[Settings, Mapping[int, float]], cap: float, high: float) -> Spans:
    first, *_ = sides.values()
    ends = {}
    for pair in first:
        met = [high if side[pair] > cap else side[pair] for side in sides.values() if pair in side]
        if len(met) > 1:
            ends[pair] = (min(met), max(met))
    return Spans(
        tuple(ends), tuple(low for low, _ in ends.values()), tuple(high for _, high in ends.values()), Role.MUTED
    )
