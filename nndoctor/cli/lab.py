"""``nndoctor lab``: deeper examinations of a checkpoint, one sub-command each; this file lists them."""

from __future__ import annotations

import typer

from nndoctor.cli.lab_curvature import curvature
from nndoctor.cli.lab_experiment import experiment
from nndoctor.cli.lab_freezing import freezing
from nndoctor.cli.lab_path import path
from nndoctor.cli.lab_preliminary import preliminary
from nndoctor.cli.lab_representation import representation
from nndoctor.cli.lab_surface import surface
from nndoctor.cli.lab_unhelpful import unhelpful_layers

app = typer.Typer(
    help="Examine a model more deeply: curvature, layers that can go.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _lab() -> None:
    """Examine a model more deeply: curvature, layers that can go."""


# One line per sub-command; each lives in a file of its own (nndoctor/cli/lab_<name>.py) and imports torch only when it runs.
app.command("curvature")(curvature)
app.command("representation")(representation)
app.command("unhelpful-layers")(unhelpful_layers)
app.command("freezing")(freezing)
app.command("path")(path)
app.command("surface")(surface)
app.command("preliminary")(preliminary)
app.command("experiment")(experiment)
