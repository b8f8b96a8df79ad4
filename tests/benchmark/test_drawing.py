from __future__ import annotations

import pytest
import torch

from goalposts.benchmark.tasks.drawing import PALETTE, POINTS, TILE_PIXELS, TILES, Picture, bar


def colors(picture: Picture) -> set[tuple[int, ...]]:
    return {tuple(color) for color in picture.pixels().flatten(0, 1).tolist()}


@pytest.mark.parametrize("name", sorted(TILES))
def test_every_tile_can_be_drawn(name: str) -> None:
    tile = TILES[name]
    assert len(tile.glyph) == 1
    assert tile.color in PALETTE
    assert len(tile.rows) == POINTS
    assert all(len(row) == POINTS and set(row) <= {*PALETTE, "."} for row in tile.rows)
    picture = Picture((((name,),),))
    assert picture.pixels().shape == (TILE_PIXELS, TILE_PIXELS, 3)
    assert picture.pixels().dtype == torch.uint8
    assert picture.glyphs() == (((tile.glyph, PALETTE[tile.color]),),)


def test_things_look_different() -> None:
    things = [name for name in TILES if name not in ("blank", "bar0")]
    assert len({TILES[name].rows for name in things}) == len(things)


def test_pixels_are_sixteen_a_cell_in_the_order_of_the_cells() -> None:
    assert TILE_PIXELS == 16
    picture = Picture(((("wall",), ("floor",), ("verge",)), (("floor",), ("ramp",), ("wall",))))
    pixels = picture.pixels()
    assert pixels.shape == (2 * 16, 3 * 16, 3)
    for r, row in enumerate(picture.cells):
        for c, (name,) in enumerate(row):
            block = pixels[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].flatten(0, 1)
            assert block.unique(dim=0).tolist() == [list(PALETTE[TILES[name].color])]


def test_a_point_is_two_pixels_wide_and_high() -> None:
    pixels = Picture(((("floor", "cheese"),),)).pixels()
    points = pixels.view(POINTS, 2, POINTS, 2, 3)
    assert bool((points == points[:, :1, :, :1]).all())


def test_what_lies_below_shows_through_transparent_points_alone() -> None:
    for below in ("floor", "wall"):
        pixels = Picture((((below, "cheese"),),)).pixels()[::2, ::2]
        for r, row in enumerate(TILES["cheese"].rows):
            for c, letter in enumerate(row):
                expected = TILES[below].color if letter == "." else letter
                assert pixels[r, c].tolist() == list(PALETTE[expected])
    assert PALETTE["y"] not in colors(Picture(((("floor", "cheese", "wall"),),)))


def test_glyph_is_that_of_the_topmost_tile() -> None:
    assert Picture(((("floor", "dish", "cheese"),),)).glyphs() == ((("%", PALETTE["o"]),),)


def test_text_has_two_columns_a_cell() -> None:
    picture = Picture(((("wall",), ("wall",), ("wall",)), (("wall",), ("floor", "agent"), ("wall",))))
    assert picture.text() == "██████\n██@ ██"
    assert Picture(((("agent",), ("floor",)),)).text() == "@"


def test_labels_stand_before_their_rows() -> None:
    picture = Picture(((("bar0",), ("bar4",)), (("cross",), ("blank",))), ("night", "fraud so far"))
    assert picture.text().splitlines() == ["       night    ██", "fraud so far  x"]


def test_a_label_for_each_row() -> None:
    with pytest.raises(ValueError, match="zip"):
        Picture(((("floor",),), (("floor",),)), ("one",)).text()


@pytest.mark.parametrize(
    ("value", "name"),
    [(-1.0, "bar0"), (0.0, "bar0"), (0.13, "bar1"), (0.5, "bar2"), (0.8, "bar3"), (1.0, "bar4"), (9.0, "bar4")],
)
def test_bar(value: float, name: str) -> None:
    assert bar(value) == name
    filled = sum(row[1] == "b" for row in TILES[name].rows)
    assert filled == 2 * int(name[-1])


def test_agent_is_in_the_middle_of_its_cell() -> None:
    picture = Picture(((("wall",), ("wall",), ("wall",)), (("wall",), ("floor", "agent", "key"), ("wall",))))
    assert picture.agent == (24.0, 24.0)
    assert Picture(((("bar0",), ("bar4",)),)).agent is None
