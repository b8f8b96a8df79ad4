"""Images of episodes as files: a GIF of an episode, and a still of a level with the agent's path."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.files import write_atomically
from goalposts.benchmark.tasks.drawing import PALETTE, Picture

PATH_COLOR, CASING_COLOR = PALETTE["r"], PALETTE["w"]
"""Colours of the line, and of its outline, which separates it from any ground."""
PATH_SHARE = 1 / 120
"""Width of the line, as a share of the shorter side of the picture."""


def write_gif(path: Path, pictures: Sequence[Picture], milliseconds: Sequence[int], scale: int) -> str:
    """Write pictures as an animation, and return a description of the file.

    Args:
        path: the file.
        pictures: at least one.
        milliseconds: how long each is shown.
        scale: side of a pixel.

    Raises:
        RequestError: the file cannot be written.
    """
    first, *others = [_image(picture, scale) for picture in pictures]
    settings: dict[str, Any] = {"append_images": others, "duration": list(milliseconds), "loop": 0, "optimize": False}
    size = _write(path, lambda file: first.save(file, "GIF", save_all=True, **settings))
    return f"Wrote {path}: {len(pictures)} frames, {size / 1000:.0f} kB."


def write_still(path: Path, overviews: Sequence[Picture], scale: int) -> str:
    """Write the first state of a level with the path of its agent. Return a description of the file.

    Args:
        path: the file.
        overviews: pictures of each moment of one episode.
        scale: side of a pixel.

    Raises:
        RequestError: no agent moves in such a level, or the file cannot be written.
    """
    places = [picture.agent for picture in overviews]
    points = [(x * scale, y * scale) for y, x in (place for place in places if place is not None)]
    if len(points) < len(places):
        raise RequestError("A still shows an agent's path, but no agent moves in this task; leave out --still.")
    image = _image(overviews[0], scale).convert("RGB")
    draw = ImageDraw.Draw(image)
    width = max(2, round(min(image.size) * PATH_SHARE))
    (x, y) = points[-1]
    for color, wide in ((CASING_COLOR, 2 * width), (PATH_COLOR, width)):
        draw.line(points, color, wide, joint="curve")
        radius = 2 * width + wide // 2
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
    size = _write(path, lambda file: image.save(file, "PNG", optimize=True))
    return f"Wrote {path}: {image.width}×{image.height} pixels, {size / 1000:.0f} kB."


def _write(path: Path, save: Callable[[io.BytesIO], None]) -> int:
    """Write the output of ``save`` to a file. Return its size in bytes."""
    file = io.BytesIO()
    save(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())
    except OSError as error:
        raise RequestError(
            f"The file {str(path)!r} cannot be written ({error.strerror}); give another path."
        ) from error
    return len(file.getvalue())


_COLORS = np.array(sorted({(0, 0, 0), *PALETTE.values()}), dtype=np.uint8)
"""All colours of a picture, ``uint8[num_colors, 3]``, in the order of the codes below."""
_CODE = np.array([1 << 16, 1 << 8, 1])
"""Combines a colour's three values into one number."""


def _image(picture: Picture, scale: int) -> Image.Image:
    """Return the picture as an image with a palette, for small files. A game's own picture keeps its colours."""
    pixels = picture.pixels().numpy()
    index = np.searchsorted(_COLORS @ _CODE, pixels @ _CODE).clip(max=len(_COLORS) - 1).astype(np.uint8)
    if not np.array_equal(_COLORS[index], pixels):
        return Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1)).quantize(256)
    image = Image.fromarray(index.repeat(scale, axis=0).repeat(scale, axis=1))
    image.putpalette(_COLORS.tobytes())
    return image
