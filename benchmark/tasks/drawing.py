"""Pictures of episodes: a table of named tiles, drawn as pixels for images or as characters for the terminal.

A task says which tiles lie in which cell (:class:`Picture`). Only this module decides what they look like. Tiles are
drawn on 8 by 8 points and shown at two pixels per point, so that they stay crisp.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

POINTS = 8
"""Points along a tile's side."""
TILE_PIXELS = 16
"""Pixels along a tile's side."""
AGENTS = {"agent", "car"}
"""Tiles that show the agent."""

Color = tuple[int, int, int]

PALETTE: dict[str, Color] = {
    "k": (24, 26, 32),
    "d": (70, 74, 84),
    "g": (128, 134, 146),
    "l": (206, 210, 218),
    "w": (250, 250, 250),
    "f": (238, 236, 228),
    "y": (246, 200, 62),
    "o": (214, 126, 38),
    "n": (122, 78, 42),
    "r": (208, 52, 52),
    "p": (146, 84, 178),
    "b": (44, 104, 202),
    "c": (112, 184, 232),
    "e": (38, 150, 86),
    "t": (92, 96, 104),
}
"""Colours, keyed by the letters in the drawings below. A dot is transparent."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """The look of one thing."""

    glyph: str
    """One character for the terminal."""
    color: str
    """Letter of the glyph's colour in ``PALETTE``."""
    rows: tuple[str, ...]
    """``POINTS`` rows of ``POINTS`` letters."""


def _tile(glyph: str, color: str, drawing: str) -> Tile:
    rows = tuple(drawing.split())
    assert [len(row) for row in rows] == [POINTS] * POINTS, drawing
    return Tile(glyph, color, rows)


def _plain(glyph: str, color: str) -> Tile:
    return Tile(glyph, color, (color * POINTS,) * POINTS)


def _bar(glyph: str, height: int) -> Tile:
    empty, filled = "f" * POINTS, "f" + "b" * (POINTS - 2) + "f"
    return Tile(glyph, "b", (empty,) * (POINTS - height) + (filled,) * height)


KEY = "........ .yyy.... .y.y.... .yyyyyyy .y.y.y.y .yyy.... ........ ........"
LOCK = "........ ..yyyy.. ..y..y.. .yyyyyy. .yywwyy. .yywwyy. .yyyyyy. ........"
SPRITE_COLORS = {"red": "r", "green": "e", "blue": "b"}
TILES: dict[str, Tile] = {
    "floor": _plain(" ", "f"),
    "wall": _plain("█", "d"),
    "blank": _plain(" ", "f"),
    "agent": _tile("@", "b", "........ ..gggg.. .g.gg.g. .gggggg. .gkggkg. .gggggg. ..grrg.. ........"),
    "corner": _tile("+", "p", "pppppppp p......p p.p..p.p p..pp..p p..pp..p p.p..p.p p......p pppppppp"),
    "coin": _tile("$", "y", "........ ..yyyy.. .yywwyy. .ywyyyy. .ywyyyy. .yywwyy. ..yyyy.. ........"),
    "lava": _tile("~", "r", "........ rr..rr.. rrrrrrrr rorrorrr rrrrrrrr rrorrorr rrrrrrrr rrrrrrrr"),
    "cheese": _tile("%", "o", "........ ........ .....yy. ...yyyy. .yyyoyy. .yoyyyy. .yyyyoy. ........"),
    "dish": _tile("o", "c", "........ ........ ..cccc.. .c....c. c......c .c....c. ..cccc.. ........"),
    "key": _tile("k", "y", KEY),
    "chest": _tile("c", "n", "........ .nnnnnn. .noooon. .nnyynn. .nnyynn. .noooon. .nnnnnn. ........"),
    "apple": _tile("a", "r", "........ ....e... ...ne... ..rrrr.. .rrwrrr. .rrrrrr. ..rrrr.. ........"),
    "shield": _tile("s", "b", "........ .bbbbbb. .bccccb. .bccccb. .bccccb. ..bccb.. ...bb... ........"),
    "monster": _tile("M", "e", "........ ..eeee.. .eweewe. .ekeeke. .eeeeee. .ewkwke. .e.ee.e. ........"),
    "verge": _plain("▒", "e"),
    "road": _tile(" ", "t", "tttttttt tttttttt tttttttt tttttttt tttttttt tttttttt tttttttt lltttlll"),
    "ramp": _plain("=", "g"),
    "own_exit": _tile("E", "y", "yyyyyyyy y......y y......y y......y y......y y......y y......y yyyyyyyy"),
    "cone": _tile("^", "o", "........ ........ ...oo... ...oo... ..wwww.. ..oooo.. .oooooo. ........"),
    "car": _tile("@", "b", "........ .k...k.. bbbbbbb. bcbbbccb bcbbbccb bbbbbbb. .k...k.. ........"),
    "lead": _tile("L", "r", "........ .k...k.. rrrrrrr. rlrrrllr rlrrrllr rrrrrrr. .k...k.. ........"),
    "pointer": _tile("v", "l", "........ ........ ...kk... ...kk... kkkkkkkk .kkkkkk. ..kkkk.. ...kk..."),
    "cross": _tile("x", "r", "........ .r....r. ..r..r.. ...rr... ...rr... ..r..r.. .r....r. ........"),
    "approve": _tile("✓", "e", "........ .......e ......e. .....e.. e...e... .e.e.... ..e..... ........"),
    "block": _tile("■", "r", "........ .rrrrrr. .rrrrrr. .rwwwwr. .rwwwwr. .rrrrrr. .rrrrrr. ........"),
    "step_up": _tile("?", "o", "........ ..oooo.. .oo..oo. ....oo.. ...oo... ........ ...oo... ........"),
    "card": _tile("c", "b", "........ bbbbbbbb kkkkkkkk bbbbbbbb bbyybbbb bbbbbbbb ........ ........"),
    "bank_transfer": _tile("t", "g", "...gg... ..gggg.. gggggggg .g.gg.g. .g.gg.g. .g.gg.g. gggggggg ........"),
    "direct_debit": _tile("d", "e", "........ ..eeeee. .....ee. .e..e.e. .e.e..e. .ee..... .eeeee.. ........"),
    "cryptocurrency": _tile("₿", "o", "..oooo.. .oowooo. oowwwwoo ooowowoo oowwwwoo ooowowoo .owwwwo. ..oooo.."),
    "new_instrument": _tile("*", "p", "...pp... ...pp... pppppppp .pppppp. ..pppp.. .pp..pp. pp....pp ........"),
    "clinic": _tile("c", "c", "........ ...cc... ..cccc.. .cccccc. .cc..cc. .cc..cc. .cc..cc. ........"),
    "general_practice": _tile("g", "e", "........ .eeee... .e...... .e.eeee. .e....e. .eeeeee. ........ ........"),
    "ward": _tile("w", "g", "........ g......g g......g g.gggggg gggggggg gggggggg g......g ........"),
    "trauma": _tile("T", "r", "........ ...rr... ...rr... .rrrrrr. .rrrrrr. ...rr... ...rr... ........"),
    **{f"{name}_key": _tile(name[0].upper(), color, KEY.replace("y", color)) for name, color in SPRITE_COLORS.items()},
    **{f"{name}_lock": _tile(name[0], color, LOCK.replace("y", color)) for name, color in SPRITE_COLORS.items()},
    **{f"bar{i}": _bar(glyph, 2 * i) for i, glyph in enumerate(" ▂▄▆█")},
}


def bar(value: float) -> str:
    """Return the name of the tile that shows ``value``, from 0 (or less) to 1 (or more), in five steps."""
    return f"bar{min(max(round(4 * value), 0), 4)}"


def two_columns(glyph: str) -> str:
    """Return the terminal's text for a cell. A character that fills its column is doubled to fill both."""
    return glyph * 2 if glyph in "█▒▂▄▆" else f"{glyph} "


@dataclasses.dataclass(frozen=True)
class Picture:
    """A table of cells. Each cell lists its tiles from the lowest up."""

    cells: tuple[tuple[tuple[str, ...], ...], ...]
    labels: tuple[str, ...] = ()
    """The meaning of each row, shown in the terminal. Empty if the picture needs no labels."""

    @property
    def agent(self) -> tuple[float, float] | None:
        """Place of the agent, in pixels from the top and from the left. None in a picture without an agent."""
        found = [
            (r, c) for r, row in enumerate(self.cells) for c, cell in enumerate(row) if not AGENTS.isdisjoint(cell)
        ]
        return None if len(found) != 1 else ((found[0][0] + 0.5) * TILE_PIXELS, (found[0][1] + 0.5) * TILE_PIXELS)

    def pixels(self) -> Tensor:
        """Return the picture as ``uint8[16 * rows, 16 * columns, 3]``."""
        height, width = len(self.cells), len(self.cells[0])
        image = torch.tensor(PALETTE["f"], dtype=torch.uint8).repeat(height, POINTS, width, POINTS, 1)
        for r, row in enumerate(self.cells):
            for c, cell in enumerate(row):
                for name in cell:
                    colors, opaque = _points(name)
                    image[r, :, c] = torch.where(opaque, colors, image[r, :, c])
        points = image.view(height * POINTS, width * POINTS, 3)
        scale = TILE_PIXELS // POINTS
        return points.repeat_interleave(scale, dim=0).repeat_interleave(scale, dim=1)

    def glyphs(self) -> tuple[tuple[tuple[str, Color], ...], ...]:
        """Return the character of each cell's topmost tile and its colour, row by row."""
        return tuple(
            tuple((TILES[cell[-1]].glyph, PALETTE[TILES[cell[-1]].color]) for cell in row) for row in self.cells
        )

    def text(self) -> str:
        """Return the picture as plain lines. A cell takes two columns, so that it is about square."""
        width = max((len(label) for label in self.labels), default=0)
        labels = self.labels or ("",) * len(self.cells)
        lines = []
        for label, row in zip(labels, self.glyphs(), strict=True):
            cells = "".join(two_columns(glyph) for glyph, _color in row)
            lines.append(f"{label:>{width}}  {cells}" if self.labels else cells)
        return "\n".join(line.rstrip() for line in lines)


@functools.cache
def _points(name: str) -> tuple[Tensor, Tensor]:
    """Return a tile's colours, ``uint8[POINTS, POINTS, 3]``, and where it is opaque, ``bool[POINTS, POINTS, 1]``."""
    rows = TILES[name].rows
    colors = torch.tensor([[PALETTE.get(letter, (0, 0, 0)) for letter in row] for row in rows], dtype=torch.uint8)
    return colors, torch.tensor([[letter != "." for letter in row] for row in rows]).unsqueeze(2)
