"""Raw rows of the pipelines ``tiny`` and ``other``: 2,000 walks in forty days, three of them impossible."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path

PIPELINES = Path(__file__).parent / "pipelines"
ROWS, BAD = 2000, 3


def a_mirror(folder: Path) -> Path:
    """A folder with ``walks.csv``; minutes = 8 + 12 × length + 3 × place, ± 1."""
    dice = random.Random(5)
    lines = ["at,place,length,minutes"]
    for row in range(ROWS):
        at = datetime(2024, 1, 1) + timedelta(days=40) * row / ROWS
        place, length = dice.randrange(4), round(dice.uniform(0.5, 5), 3)
        minutes = -1.0 if row in (7, 70, 700) else 8 + 12 * length + 3 * place + dice.gauss(0, 1)
        lines.append(f"{at.isoformat(sep=' ')},{place},{length},{minutes:.3f}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "walks.csv").write_text("\n".join(lines) + "\n")
    return folder
