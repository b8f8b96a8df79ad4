"""Domain randomization: every training level comes from the randomized sampler (Tobin et al. 2017)."""

from __future__ import annotations

from goalposts import Knowledge, Mitigation


class DomainRandomization(Mitigation):
    """The baseline at a disambiguation rate of 1."""

    uses = frozenset({Knowledge.LEVEL_GENERATOR})
    author = "Goalposts"
    licence = "MIT"
    paper = "Tobin et al. 2017, Domain Randomization for Transferring Deep Neural Networks"
    fixed_alpha = 1.0
