"""An agent that learns to balance poles by deep Q-learning, judged by the profile for reinforcement learning.

python examples/rl_cartpole.py
python examples/rl_cartpole.py --sick target-network-stale
"""

from __future__ import annotations

import argparse
import copy
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nndoctor

SICK = ("target-network-stale", "missing-zero-grad")


class CartPoles:
    """Some carts with a pole each, pushed left or right; the equations of Barto, Sutton and Anderson (1983).

    A state is (position, speed, angle, turning speed). A game ends when the pole leans over by 12 degrees, when the cart
    is 2.4 m away, or after `longest` moves, and the next one begins.
    """

    def __init__(self, count: int, seed: int, longest: int = 200) -> None:
        self.longest = longest
        self._draw = np.random.default_rng(seed)
        self.states = self._fresh(count)  # (count, 4)
        self.moves = np.zeros(count, dtype=int)  # (count,)
        self.lengths: deque[int] = deque(maxlen=40)
        """Of the last games that are over."""

    def push(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Push each cart for 0.02 s: the states after it (count, 4), and which poles fell (count,)."""
        _place, speed, angle, turning = self.states.T
        force = np.where(right, 10.0, -10.0)
        pull = (force + 0.05 * turning**2 * np.sin(angle)) / 1.1
        turned = (9.8 * np.sin(angle) - np.cos(angle) * pull) / (0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
        moved = pull - 0.05 * turned * np.cos(angle) / 1.1
        change = np.stack([speed, moved, turning, turned], axis=1)
        after = self.states + 0.02 * change
        fell = (np.abs(after[:, 0]) > 2.4) | (np.abs(after[:, 2]) > 0.2095)
        self.moves += 1
        over = fell | (self.moves >= self.longest)
        self.lengths.extend(self.moves[over].tolist())
        self.states = np.where(over[:, None], self._fresh(len(after)), after)
        self.moves[over] = 0
        return after, fell

    def _fresh(self, count: int) -> np.ndarray:
        return self._draw.uniform(-0.05, 0.05, (count, 4))


class Memory:
    """The last moves that were made: state, push, state after it, and whether the pole fell."""

    def __init__(self, size: int) -> None:
        self.before, self.after = torch.zeros(size, 4), torch.zeros(size, 4)
        self.actions, self.fell = torch.zeros(size, dtype=torch.long), torch.zeros(size)
        self.size, self.count = size, 0

    def add(self, before: np.ndarray, actions: np.ndarray, after: np.ndarray, fell: np.ndarray) -> None:
        places = (self.count + torch.arange(len(actions))) % self.size
        self.before[places], self.after[places] = torch.from_numpy(before).float(), torch.from_numpy(after).float()
        self.actions[places], self.fell[places] = torch.from_numpy(actions), torch.from_numpy(fell).float()
        self.count += len(actions)

    def sample(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen = torch.randint(min(self.count, self.size), (count,))
        return self.before[chosen], self.actions[chosen], self.after[chosen], self.fell[chosen]


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sick", choices=SICK, help="make this mistake")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--discount", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", help="write the report to this HTML file")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    draw = np.random.default_rng(options.seed)
    poles, memory = CartPoles(8, options.seed), Memory(20_000)
    agent = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    target = copy.deepcopy(agent).requires_grad_(False)
    optimizer = torch.optim.Adam(agent.parameters(), lr=options.lr)

    with nndoctor.wrap(agent, optimizer, F.smooth_l1_loss, rules="rl") as doctor:
        for step in range(1, options.steps + 1):
            before = poles.states
            with torch.no_grad():
                best = agent(torch.from_numpy(before).float()).argmax(1).numpy()
            curious = draw.random(len(best)) < max(0.05, 1 - step / 1000)
            actions = np.where(curious, draw.integers(0, 2, len(best)), best)
            memory.add(before, actions, *poles.push(actions == 1))

            states, chosen, after, fell = memory.sample(64)
            with torch.no_grad():
                goals = 1 + options.discount * (1 - fell) * target(after).max(1).values  # (batch,)
            values = agent(states).gather(1, chosen[:, None]).squeeze(1)  # (batch,)
            loss = F.smooth_l1_loss(values, goals)
            if options.sick != "missing-zero-grad":
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 100 == 0 and options.sick != "target-network-stale":
                target.load_state_dict(agent.state_dict())
            if poles.lengths:
                doctor.observe(episode_return=sum(poles.lengths) / len(poles.lengths))
            if step % 500 == 0 or step == options.steps:
                print(f"step {step}: loss {loss.item():.3f}, poles stand for {np.mean(poles.lengths):.0f} moves")
        if options.report:
            doctor.report(options.report)
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
