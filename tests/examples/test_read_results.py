from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "read_results.py"


@pytest.mark.slow
def test_the_example_reads_records_and_asks_an_agent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "669 cells" in done.stdout
    (baseline,) = re.findall(r"^0\.00 +[\d.]+ +([\d.]+)", done.stdout, re.MULTILINE)
    assert float(baseline) < 0.1, "the baseline misgeneralizes without randomized levels"
    assert "a goal misgeneralization on corner" in done.stdout
    assert "trunk.4: (64, 64)" in done.stdout
    for picture in ("fidelity", "activations"):
        content = (tmp_path / "runs" / "example" / f"{picture}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000
