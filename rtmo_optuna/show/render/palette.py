"""The colours of each role, on white and on black, after Okabe and Ito's palette for colour-blind readers."""

from collections.abc import Mapping
from dataclasses import dataclass

from rtmo_optuna.show.render.chart import Role


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a whole chart: paper, text, quiet text, grid, and each role."""

    name: str
    paper: str
    text: str
    quiet: str
    grid: str
    roles: Mapping[Role, str]


_BRIGHT = 140
_ROLES: Mapping[Role, tuple[str, str]] = {
    Role.BEST: ("#00805e", "#2fc79a"),
    Role.DEFAULT: ("#4a5560", "#c3ccd5"),
    Role.CONFIG: ("#a8508a", "#d68fbe"),
    Role.MEASURED: ("#2a7ab8", "#5aa9e0"),
    Role.PRUNED: ("#8fa3b5", "#7f93a6"),
    Role.FAILED: ("#c9520a", "#f08a4b"),
    Role.FASTER: ("#00805e", "#2fc79a"),
    Role.SLOWER: ("#c9520a", "#f08a4b"),
    Role.MUTED: ("#9aa5b0", "#75808b"),
    Role.START: ("#7d8a97", "#8d9aa7"),
    Role.IMPORTS: ("#a3adb7", "#6f7c89"),
    Role.PRELOAD: ("#c3cad1", "#566370"),
    Role.BUILD: ("#d98f00", "#d98f00"),
    Role.FIRST_RUN: ("#f0bf55", "#f0bf55"),
    Role.WARMUP: ("#7fc3ec", "#7fc3ec"),
    Role.WINDOWS: ("#1f77b4", "#3f97d4"),
    Role.REST: ("#e2e6ea", "#39434d"),
    Role.WHOLE: ("#8f7fb5", "#a594cc"),
}

LIGHT = Theme(
    name="light",
    paper="#ffffff",
    text="#1f2933",
    quiet="#5b6773",
    grid="#e4e8ec",
    roles={role: light for role, (light, _) in _ROLES.items()},
)
DARK = Theme(
    name="dark",
    paper="#14181d",
    text="#e6eaee",
    quiet="#9ba7b3",
    grid="#2b333b",
    roles={role: dark for role, (_, dark) in _ROLES.items()},
)


def ink(colour: str) -> str:
    """Return black or white, whichever reads better on `colour` (`#rrggbb`), by Rec. 709 luma."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > _BRIGHT else "#ffffff"


def variable(colour: str) -> str:
    """Return the CSS variable that holds a colour of LIGHT's in light, and DARK's in its place in dark."""
    return f"var(--c{colour[1:]})"


def variables(theme: Theme) -> str:
    """Return the declarations of all variables in the colours of `theme`."""
    pairs = [(getattr(LIGHT, name), getattr(theme, name)) for name in ("paper", "text", "quiet", "grid")]
    pairs += [(LIGHT.roles[role], colour) for role, colour in theme.roles.items()]
    pairs.append((ink("#ffffff"), ink("#ffffff")))
    return " ".join(f"--c{light[1:]}: {colour};" for light, colour in dict(pairs).items())
