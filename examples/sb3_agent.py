"""An agent trained outside: Stable-Baselines3's PPO on the corner task, as its users would train it.

Run it with ``python examples/sb3_agent.py``; it takes a few minutes. Then, in this folder's parent:
``PYTHONPATH=examples goalposts evaluate corner --suite quick --policy sb3_agent:act``.
"""

import functools
from pathlib import Path

import goalposts  # noqa: F401 (registers the environments)

MODEL = Path("runs/sb3_corner.zip")
CORNER = {"size": 7, "wall_density": 0.1, "benign_wall_density": 0.2, "time_limit": 14}
"""The corner task as the suite ``quick`` has it; α is 0, so the cheese always lies in the corner."""


def train(env_steps=400_000):
    """Train on single Gymnasium environments, stepped in a loop."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("goalposts/Corner-v1", n_envs=64, seed=0, env_kwargs={**CORNER, "render_mode": None})
    agent = PPO(
        "MlpPolicy", envs, n_steps=32, batch_size=512, n_epochs=4, gamma=0.9, gae_lambda=0.9, ent_coef=0.001,
        learning_rate=lambda left: 2e-3 * left, policy_kwargs={"net_arch": [64, 64]}, seed=0, device="cpu",
    )  # fmt: skip
    agent.learn(env_steps)
    MODEL.parent.mkdir(exist_ok=True)
    agent.save(MODEL)


@functools.cache
def model():
    """Return the trained agent."""
    from stable_baselines3 import PPO

    return PPO.load(MODEL, device="cpu")


def act(observations):
    """Return an action for each observation: all that ``goalposts evaluate`` asks of a policy."""
    return model().predict(observations, deterministic=False)[0]


if __name__ == "__main__":
    train()
