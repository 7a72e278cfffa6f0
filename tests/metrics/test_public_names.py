"""The metrics by their Python names."""

from __future__ import annotations

import pytest

from nndoctor import metrics


@pytest.mark.parametrize("name", metrics.__all__)
def test_every_name_is_a_function_with_a_docstring(name: str) -> None:
    assert callable(getattr(metrics, name))
    assert getattr(metrics, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'median'"):
        _ = metrics.median  # type: ignore[attr-defined]
