"""Which cases rules have been tuned in sight of, and which were written blind; a hash of the name decides the rest."""

from __future__ import annotations

SEEN = frozenset(
    {
        # All that there was when the first thresholds were set.
        "bad-initialization",
        "bad-initialization-scale",
        "bad-initialization-zero",
        "dead-relu",
        "dead-relu-cnn",
        "double-softmax",
        "eval-mode-during-training",
        "exploding-gradients",
        "frozen-layer-unintended",
        "gradients-cleared-before-step",
        "gradients-cleared-in-accumulation",
        "input-bound",
        "inputs-not-normalised",
        "learning-rate-too-high",
        "learning-rate-too-high-adam",
        "learning-rate-too-high-transformer",
        "learning-rate-too-high-units-die",
        "learning-rate-too-low",
        "learning-rate-too-low-adam",
        "loss-shape-broadcast",
        "lr-schedule-misconfigured",
        "missing-optimizer-step",
        "missing-zero-grad",
        "nan-or-inf",
        "nan-or-inf-sample",
        "overfitting",
        "parameters-not-in-optimizer",
        "parameters-not-in-optimizer-groups",
        "same-batch-repeated",
        "saturated-activations",
        "targets-not-scaled",
        "unused-parameters",
        "vanishing-gradients",
        "healthy-accumulation",
        "healthy-autoencoder",
        "healthy-bfloat16",
        "healthy-cnn-batchnorm",
        "healthy-cosine",
        "healthy-fine-tuning",
        "healthy-frozen-backbone",
        "healthy-gan",
        "healthy-gpt",
        "healthy-lbfgs",
        "healthy-lstm",
        "healthy-mlp",
        "healthy-residual-net",
        "healthy-sparse-autoencoder",
        "healthy-sparse-embedding",
        "healthy-transformer",
        "healthy-zero-init-residual",
        # A rule was changed because it misjudged one of these; from then on a case counts as seen.
        "accumulation-undivided-pieces",
        "class-imbalance-binary",
        "eval-mode-dropout",
        "frozen-batchnorm-small-batches",
        "frozen-layer-embedding",
        "healthy-adagrad",
        "healthy-reinforce",
        "healthy-unfreezing",
        "learning-rate-too-high-regression",
        "lr-schedule-cosine-epochs",
        "nan-or-inf-norm",
        "target-network-shared",
    }
)
"""Cases of the tuned half whatever their hash: a rule was made or changed in their sight."""

BLIND = frozenset(
    {
        "bad-initialization-transformer",
        "dead-relu-batchnorm",
        "double-softmax-sigmoid",
        "exploding-gradients-series",
        "gradients-cleared-by-model",
        "input-bound-words",
        "inputs-not-normalised-cnn",
        "inputs-not-normalised-columns",
        "learning-rate-too-high-text",
        "learning-rate-too-low-graph",
        "loss-shape-broadcast-squeezed",
        "lr-schedule-endless-warmup",
        "missing-optimizer-step-accumulation",
        "missing-zero-grad-text",
        "overfitting-table",
        "parameters-not-in-optimizer-pooler",
        "same-batch-repeated-text",
        "saturated-activations-regression",
        "targets-not-scaled-prices",
        "unused-parameters-transformer",
        "vanishing-gradients-table",
    }
)
"""Cases of the untuned half whatever their hash: written after the rules that judge them, with no rule changed since.

Whoever changes a rule because of one moves it to `SEEN`.
"""
