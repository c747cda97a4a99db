"""The report as files: Markdown, HTML and pictures that say the same, and say it first what matters."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from program import there
from rtmo_optuna.errors import UsageError
from rtmo_optuna.search.decide import confirm
from rtmo_optuna.search.verdict import racers
from rtmo_optuna.show.render.blocks import Code
from rtmo_optuna.show.report import write
from rtmo_optuna.show.sections import confirmation, knobs, machine, noise, outputs, race, ranking, time, verdict
from rtmo_optuna.show.sections.verdict import sentence
from rtmo_optuna.show.words import NBSP, TIMES
from rtmo_optuna.types.findings import Claim, Decided, Noise, Purpose, Screening, Status
from rtmo_optuna.types.measurement import GateMode, GateResult, GateRules, Outcome, OutputError
from rtmo_optuna.types.request import Pixels, Settings, Stage
from rtmo_optuna.types.study import Origin, StudyRecord
from rtmo_optuna.types.subject import Frozen, GpuState
from test_show_charts import (
    EQUAL,
    FASTER,
    HELD,
    MEMORY,
    TOO_FEW,
    WRONG,
    contested,
    edge_cases,
    failed,
    markdown,
    measured,
    realistic,
    study,
)

NASTY = "**50 %** $x$ <img src=http://evil.example/x> `a|b` [c](http://evil.example) _d_ </script> 人"
PICTURES = {name: f"plots/{name}.png" for name in ("history", "ranking", "windows", "knobs", "time")}


class Reader(HTMLParser):
    """What a browser would see: tags with attributes, the texts outside scripts and styles."""

    def __init__(self, page: str) -> None:
        """Read `page` at once."""
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in {"script", "style"} else ""

    def handle_endtag(self, tag: str) -> None:
        """Leave a script or a style."""
        del tag
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if not self._inside:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All texts, on one line."""
        return " ".join(" ".join(self.texts).split())


def rendered(text: str) -> Reader:
    """Return Markdown as a reader of GitHub sees it."""
    return Reader(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Return the files of a realistic study's report."""
    return write(realistic(), tmp_path_factory.mktemp("report") / "new" / "report.md", "They are in config.yaml.")


@pytest.mark.slow
def test_write_returns_what_it_wrote(files: tuple[Path, ...]) -> None:
    """The Markdown file comes first, then the page, then the pictures; nothing else is left in the folder."""
    folder = files[0].parent
    assert [file.relative_to(folder).as_posix() for file in files] == [
        "report.md",
        "report.html",
        *(f"plots/{name}.png" for name in PICTURES),
    ]
    assert {file for file in folder.rglob("*") if file.is_file()} == set(files)


def test_markdown_links_every_picture(files: tuple[Path, ...]) -> None:
    """Each picture is shown once, by a path relative to the report that exists."""
    sources = [attributes["src"] for tag, attributes in rendered(files[0].read_text()).tags if tag == "img"]
    assert sorted(map(str, sources)) == sorted(PICTURES.values())
    assert all((files[0].parent / str(source)).stat().st_size > 10_000 for source in sources)


CASES = {
    Status.CONFIRMED: contested(realistic()),
    Status.NO_GAIN: contested(realistic(), EQUAL),
    Status.UNCONFIRMED: contested(realistic(), TOO_FEW, pairs=4),
    Status.MEASURED: realistic(),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict_comes_first(case: Status) -> None:
    """Below the title stands the verdict in bold, and then how far it may be believed."""
    record = CASES[case]
    title, verdict, told = markdown(record, PICTURES).split("\n\n")[:3]
    assert title.startswith("# ")
    assert verdict == f"**{sentence(record)}**"
    assert told.startswith(f"Status: {case.value}. ")


def test_no_gain_is_no_shame() -> None:
    """Where nothing beats the defaults, the report says that they are as fast, and how small a gain it could find."""
    told = verdict.status_line(CASES[Status.NO_GAIN])
    assert "ONNX Runtime's defaults are as fast as anything tried here" in told
    assert "A gain of 1.2\N{NO-BREAK SPACE}% would have been found" in told
    assert "there is nothing to change" in told
    cut_short = verdict.status_line(replace(CASES[Status.NO_GAIN], cut_short=True))
    assert "but the search had no time for more" in cut_short
    assert "nothing to change" not in cut_short


def test_throughput_stands_beside_the_latency_that_it_takes() -> None:
    """Images a second are the objective itself there; how long a batch takes is what one has to know besides."""
    record = study([(Settings(), measured(12.8))], objective="throughput")
    shapes = {"input": (8, 3, 640, 640)}
    record = replace(record, inputs=replace(record.inputs, shapes=shapes))
    cards = dict(verdict.facts(replace(record, verdict=replace(record.verdict, best=record.trials[0]))))
    assert cards["Latency of 8 items"].startswith("12.")
    assert "FPS" not in cards
    assert any("items/s" in value for value in cards.values())


def test_a_study_without_any_value_has_no_status() -> None:
    """There is nothing to believe, or not."""
    assert study().verdict.status is None
    assert verdict.status_line(study()) == ""


@pytest.mark.parametrize("case", CASES)
def test_only_a_confirmed_gain_is_called_a_speed_up(case: Status) -> None:
    """The card with the speed-up holds the claim's ratio and interval; where there is none, a card says so."""
    cards = dict(verdict.facts(CASES[case]))
    speedups = [value for name, value in cards.items() if name.startswith("Speed-up")]
    assert speedups == ([f"1.143{TIMES} (1.121{NBSP}to{NBSP}1.166)"] if case is Status.CONFIRMED else [])
    assert cards.get("Gain") == (None if case is Status.CONFIRMED else case.value)


def test_each_proven_claim_has_its_card() -> None:
    """Against the default and what config.yaml held, each with its own interval; an unproven one has no card."""
    held = Settings.of({"gpu_mem_limit_gb": 16})
    cards = dict(verdict.facts(contested(realistic(), FASTER, HELD, held=held)))
    assert cards["Speed-up over config.yaml"] == f"1.090{TIMES} (1.070{NBSP}to{NBSP}1.110)"
    slow = replace(HELD, decided=Decided.UNPROVEN)
    cards = dict(verdict.facts(contested(realistic(), FASTER, slow, held=held)))
    assert [name for name in cards if name.startswith("Speed-up")] == ["Speed-up over the default"]


def test_latency_cards_are_from_fresh_processes() -> None:
    """Best and default are the medians of the pairs, else of the race, else single trials, and say so."""
    record = contested(realistic())

    def cards(*purposes: Purpose) -> dict[str, str]:
        kept = tuple(process for process in record.processes if process.purpose in purposes)
        return dict(verdict.facts(replace(record, processes=kept)))

    def middle(purpose: Purpose, *, default: bool) -> float:
        wanted = Settings() if default else record.processes[-1].settings
        costs = [p.cost for p in record.processes if p.purpose is purpose and p.settings == wanted and p.cost]
        assert len(costs) > 5
        return statistics.median(costs)

    assert record.processes[-1].settings != Settings()
    confirmed = dict(verdict.facts(record))
    assert confirmed["Default latency"] == f"{middle(Purpose.CONFIRMATION, default=True):.2f}\N{NO-BREAK SPACE}ms"
    assert confirmed["Best latency"] == f"{middle(Purpose.CONFIRMATION, default=False):.2f}\N{NO-BREAK SPACE}ms"
    assert confirmed["FPS"] == f"{1e3 / middle(Purpose.CONFIRMATION, default=False):.0f}"
    raced = cards(Purpose.RACE)
    assert raced["Default latency (race)"] == f"{middle(Purpose.RACE, default=True):.2f}\N{NO-BREAK SPACE}ms"
    baseline = tuple(p for p in record.processes if p.purpose is Purpose.BASELINE)
    race = tuple(p for p in record.processes if p.purpose is Purpose.RACE)
    slower = tuple(replace(p, cost=9.0, latency_ms=9.0) for p in baseline)
    pinned = tuple(replace(p, purpose=Purpose.PINNED) for p in baseline)
    mixed = replace(record, processes=(*slower, *pinned, *race), pinned=True)
    told = dict(verdict.facts(replace(record, processes=(*baseline, *race))))
    assert dict(verdict.facts(mixed))["Default latency (race)"] == told["Default latency (race)"]
    assert record.verdict.best is not None
    single = f"{record.verdict.best.measurement.latency_ms:.2f}\N{NO-BREAK SPACE}ms"
    assert cards()["Best latency (one trial)"] == cards(Purpose.BASELINE)["Best latency (one trial)"] == single


def test_confirmation_lists_the_claims() -> None:
    """Each claim is a row with its ratio, interval, pairs and decision, the proven ones marked."""
    table = there(
        confirmation.table(contested(realistic(), FASTER, TOO_FEW, held=Settings.of({"gpu_mem_limit_gb": 16})))
    )
    assert table.rows == (
        ("the default settings", "1.143", "1.121 to 1.166", "10", "faster"),
        ("what config.yaml held", "not known", "", "0", "not confirmed"),
    )
    assert table.marked == {0}


def test_race_tells_when_each_left() -> None:
    """Each contender has its processes, its change against the default, and when it left; the winner is marked."""
    table = there(race.table(contested(realistic())))
    titles = [column.title for column in table.columns]
    assert titles == ["Settings", "Processes", "Median latency, ms", "Range", "vs default", "Left after", "Note"]
    assert [(row[1], row[5]) for row in table.rows] == [
        ("6", "never"), ("6", "never"), ("5", "5\N{NO-BREAK SPACE}blocks"), ("2", "2\N{NO-BREAK SPACE}blocks"),
    ]  # fmt: skip
    assert [row[6] for row in table.rows[:2]] == ["exported, race winner", "default"]
    assert table.rows[1][4] == "0\N{NO-BREAK SPACE}%"
    assert table.marked == {0}


def test_failed_processes_of_the_race_are_counted() -> None:
    """A contender whose every process failed stays in the table without figures; its failures have a column."""
    record = contested(realistic())
    dead = tuple(
        replace(p, cost=None, latency_ms=None, reason="killed")
        if p.purpose is Purpose.RACE and p.settings == record.processes[8].settings
        else p
        for p in record.processes
    )
    finals = replace(record.finals, racers=racers(dead, record.finals.winner))
    table = there(race.table(replace(record, processes=dead, finals=finals)))
    (row,) = [row for row in table.rows if row[1] == "0"]
    assert row[2:5] == (str(sum(p.cost is None for p in dead)), "", "")


def test_noise_is_explained() -> None:
    """Spread between and within, the gain that can be found, the baseline, and every dropped window are told."""
    record = contested(realistic())
    disturbed = replace(record.trials[0].measurement, dropped={"slow core": 3}, left_out=17)
    first = replace(record.trials[0], measurement=disturbed)
    table = there(noise.table(replace(record, trials=(first, *record.trials[1:]))))
    values = {row[0]: row[1] for row in table.rows}
    assert values == {
        "Between processes, s_b": "1.1\N{NO-BREAK SPACE}%",
        "Within a process, s_w": "0.4\N{NO-BREAK SPACE}%",
        "Gain that can be found": "1.2\N{NO-BREAK SPACE}%",
        "Baseline": "6",
        "Windows dropped": "7",
        "Calls left out": "17",
    }
    assert table.rows[-2][2] == "Disturbed and measured again (beside the trials: 4, slow core: 3)."


@pytest.mark.parametrize(("unsteady", "value", "text"), [
    ({}, "0 of 9", "None on two levels or drifting, of those that ran for windows enough to tell."),
    ({"on two levels": 2, "drifting": 1}, "3 of 9", "2 on two levels and 1 drifting, of those that ran"),
])  # fmt: skip
def test_unsteady_processes_are_counted(unsteady: dict[str, int], value: str, text: str) -> None:
    """How many, of how many, and what they are."""
    found = Noise(0.011, 0.004, noisy=False, found=0.012, judged=9, unsteady=unsteady)
    table = there(noise.table(replace(contested(realistic()), noise=found)))
    (row,) = [row for row in table.rows if row[0] == "Unsteady processes"]
    assert row[1] == value
    assert str(row[2]).startswith(text)


def test_the_gpu_is_told_as_it_ran() -> None:
    """Clock and temperature under work, first and last, and what held the clock down; one line."""
    record = realistic()
    space = "\N{NO-BREAK SPACE}"
    states = (GpuState(1980, 0x0, 41), GpuState(1455, 0x4 | 0x20 | 0x100, 87))
    (line,) = [row[1] for row in machine.table(replace(record, gpu_states=states)).rows if row[0] == "GPU at work"]
    assert line == (
        f"1980{space}MHz at 41{space}°C after the first window, 1455{space}MHz at 87{space}°C (held down by the power "
        "cap and heat (software)) after the last one"
    )
    mute = (GpuState(None, 0), GpuState(None, 0))
    assert "clock not known after the first window" in markdown(replace(record, gpu_states=mute), {})
    assert "GPU at work" not in markdown(record, {})


def test_a_noisy_host_has_a_banner() -> None:
    """Above 2 % the section begins with a sentence in bold that names the gain that can be found."""
    record = contested(realistic())
    loud = markdown(replace(record, noise=Noise(0.034, 0.01, noisy=True, found=0.035)), {})
    assert "**Noisy host: processes of the same settings differ by 3.4\N{NO-BREAK SPACE}%, so gains under 3.5" in loud
    assert "Noisy host" not in markdown(record, {})


def test_at_a_spread_of_five_percent_the_report_says_what_is_found() -> None:
    """In the banner and in the table: what a study finds with 80 % where processes differ by 5 %."""
    found = confirm.detectable(0.05)
    assert found == pytest.approx(0.05, abs=0.001)
    text = markdown(replace(contested(realistic()), noise=Noise(0.05, 0.01, noisy=True, found=found)), {})
    percent = f"{100 * found:.1f}\N{NO-BREAK SPACE}%"
    assert f"differ by 5.0\N{NO-BREAK SPACE}%, so gains under {percent} will mostly not be found." in text
    assert "| Gain that can be found | 5\N{NO-BREAK SPACE}% | A gain as large is found in four studies of five" in text


def gated() -> StudyRecord:
    """Return a study of three trials whose outputs were judged: the default's, accepted and refused ones."""

    def judged(norm: float, unfound: float, wrong: str = "") -> GateResult:
        errors = (
            OutputError("dets", "boxes", {"missing": (unfound,)}, {"missing": 46}, wrong),
            OutputError("mask", "elementwise", {"norm": (norm,), "axis 1": (norm / 2, 2 * norm)}),
        )
        return GateResult(not wrong, GateMode.DETECTIONS, errors, reason=f"wrong output: {wrong}" if wrong else "")

    refusal = "1 of 46 confident rows found (at least 95% needed)"
    return study([
        (Settings(), replace(measured(3.9), gate=judged(0.002, 0.0))),
        (Settings.of({"prefer_nhwc": True}), replace(measured(3.5), gate=judged(0.004, 0.02))),
        (Settings.of({"fuse_conv_bias": True}), replace(failed(f"wrong output: {refusal}", Stage.WINDOW),
                                                        gate=judged(0.9, 0.98, refusal))),
    ])  # fmt: skip


def test_outputs_are_compared_by_figure() -> None:
    """Each figure of each output has the default's own error, its limit, and the worst of an accepted trial."""
    table = there(outputs.table(gated()))
    told = {(row[0], row[2]): row[3:] for row in table.rows}
    space = "\N{NO-BREAK SPACE}%"
    assert told == {
        (Code("dets"), "confident rows not found"): (f"0{space}", f"5{space}", f"2{space}"),
        (Code("mask"), "error in all"): (f"0.2{space}", f"1{space}", f"0.4{space}"),
        (Code("mask"), "error of the worst channel"): (f"0.4{space}", f"1{space}", f"0.8{space}"),
    }


def test_refused_outputs_are_listed() -> None:
    """A trial with a wrong output stands with the output and what is wrong; without any there is no such table."""
    table = there(outputs.wrong(gated()))
    assert table.rows == (
        (Code("fuse_conv_bias=1"), Code("dets"), "1 of 46 confident rows found (at least 95% needed)."),
    )
    assert outputs.wrong(realistic()) is None


def test_a_gate_that_says_nothing_is_said() -> None:
    """Off, never asked, or vacuous: each stands in the section on outputs, with the gate's own warnings."""
    record = gated()
    off = replace(record, definition=replace(record.definition, gate=GateRules(mode=GateMode.OFF)))
    assert outputs.remarks(record) == ()
    assert "gate was off" in markdown(off, {})
    assert "No outputs were compared" in markdown(realistic(5), {})
    empty = GateResult(passed=True, mode=GateMode.DETECTIONS, vacuous=True, warnings=("Only 2 rows are confident.",))
    vacuous = study(
        [(Settings(), replace(measured(3.9), gate=empty)), (Settings(), replace(measured(3.9), gate=empty))]
    )
    text = markdown(vacuous, {})
    assert "gate was vacuous" in text
    assert text.count("Only 2 rows are confident.") == 1


def test_ranking_claims_nothing() -> None:
    """The ranking is of single measurements: it marks what is exported and who won the race, and says who decided."""
    record = contested(realistic(), EQUAL)
    table = there(ranking.table(record))
    notes = {str(row[-1]) for row in table.rows}
    assert {"race winner", "exported, default"} <= notes
    assert "Single measurements; the race decided." in markdown(record, {})
    assert "Single measurements, which prove nothing." in markdown(realistic(), {})


def test_a_second_process_is_noted() -> None:
    """A trial whose latency is the mean of two processes says so in the ranking."""
    twice = replace(measured(3.4), second_ns=3.41e6)
    table = there(ranking.table(study([(Settings(), measured(3.9)), (Settings.of({"prefer_nhwc": True}), twice)])))
    assert [row[-1] for row in table.rows] == ["best measured, 2 processes", "default"]


def test_time_is_told_by_stage_of_the_study() -> None:
    """Baseline, trials, race and confirmation have their processes and time; without them there is no such table."""
    table = there(time.study_times(contested(realistic(20))))
    assert [(row[0], row[1]) for row in table.rows] == [
        ("baseline", "6"), ("trials", "20"), ("race", "19"), ("confirmation", "20"),
    ]  # fmt: skip
    assert table.rows[0][2] == "24\N{NO-BREAK SPACE}s"
    assert time.study_times(realistic(5)) is None


def test_a_broken_off_confirmation_says_nothing() -> None:
    """Pairs without a claim are drawn, and the section says that they say nothing yet."""
    record = contested(realistic(), FASTER, pairs=3)
    claims = tuple(Claim(claim.subject, claim.rival) for claim in record.finals.claims)
    finals = replace(record.finals, claims=claims, over=False, ended=False)
    verdict = replace(record.verdict, status=Status.MEASURED)
    text = markdown(replace(record, verdict=verdict, finals=finals), {"confirmation": "x.png"})
    assert "It did not reach its end, so it says nothing yet." in text
    assert "| Times as fast |" not in text
    assert "](x.png)" in text


def test_sections_are_in_order() -> None:
    """A reader finds the parts in the order in which they matter."""
    record = contested(realistic())
    record = replace(record, space=replace(record.space, left_out=(Frozen("x=1", "needs ONNX Runtime 9.9"),)))
    headings = re.findall(r"^## (.*)$", markdown(record, PICTURES), re.MULTILINE)
    assert headings == [
        "Warnings",
        "How to apply it",
        "Confirmation",
        "Race",
        "Machine and model",
        "Ranking",
        "What each knob does here",
        "Noise of this host",
        "Outputs",
        "What left the space, and why",
        "What failed, and why",
        "Where the time went",
        "How to go on",
    ]


@pytest.mark.parametrize("settings", [
    {"prefer_nhwc": True, "gpu_mem_limit_gb": 8, "cudnn_conv_algo_search": "HEURISTIC"},
    {"gpu_mem_limit_gb": "90%", "use_tf32": False, "session.use_device_allocator_for_initializers": True},
    {"a": "on", "b": "no", "c": "null", "d": "1e3", "e": "x: y", "f": "it's \"#1\"", "g": 2.5, "h": None, "i": "~"},
    {},
])  # fmt: skip
def test_yaml_block_is_the_best_settings(settings: dict[str, bool | int | float | str | None]) -> None:
    """The block under "How to apply it" reads back as exactly the best settings, types included."""
    best = Settings.of(settings)
    runs = [(Settings(), measured(3.9)), (best, measured(3.4))]
    text = markdown(study(runs[-1:] if not settings else runs), PICTURES)
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    read = yaml.safe_load(block)
    assert read == settings
    assert [type(read[name]) for name in settings] == [type(value) for value in settings.values()]


def test_applied_sentence_is_shown(files: tuple[Path, ...]) -> None:
    """Where the settings were written stands in both files."""
    assert "They are in config.yaml." in files[0].read_text()
    assert "They are in config.yaml." in Reader(files[1].read_text()).text


def test_every_failure_is_explained(files: tuple[Path, ...]) -> None:
    """Each reason stands once in both files, with the stage, how often, and what the failed settings share."""
    runs = [(Settings(), measured(3.9))]
    runs += [
        (Settings.of({"fuse_conv_bias": True, "gpu_mem_limit_gb": i}), failed(WRONG, Stage.WINDOW)) for i in (4, 8)
    ]
    runs += [(Settings.of({"gpu_mem_limit_gb": 16}), failed(MEMORY, Stage.FIRST_RUN))]
    text = rendered(markdown(study(runs), PICTURES)).text
    assert f"2 window {WRONG} fuse_conv_bias=1 " in text
    assert f"1 first run {MEMORY}." in text
    assert text.count(WRONG) == text.count(MEMORY) == 1
    assert WRONG in Reader(files[1].read_text()).text


def test_left_out_knobs_are_explained() -> None:
    """What left the space stands with its reason; without any, there is no such section."""
    record = realistic(5)
    some = replace(record, space=replace(record.space, left_out=(Frozen("gpu_mem_limit_gb=16", "this machine has 8"),)))
    assert "| `gpu_mem_limit_gb=16` | this machine has 8. |" in markdown(some, {})
    assert "What left the space" not in markdown(record, {})


def test_tables_keep_their_columns_whatever_is_in_them() -> None:
    """Bars, backticks and line breaks in names and reasons neither add nor remove a cell."""
    runs = [
        (Settings(), measured(3.9)),
        (Settings.of({"a|b`c": "x|\ny"}), failed(f"{NASTY}\nsecond | line", Stage.BUILD)),
    ]
    text = markdown(study(runs, name=NASTY, storage="sqlite:///a|b.db"), PICTURES)
    page = rendered(text).tags
    rows = [i for i, (tag, _) in enumerate(page) if tag in {"table", "tr"}]
    widths: list[set[int]] = []
    for start, end in zip(rows, [*rows[1:], len(page)], strict=True):
        if page[start][0] == "table":
            widths.append(set())
        else:
            widths[-1].add(sum(tag in {"td", "th"} for tag, _ in page[start:end]))
    assert len(widths) == 5
    assert all(len(width) == 1 for width in widths)
    assert "a|b`c=x|" in rendered(text).text


def test_names_cannot_bring_markup_into_the_markdown() -> None:
    """A study's name and a failure's reason are read as they are: no tags, links or emphasis come of them."""
    runs = [(Settings(), measured(3.9)), (Settings.of({"use_tf32": False}), failed(NASTY, Stage.BUILD))]
    seen = rendered(markdown(study(runs, name=NASTY), {}, applied=NASTY))
    assert seen.text.count(NASTY) == 5  # title, applied, study, reason, how to go on
    tags = {tag for tag, _ in seen.tags}
    assert not tags & {"img", "a", "em", "script"}


def test_page_needs_no_network_and_no_script(files: tuple[Path, ...]) -> None:
    """The page refers to nothing outside itself, and forbids it; links lead to its own sections."""
    page = files[1].read_text()
    reader = Reader(page)
    assert not [tag for tag, attributes in reader.tags if attributes.keys() & {"src", "srcset", "data"}]
    assert not [tag for tag, _ in reader.tags if tag in {"link", "iframe", "img", "base", "script"}]
    assert "url(" not in page.split("<style>")[1].split("</style>")[0]
    (policy,) = [a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    places = [f"#{attributes['id']}" for tag, attributes in reader.tags if tag == "section" and "id" in attributes]
    assert [attributes["href"] for tag, attributes in reader.tags if tag == "a"] == places
    assert len(places) > 8


def test_page_holds_every_chart_for_each_screen(files: tuple[Path, ...]) -> None:
    """Each chart is there for a wide and for a narrow screen, and says in words what it shows."""
    drawn = [attributes for tag, attributes in Reader(files[1].read_text()).tags if tag == "svg"]
    assert [attributes["class"] for attributes in drawn] == ["wide", "narrow"] * len(PICTURES)
    assert all(len(attributes["aria-label"] or "") > 20 for attributes in drawn)


def test_page_says_what_the_markdown_says(files: tuple[Path, ...]) -> None:
    """Both files have the same tables, cell by cell."""
    page, text = files[1].read_text(), files[0].read_text()
    html_cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    markdown_cells = re.findall(r"<td[^>]*>(.*?)</td>", MarkdownIt("commonmark").enable("table").render(text))
    plain = [re.sub(r"<[^>]+>", "", cell).replace("&quot;", '"') for cell in html_cells]
    facts = len(verdict.facts(realistic()))
    assert plain == [re.sub(r"<[^>]+>", "", cell).replace("&quot;", '"') for cell in markdown_cells][facts:]
    assert len(plain) > 100


def test_page_is_safe_from_names(tmp_path: Path) -> None:
    """A name that ends a script or opens a tag is text in the page, in the tooltips of its charts too."""
    runs = [(Settings(), measured(3.9)), (Settings.of({"use_tf32": False}), failed(NASTY, Stage.BUILD))]
    reader = Reader(write(study(runs, name=NASTY), tmp_path / "report.md", NASTY)[1].read_text())
    assert reader.text.count(NASTY) >= 5
    assert not {"img", "script"} & {tag for tag, _ in reader.tags}


@pytest.mark.parametrize(("storage", "secret"), [
    ("postgresql://tuner:hunter2@db.example/studies", "hunter2"),
    ("postgresql+psycopg://tuner:p:w/%40@db.example:5432/studies", "p:w"),
    ("postgresql://db.example/studies?user=tuner&password=hunter2&sslmode=require", "hunter2"),
])  # fmt: skip
def test_passwords_are_not_shown(storage: str, secret: str) -> None:
    """A database URL is shown without its password, but with its host."""
    text = markdown(study([(Settings(), measured(3.9))], storage=storage), {})
    assert secret not in text
    assert text.count("db.example") == 2


def test_notes_say_what_settings_are() -> None:
    """The ranking names the best, the default, what config.yaml held, and how far a pruned run came."""
    runs = [
        (Settings(), measured(3.9)),
        (Settings.of({"gpu_mem_limit_gb": 8}), measured(3.8)),
        (Settings.of({"use_tf32": False}), measured(6.0, Outcome.PRUNED, windows=3)),
        (Settings.of({"prefer_nhwc": True}), measured(3.4)),
    ]
    record = study(runs)
    held = replace(record.trials[1], origin=Origin.CONFIG)
    table = there(ranking.table(replace(record, trials=(record.trials[0], held, *record.trials[2:]))))
    assert [row[-1] for row in table.rows] == ["best measured", "config.yaml", "default", "pruned after 3 windows"]
    assert table.marked == {0}


def test_fixed_settings_are_said_once() -> None:
    """What a study fixes in every run stands in the machine's table and not in each row of the ranking."""
    record = study([(Settings.of({"use_tf32": False, **more}), measured(4.0)) for more in ({}, {"prefer_nhwc": True})])
    record = replace(record, space=replace(record.space, fixed=Settings.of({"use_tf32": False})))
    table = there(ranking.table(record))
    assert {row[1] for row in table.rows} == {Code("default"), Code("prefer_nhwc=1")}
    assert "| Fixed in every run | `use_tf32=0` |" in markdown(record, {})


def test_choices_never_measured_are_listed() -> None:
    """The table of knobs has every choice of the space: measured ones with an interval, the others as such."""
    record = realistic(12)
    table = there(knobs.table(record))
    named = {cell.text for row in table.rows if isinstance(cell := row[0], Code)}
    off_default = {
        f"{d.name}={choice.label}".replace("=True", "=1").replace("=False", "=0")
        for d in record.space.dimensions
        for choice in d.choices[1:]
    }
    assert named >= off_default
    assert "never measured" in {row[-1] for row in table.rows}


@pytest.mark.parametrize("name", edge_cases())
def test_edge_cases_have_a_report(name: str) -> None:
    """A study that lacks something still has a verdict, its machine, and a way to go on."""
    record = edge_cases()[name]
    text = markdown(record, {})
    assert f"**{sentence(record)}**" in text
    assert "| GPU | NVIDIA H200 |" in text
    assert "## How to go on" in text
    assert "nan" not in text.replace("resonance", "")
    assert ("```yaml" in text) == (record.verdict.best is not None)


def test_a_cpu_study_has_no_gpu_rows() -> None:
    """Without a GPU the machine's table starts with the CPU."""
    record = realistic(5)
    (head, *_) = machine.table(replace(record, machine=replace(record.machine, gpu=None))).rows
    assert head == ("CPU", record.machine.cpu)


def test_rewriting_removes_pictures_that_are_no_longer_true(tmp_path: Path) -> None:
    """A second report in the same folder replaces the first; a picture it has no data for goes."""
    write(realistic(20), tmp_path / "report.md")
    (tmp_path / "plots" / "mine.png").write_bytes(b"kept")
    write(study(), tmp_path / "report.md")
    assert [file.name for file in (tmp_path / "plots").iterdir()] == ["mine.png"]
    assert "plots/" not in (tmp_path / "report.md").read_text()


def test_a_report_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    """A file where the folder should be ends in one sentence that names the report and what to do."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UsageError, match=r"taken.report\.md cannot be written: .*Name another --output\."):
        write(study(), tmp_path / "taken" / "report.md")


@pytest.mark.slow
def test_a_thousand_runs_fit_a_report(tmp_path: Path) -> None:
    """A long study has all its charts, a ranking of eleven rows, and a page of reasonable size."""
    record: StudyRecord = realistic(1000)
    files = write(record, tmp_path / "long.md")
    assert ([file.name for file in files[:2]], len(files)) == (["long.md", "long.html"], 2 + len(PICTURES))
    table = there(ranking.table(record))
    assert len(table.rows) == 11
    assert files[0].stat().st_size < 30_000
    assert files[1].stat().st_size < 8_000_000


@pytest.mark.parametrize("bound", [True, False])
def test_settings_that_need_our_session_say_so(bound: bool) -> None:  # noqa: FBT001 - a case of the test
    """Bound buffers are no option of ONNX Runtime's session: the report shows what opens one; others need nothing."""
    settings = Settings.of({"io_binding": True} if bound else {"prefer_nhwc": True})
    record = study(
        [(Settings(), measured(5.0)), (settings, measured(4.0))], knobs={"capture": None, "prefer_nhwc": None}
    )
    best = next(trial for trial in record.trials if trial.settings == settings)
    text = markdown(replace(record, verdict=replace(record.verdict, best=best)), {})
    assert ("rtmo_optuna.open_session" in text) is ('.input_buffer("input")' in text) is bound
    fed = replace(record.inputs, pixels=Pixels("input", scale=0.5, std=(1, 2, 3)))
    text = markdown(replace(record, inputs=fed, verdict=replace(record.verdict, best=best)), {})
    assert "ratio = rtmo_optuna.letterbox(frame, buffer)" in text
    assert "uint8, (pixel × 0.5 - (0, 0, 0)) / (1, 2, 3) in float32" in text  # noqa: RUF001 - a sign of multiplication


def test_the_report_says_what_ten_minutes_more_could_bring() -> None:
    """Of what is left of the space, at the pace of the trials so far; without what does nothing here."""
    both: dict[str, None] = {"use_tf32": None, "prefer_nhwc": None}
    runs = [(Settings(), measured(4.0)), (Settings.of({"use_tf32": False}), measured(5.0))]
    made = study(runs, knobs=both)
    record = replace(made, trials=tuple(replace(trial, wall_s=4.0) for trial in made.trials))
    assert time.ten_minutes(record) == (
        "Ten minutes more would hold about 2 trials of the 2 settings that are left, and the best is 1 trial old. "
        "What they would find nobody knows."
    )
    inert = replace(record, screening=Screening(inert=(Frozen("prefer_nhwc", ""),)))
    assert time.ten_minutes(inert).startswith("Ten minutes more would find nothing new to try")
    assert time.ten_minutes(study()) == ""
