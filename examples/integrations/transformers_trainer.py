"""A small language model trained by Transformers' Trainer, offline; ``--lr 1`` makes it sick.

python examples/integrations/transformers_trainer.py --lr 1
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

import nndoctor
from nndoctor.integrations.transformers import DoctorCallback

VOCABULARY = 32


def sequences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Tokens that go up by one or two, which can be learnt."""
    steps = torch.randint(1, 3, (count, 16), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": tokens, "labels": tokens} for tokens in steps.cumsum(1) % VOCABULARY]


def main(argv: Sequence[str] | None = None) -> nndoctor.Diagnosis:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--steps", type=int, default=80)
    options = parser.parse_args(argv)

    set_seed(0)
    shape = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM"))
    callback = DoctorCallback(name="transformers-trainer")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder, learning_rate=options.lr, max_steps=options.steps, per_device_train_batch_size=16,
                eval_strategy="steps", eval_steps=20, save_strategy="no", logging_strategy="no", report_to="none",
                use_cpu=True, disable_tqdm=True,
            ),
            train_dataset=sequences(512, seed=0),
            eval_dataset=sequences(64, seed=1),
            callbacks=[callback],
        )
        trainer.train()
    assert callback.doctor is not None
    return callback.doctor.diagnosis()


if __name__ == "__main__":
    print(main().verdict)
