"""A complete mitigation: a tenth of the training levels shows which goal is meant."""

import torch

from goalposts import Knowledge, Mitigation


class ATenth(Mitigation):
    """Draws a tenth of the training levels from the randomized sampler."""

    uses = frozenset({Knowledge.LEVEL_GENERATOR})

    def sample_levels(self, num_levels):
        usual, randomized = self.context.sample_levels(num_levels), self.context.randomized_levels(num_levels)
        generator = self.context.generator
        chosen = torch.rand(num_levels, generator=generator, device=generator.device) < 0.1
        rows = torch.arange(num_levels, device=chosen.device) + num_levels * chosen
        return type(usual).concatenate([usual, randomized])[rows]
