"""The report as files: Markdown, HTML and pictures that say the same, and say it first what matters."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import yaml
from markdown_it import MarkdownIt
from test_show_charts import MEMORY, WRONG, edge_cases, failed, measured, realistic, study

from rtmo_optuna.errors import UsageError
from rtmo_optuna.records import Frozen, Origin, Outcome, Settings, Stage, StudyRecord
from rtmo_optuna.show import document, tables
from rtmo_optuna.show.report import markdown, write

if TYPE_CHECKING:
    from pathlib import Path

NASTY = "**50 %** $x$ <img src=http://evil.example/x> `a|b` [c](http://evil.example) _d_ </script> 人"
PICTURES = {name: f"plots/{name}.png" for name in ("history", "ranking", "windows", "knobs", "time")}


class Reader(HTMLParser):
    """What a browser would see: tags with attributes, the texts outside scripts and styles, the scripts."""

    def __init__(self, page: str) -> None:
        """Read `page` at once."""
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
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
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
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


def test_verdict_comes_first() -> None:
    """Below the title stands the verdict in bold, and whether it is confirmed."""
    record = realistic()
    title, verdict, status = markdown(record, PICTURES).split("\n\n")[:3]
    assert title.startswith("# ")
    assert verdict == f"**{record.verdict.sentence}**"
    assert document.UNCONFIRMED in status
    certain = replace(record, verdict=replace(record.verdict, sentence="1.16 times as fast.", confirmed=True))
    assert document.UNCONFIRMED not in markdown(certain, PICTURES)


def test_sections_are_in_order() -> None:
    """A reader finds the parts in the order in which they matter."""
    record = realistic()
    record = replace(record, space=replace(record.space, left_out=(Frozen("x=1", "needs ONNX Runtime 9.9"),)))
    headings = re.findall(r"^## (.*)$", markdown(record, PICTURES), re.MULTILINE)
    assert headings == [
        "Warnings",
        "How to apply it",
        "Machine and model",
        "Ranking",
        "What each knob does here",
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


def test_page_needs_no_network(files: tuple[Path, ...]) -> None:
    """The page refers to nothing outside itself, and forbids it; plotly.js is there once."""
    page = files[1].read_text()
    reader = Reader(page)
    assert not [tag for tag, attributes in reader.tags if attributes.keys() & {"src", "href", "srcset", "data"}]
    assert not [tag for tag, _ in reader.tags if tag in {"link", "iframe", "img", "base"}]
    assert "url(" not in page.split("<style>")[1].split("</style>")[0]
    (policy,) = [a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert len(page) < 8_000_000


def test_page_holds_every_chart_for_each_screen(files: tuple[Path, ...]) -> None:
    """Each chart has its place, and a light, a dark, a wide and a narrow figure."""
    reader = Reader(files[1].read_text())
    assert [a["id"] for t, a in reader.tags if a.get("class") == "plot"] == [f"plot-{name}" for name in PICTURES]
    charts = json.loads(reader.scripts[0])
    assert list(charts) == list(PICTURES)
    assert all(set(themes) == {"light", "dark", "light-narrow", "dark-narrow"} for themes in charts.values())
    assert all(figure["data"] for themes in charts.values() for figure in themes.values())


def test_page_says_what_the_markdown_says(files: tuple[Path, ...]) -> None:
    """Both files have the same tables, cell by cell."""
    page, text = files[1].read_text(), files[0].read_text()
    html_cells = re.findall(r"<td[^>]*>(.*?)</td>", page.split("</main>")[0])
    markdown_cells = re.findall(r"<td[^>]*>(.*?)</td>", MarkdownIt("commonmark").enable("table").render(text))
    plain = [re.sub(r"<[^>]+>", "", cell).replace("&quot;", '"') for cell in html_cells]
    facts = len(tables.facts(realistic()))
    assert plain == [re.sub(r"<[^>]+>", "", cell).replace("&quot;", '"') for cell in markdown_cells][facts:]
    assert len(plain) > 100


def test_page_is_safe_from_names(tmp_path: Path) -> None:
    """A name that ends a script or opens a tag is text in the page, and its charts still parse."""
    runs = [(Settings(), measured(3.9)), (Settings.of({"use_tf32": False}), failed(NASTY, Stage.BUILD))]
    reader = Reader(write(study(runs, name=NASTY), tmp_path / "report.md", NASTY)[1].read_text())
    assert reader.text.count(NASTY) >= 5
    assert "img" not in {tag for tag, _ in reader.tags}
    assert "evil.example" in json.dumps(json.loads(reader.scripts[0])["history"])
    assert len(reader.scripts) == 3
    assert "<" not in reader.scripts[0]


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
    table = tables.ranking(replace(record, trials=(record.trials[0], held, *record.trials[2:])))
    assert table is not None
    assert [row[-1] for row in table.rows] == ["best", "config.yaml", "default", "pruned after 3 windows"]
    assert table.marked == {0}


def test_fixed_settings_are_said_once() -> None:
    """What a study fixes in every run stands in the machine's table and not in each row of the ranking."""
    record = study([(Settings.of({"use_tf32": False, **more}), measured(4.0)) for more in ({}, {"prefer_nhwc": True})])
    record = replace(record, space=replace(record.space, fixed=Settings.of({"use_tf32": False})))
    table = tables.ranking(record)
    assert table is not None
    assert {row[1] for row in table.rows} == {tables.Code("default"), tables.Code("prefer_nhwc=1")}
    assert "| Fixed in every run | `use_tf32=0` |" in markdown(record, {})


def test_choices_never_measured_are_listed() -> None:
    """The table of knobs has every choice of the space: measured ones with an interval, the others as such."""
    record = realistic(12)
    table = tables.knobs(record)
    assert table is not None
    named = {cell.text for row in table.rows if isinstance(cell := row[0], tables.Code)}
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
    assert f"**{record.verdict.sentence}**" in text
    assert "| GPU | NVIDIA H200 |" in text
    assert "## How to go on" in text
    assert "nan" not in text.replace("resonance", "")
    assert ("```yaml" in text) == (record.verdict.best is not None)


def test_a_cpu_study_has_no_gpu_rows() -> None:
    """Without a GPU the machine's table starts with the CPU."""
    record = realistic(5)
    (head, *_) = tables.machine(replace(record, machine=replace(record.machine, gpu=None))).rows
    assert head == ("CPU", record.machine.cpu)


def test_unfinished_search_is_said() -> None:
    """A study that was interrupted says that more may be found."""
    assert "did not reach its end" in markdown(replace(realistic(5), complete=False), {})
    assert "did not reach its end" not in markdown(realistic(5), {})


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


def test_a_thousand_runs_fit_a_report(tmp_path: Path) -> None:
    """A long study has all its charts, a ranking of eleven rows, and a page of reasonable size."""
    record: StudyRecord = realistic(1000)
    files = write(record, tmp_path / "long.md")
    assert [file.name for file in files[:2]] == ["long.md", "long.html"]
    assert len(files) == 2 + len(PICTURES)
    table = tables.ranking(record)
    assert table is not None
    assert len(table.rows) == 11
    assert files[0].stat().st_size < 30_000
    assert files[1].stat().st_size < 8_000_000
