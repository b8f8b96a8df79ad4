"""Draws ``tasks.png``, one level of each task as an agent is about to play it: ``python docs/images/draw_tasks.py``."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from goalposts.benchmark.randomness import generator
from goalposts.benchmark.tasks.registry import make_task

ROWS = (
    ("corner", "dish", "keys_and_chests", "monsters"),
    ("maze_corner", "heist_sprites", "coinrun"),
    ("convoy", "triage", "fraud"),
)
GAMES = {"coinrun": 5, "maze_corner": 3, "heist_sprites": 0}
"""Those that Procgen draws, and the seeds of their levels."""
SIDE, GAP, TITLE = 240, 16, 22


def picture(name: str) -> Image.Image:
    """Return a level of a task's first shift."""
    task = make_task(name, **({"mode": "easy"} if name in GAMES else {}))
    env = task.make_env(1)
    env.reset(task.shift_levels(task.shifts[0], 1, generator("picture", name, GAMES.get(name, 0))))
    drawn = env.overview() if name == "coinrun" else env.picture()
    image = Image.fromarray(drawn.pixels().numpy())
    if name not in GAMES:
        return image
    return image.resize((round(SIDE * image.width / image.height), SIDE), Image.Resampling.LANCZOS)


def main() -> None:
    """Draw the tasks in rows, each below its name."""
    font = ImageFont.load_default(15)
    rows = [[(name, picture(name)) for name in row] for row in ROWS]
    width = max(sum(image.width + GAP for _, image in row) for row in rows) + GAP
    height = sum(max(image.height for _, image in row) + TITLE + GAP for row in rows) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    y = GAP
    for row in rows:
        x = GAP
        for name, image in row:
            draw.text((x, y), name, "black", font)
            sheet.paste(image, (x, y + TITLE))
            x += image.width + GAP
        y += max(image.height for _, image in row) + TITLE + GAP
    sheet.save(Path(__file__).with_name("tasks.png"), optimize=True)


if __name__ == "__main__":
    main()
