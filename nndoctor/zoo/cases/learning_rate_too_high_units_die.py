"""The same LeNet at a rate just past the edge: no blow-up, but a few violent steps kill its units for good."""

from __future__ import annotations

from functools import partial

from nndoctor.zoo.case import Case
from nndoctor.zoo.cases.learning_rate_too_high_sgd_cnn import train

CASE = Case(
    name="learning-rate-too-high-units-die",
    diagnosis="learning-rate-too-high",
    description="LeNet, SGD with momentum 0.9: lr=0.5; dead ReLUs are what it leaves behind",
    sick=partial(train, rate=0.5),
    cured=partial(train, rate=0.01),
    remedies={"lr": "rate"},
    source="https://github.com/dangitstam/topic-rnn/pull/9",
)
