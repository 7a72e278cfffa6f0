"""A small GPT that learns to write Shakespeare, letter by letter, judged by the profile for language models.

python examples/char_gpt.py
python examples/char_gpt.py --sick attention-mask-leak
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nndoctor

SICK = ("attention-mask-leak", "learning-rate-too-high", "unregistered-module")
PLAY = Path(__file__).resolve().parent / "data" / "alls_well_that_ends_well.txt"


class Block(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        joined = self.queries_keys_values(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = joined.permute(2, 0, 3, 1, 4)  # each (batch, heads, length, width / heads)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.mlp_norm(x))


class Gpt(nn.Module):
    def __init__(self, letters: int, length: int, width: int = 96, heads: int = 4, depth: int = 3, sick: str | None = None) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(letters, width), nn.Embedding(length, width)
        blocks = [Block(width, heads, causal=sick != "attention-mask-leak") for _ in range(depth)]
        self.blocks = blocks if sick == "unregistered-module" else nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters, bias=False)
        for module in [self, *blocks]:
            for part in module.modules():
                if isinstance(part, (nn.Linear, nn.Embedding)):
                    nn.init.normal_(part.weight, std=0.02)

    def forward(self, letters: Tensor) -> Tensor:
        x = self.tokens(letters) + self.places.weight[: letters.shape[1]]  # (batch, length, width)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # (batch, length, letters)


def excerpts(text: Tensor, length: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` random pieces of the text (count, length), and the same one letter later."""
    starts = torch.randint(len(text) - length, (count, 1))
    pieces = text[starts + torch.arange(length + 1)]  # (count, length + 1)
    return pieces[:, :-1], pieces[:, 1:]


@torch.no_grad()
def write(model: Gpt, letters: str, length: int, count: int = 160) -> str:
    """`count` letters that the model makes up."""
    written = torch.full((1, 1), letters.index("\n"))
    for _ in range(count):
        scores = model(written[:, -length:])[:, -1]  # (1, letters)
        written = torch.cat([written, torch.multinomial(scores.softmax(-1), 1)], dim=1)
    return "".join(letters[i] for i in written[0].tolist())


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sick", choices=SICK, help="make this mistake")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--length", type=int, default=64, help="letters that are seen at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=PLAY, help="a text file")
    parser.add_argument("--report", help="write the report to this HTML file")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    text = options.data.read_text(encoding="utf-8")
    letters = "".join(sorted(set(text)))
    encoded = torch.tensor([letters.index(letter) for letter in text])
    training, held_out = encoded[: int(0.9 * len(encoded))], encoded[int(0.9 * len(encoded)) :]

    model = Gpt(len(letters), options.length, sick=options.sick)
    loss_fn = nn.CrossEntropyLoss()
    lr = 300 * options.lr if options.sick == "learning-rate-too-high" else options.lr
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = max(1, options.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / warmup) * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1, step / options.steps)))),
    )

    with nndoctor.wrap(model, optimizer, loss_fn, rules="llm") as doctor:
        for step in range(1, options.steps + 1):
            model.train()
            seen, following = excerpts(training, options.length, 32)
            loss = loss_fn(model(seen).flatten(0, 1), following.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 100 == 0 or step == options.steps:
                model.eval()
                with torch.no_grad():
                    seen, following = excerpts(held_out, options.length, 128)
                    val_loss = loss_fn(model(seen).flatten(0, 1), following.flatten()).item()
                doctor.observe(val_loss=val_loss)
                print(f"step {step}: loss {loss.item():.3f}, validation loss {val_loss:.3f}")
        print(write(model, letters, options.length))
        if options.report:
            doctor.report(options.report)
    return doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
