"""A ReLU behind the last layer of a regression: half of the standardised targets are negative and out of reach."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nndoctor.zoo.case import Attach, Case, seeded
from nndoctor.zoo.data import ink_regression
from nndoctor.zoo.models import Mlp
from nndoctor.zoo.trainer import Trained, evaluate, fit

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "none": nn.Identity}


class Regressor(nn.Module):
    """A fully connected net with an activation of choice at its end."""

    def __init__(self, inputs: int, final_activation: str) -> None:
        super().__init__()
        self.net = Mlp((inputs, 64, 32, 1), nn.GELU)
        self.out = ACTIVATIONS[final_activation]()
        nn.init.constant_(self.net.get_parameter("fc3.bias"), 0.3)  # positive at first, or the unit would be born dead

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.out(self.net(inputs))  # (batch, 1)
        return answer


def train(
    seed: int, attach: Attach, *, final_activation: str, loss: str = "MSELoss", rate: float = 0.01, steps: int = 400
) -> Trained:
    data = ink_regression()
    loader = data.train_loader(seed=seed)
    model = seeded(seed, partial(Regressor, data.train_inputs.shape[1], final_activation))
    loss_fn = nn.SmoothL1Loss() if loss == "SmoothL1Loss" else nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
    doctor = attach(model, optimizer, loss_fn, loader=loader)
    run = fit(model, optimizer, loss_fn, loader, steps, doctor=doctor)
    error, _ = evaluate(model, nn.MSELoss(), data.val_loader())
    return Trained(run.losses, error)


CASE = Case(
    name="wrong-output-relu",
    diagnosis="wrong-output-activation",
    description="regression MLP, Nesterov: nn.ReLU at the end, targets with mean 0",
    sick=partial(train, final_activation="relu"),
    cured=partial(train, final_activation="none"),
    remedies={"final_activation": "final_activation"},
    source="https://discuss.pytorch.org/t/enforcing-positive-output-values/106851",
)

SIGMOID = Case(
    name="wrong-output-sigmoid",
    diagnosis="wrong-output-activation",
    description="regression MLP, smooth L1: nn.Sigmoid at the end, targets with mean 0 and standard deviation 1",
    sick=partial(train, final_activation="sigmoid", loss="SmoothL1Loss", rate=0.03),
    cured=partial(train, final_activation="none", loss="SmoothL1Loss", rate=0.03),
    remedies={"final_activation": "final_activation"},
    source="https://github.com/mikesj-public/convolutional_autoencoder/pull/9",
)
