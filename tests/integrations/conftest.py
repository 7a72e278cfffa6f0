"""What the frameworks need of this machine before they are imported."""

from __future__ import annotations

from contextlib import suppress

from nndoctor.zoo.torchvision_compat import TorchvisionUnavailable, import_torchvision

# Lightning and Transformers import torchvision where it is installed, and fail where its operators were built for another torch.
with suppress(TorchvisionUnavailable):
    import_torchvision()
