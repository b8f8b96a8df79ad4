"""Hindsight: goal conditioning in which some episodes are relabelled with another goal that they happened to achieve.

It follows hindsight experience replay (Andrychowicz et al. 2017, section 3.2, strategy *episode* of section 4.5). The
learner here is on-policy, as in hindsight policy gradients (Rauber et al. 2019). That needs three corrections:

- **Importance.** The actions were drawn for the original goal g and are learned from as if for another goal g'. The
  trainer recomputes log-probabilities under g', so PPO's ratio starts at 1. Each relabelled transition is therefore
  weighted by π(a|s, g') / π(a|s, g) in the update. Later steps enter its advantage only with their own ratios
  (per-decision importance sampling: Rauber et al. 2019, theorem 4.2). Both are truncated at 1, as in V-trace (Espeholt
  et al. 2018, equation 1). As in V-trace, the distribution of states stays as it was under g.
- **Ends of episodes.** If g' ends an episode, the relabelled one ends when g' was first achieved, and later steps have
  no weight. If only g ended it, the episode was cut short and counts as truncated.
- **Bias.** Relabelled episodes are lost to g, and they are the ones that achieved something else. So episodes that
  could have been relabelled but were not are weighted by 1 / (1 − share). Then g is learned from an unbiased sample.

One bias remains. No episode is relabelled with a goal that it did *not* achieve, so values of relabelled goals are too
high. HER accepts the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from goalposts import Rollout

from .goal_multi import GoalMulti


class GoalHindsight(GoalMulti):
    """Goal conditioning with hindsight relabelling.

    Only the part of an episode within one rollout is relabelled.

    Args:
        share: of the episodes that achieved another candidate goal than their own, the share to relabel, in [0, 1).
            HER replays four relabelled transitions for each original one (section 4.5) and keeps both. Here the
            relabelled one replaces the original.
    """

    paper = "Andrychowicz et al. 2017, Hindsight Experience Replay"
    search_space: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "share": {"low": 0.1, "high": 0.9},
    }

    def __init__(self, share: float = 0.5) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"share is {share!r}; give a number in [0, 1)")
        self.share = share
        self._relabelled: Tensor
        """``bool[T, N]``: transitions of the current rollout that get another goal."""
        self._weights: Tensor
        """``float32[T, N]``: weights of its transitions, without the importance of the relabelled ones."""

    def relabel(self, rollout: Rollout) -> Rollout:
        told, events = rollout.told_goals, rollout.events
        step = torch.arange(len(told), device=told.device).unsqueeze(1).expand_as(told)
        episode = episode_numbers(rollout.done)
        eligible, chosen, other = self._choose(rollout, episode)

        fresh = other[episode]
        event, old_event = (events.gather(2, goal.unsqueeze(2)).squeeze(2) for goal in (fresh, told))
        terminal = torch.tensor(self.context.terminal_goals, device=told.device)
        reached = torch.where(event & terminal[fresh], step, len(told)).flatten()
        end = torch.full_like(other, len(told)).scatter_reduce(0, episode.flatten(), reached, "amin")[episode]
        """The step at which the new goal ends each episode; past the rollout's end if it does not."""
        relabelled = chosen[episode] & (step <= end)
        ended_before = rollout.terminated & old_event & terminal[told]
        terminated = (step == end) | (rollout.terminated & ~ended_before)
        truncated = (rollout.truncated | ended_before) & ~terminated

        self._relabelled = relabelled
        self._weights = torch.where(
            chosen[episode], relabelled.float(), torch.where(eligible[episode], 1 / (1 - self.share), 1.0)
        )
        rollout.told_goals = torch.where(relabelled, fresh, told)
        rollout.rewards = torch.where(relabelled, rollout.rewards + event.float() - old_event.float(), rollout.rewards)
        rollout.terminated = torch.where(relabelled, terminated, rollout.terminated)
        rollout.truncated = torch.where(relabelled, truncated, rollout.truncated)
        return rollout

    def _choose(self, rollout: Rollout, episode: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which episodes could be relabelled, which are, and with which goal: ``[num_episodes]`` each.

        Args:
            rollout: as it was played.
            episode: the episode number of each transition, ``int64[T, N]``.
        """
        context, num_episodes = self.context, int(episode.max()) + 1
        achieved = torch.zeros(num_episodes, context.num_goals, device=episode.device)
        achieved.index_add_(0, episode.flatten(), rollout.events.flatten(0, 1).float())
        others = torch.zeros_like(achieved)
        candidates = list(context.candidate_goals)
        others[:, candidates] = (achieved[:, candidates] > 0).float()
        others[episode.flatten(), rollout.told_goals.flatten()] = 0.0
        eligible = others.any(dim=1)
        draws = torch.rand(num_episodes, generator=context.generator, device=episode.device)
        others[~eligible] = 1.0
        other = torch.multinomial(others, 1, generator=context.generator).squeeze(1)
        return eligible, eligible & (draws < self.share), other

    def sample_weights(self, rollout: Rollout) -> Tensor:
        """Weight relabelled transitions by their truncated importance, and steps after the goal by 0."""
        return self._weights * torch.where(self._relabelled, rollout.importance.clamp(max=1.0), 1.0)


def episode_numbers(done: Tensor) -> Tensor:
    """Return each transition's episode number, ``int64[T, N]``, from the episodes' ends, ``bool[T, N]``."""
    ended_before = done.cumsum(dim=0) - done.long()
    return ended_before * done.shape[1] + torch.arange(done.shape[1], device=done.device)
