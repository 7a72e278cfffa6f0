"""The history keeps the recent past exactly and the whole run in fixed memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndoctor.history import History, Series, frames_from_series, targets_of_series
from nndoctor.signals import Frame, Targets

LAYERS = Targets(layers=("a", "b", "c"), layer_kinds=("Linear",) * 3, layer_depths=(0, 1, 2))


def frame(step: int, **values: object) -> Frame:
    return Frame(step, step * 0.1, None, {k.replace("_", "."): np.asarray(v, np.float32) for k, v in values.items()})


def filled(samples: np.ndarray, tail: int = 2048, buckets: int = 600) -> Series:
    series = Series(samples.shape[1], tail, buckets)
    for step, row in enumerate(samples.astype(np.float32), start=1):
        series.append(step, row)
    return series


def test_latest_is_the_newest_value_of_every_target_wherever_it_was_measured() -> None:
    history = History(LAYERS)
    history.append(frame(1, grad_norm=[1.0, 2.0, np.nan]))
    history.append(frame(2, grad_norm=[np.nan, 5.0, np.nan]))
    np.testing.assert_array_equal(history.latest("grad.norm"), [1.0, 5.0, np.nan])


def test_what_was_never_measured_is_absent_and_not_zero() -> None:
    history = History(LAYERS)
    history.append(frame(1, loss=[2.0]))
    assert history.latest("grad.norm") is None
    assert history.measured() == ("loss",)
    assert history.tail("grad.norm")[1].shape == (0, 3)
    assert history.whole("grad.norm").mean.shape == (0, 3)


def test_latest_is_a_copy_that_later_frames_do_not_change() -> None:
    history = History(LAYERS)
    history.append(frame(1, loss=[2.0]))
    before = history.latest("loss")
    history.append(frame(2, loss=[3.0]))
    assert before is not None
    assert before.tolist() == [2.0]


def test_the_tail_carries_the_steps_of_irregular_samples() -> None:
    history = History(LAYERS)
    for step in (1, 2, 3, 32, 64):
        history.append(frame(step, loss=[float(step)]))
    steps, values = history.tail("loss", 3)
    assert steps.tolist() == [3, 32, 64]
    assert values.tolist() == [[3.0], [32.0], [64.0]]


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 700),
    size=st.integers(1, 4),
    missing=st.floats(0, 0.9),
    tail=st.sampled_from([4, 64, 100, 256]),
    buckets=st.sampled_from([8, 9, 30, 200]),
    seed=st.integers(0, 10_000),
)
def test_tail_and_whole_agree_with_the_samples_that_went_in(
    length: int, size: int, missing: float, tail: int, buckets: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    samples = chance.standard_normal((length, size)).astype(np.float32)
    samples[chance.random(samples.shape) < missing] = np.nan
    series = filled(samples, tail, buckets)
    steps, values = series.tail()
    assert len(steps) == min(length, tail)
    np.testing.assert_array_equal(values.T, samples[-tail:])
    np.testing.assert_array_equal(steps, np.arange(1, length + 1)[-tail:])
    whole = series.whole()
    assert len(whole.steps) <= buckets
    assert whole.steps[0] == 1
    assert (np.diff(whole.steps) > 0).all()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(np.fmin.reduce(whole.low, axis=0), np.fmin.reduce(samples, axis=0))
        np.testing.assert_array_equal(np.fmax.reduce(whole.high, axis=0), np.fmax.reduce(samples, axis=0))


@pytest.mark.parametrize("length", [10, 598, 599, 1000, 5000])
def test_buckets_hold_the_mean_of_their_samples(length: int) -> None:
    samples = np.random.default_rng(1).standard_normal((length, 2))
    whole = filled(samples).whole()
    bounds = [*(whole.steps - 1), length]
    for bucket, (begin, end) in enumerate(pairwise(bounds)):
        np.testing.assert_allclose(whole.mean[bucket], samples[begin:end].mean(axis=0), rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(whole.low[bucket], samples[begin:end].min(axis=0), rtol=1e-6)


def test_memory_does_not_grow_with_the_length_of_the_run() -> None:
    series = Series(4, tail=128, buckets=64)
    sizes = set()
    row = np.ones(4, np.float32)
    for step in range(1, 20_001):
        series.append(step, row)
        if step > 2000:
            sizes.add((series._ring.shape, series._mean.shape, len(series._staged) <= 64))
    assert len(sizes) == 1
    assert len(series.whole().steps) <= 64


def test_reading_the_whole_does_not_disturb_what_comes_after() -> None:
    samples = np.random.default_rng(2).standard_normal((900, 2)).astype(np.float32)
    read_often, read_once = Series(2, 64, 20), Series(2, 64, 20)
    for step, row in enumerate(samples, start=1):
        read_once.append(step, row)
        read_often.append(step, row)
        if step % 7 == 0:
            read_often.whole()
            read_often.tail()
    np.testing.assert_allclose(read_often.whole().mean, read_once.whole().mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(read_often.whole().steps, read_once.whole().steps)


def test_targets_that_appear_later_were_not_measured_before() -> None:
    history = History(LAYERS)
    for step in range(1, 200):
        history.append(frame(step, grad_norm=[1.0, 2.0, 3.0]))
    history.grow(Targets(layers=("a", "b", "c", "d"), layer_depths=(0, 1, 2, 3)))
    history.append(frame(200, grad_norm=[1.0, 2.0, 3.0, 4.0]))
    _, values = history.tail("grad.norm", 2)
    np.testing.assert_array_equal(values, [[1.0, 2.0, 3.0, np.nan], [1.0, 2.0, 3.0, 4.0]])
    whole = history.whole("grad.norm")
    assert np.isnan(whole.mean[0, 3])
    assert whole.mean[-1, 3] == 4.0


def test_a_frame_from_before_the_targets_grew_is_a_prefix() -> None:
    history = History(LAYERS)
    history.append(frame(1, grad_norm=[1.0, 2.0]))
    np.testing.assert_array_equal(history.latest("grad.norm"), [1.0, 2.0, np.nan])
    np.testing.assert_array_equal(history.tail("grad.norm")[1], [[1.0, 2.0, np.nan]])


def test_a_frame_that_does_not_fit_is_refused_whole() -> None:
    history = History(LAYERS)
    with pytest.raises(ValueError, match=r"4 values for 3 layer targets; call grow"):
        history.append(frame(1, loss=[1.0], grad_norm=[1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(ValueError, match=r"'nonsense' *, which is not in the catalogue"):
        history.append(frame(1, loss=[1.0], nonsense=[1.0]))
    assert history.latest("loss") is None
    history.append(frame(5, loss=[1.0]))
    with pytest.raises(ValueError, match="step 4 after step 5"):
        history.append(frame(4, loss=[1.0]))


def test_targets_never_shrink() -> None:
    history = History(LAYERS)
    history.append(frame(1, grad_norm=[1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="only grow"):
        history.grow(Targets(layers=("a",)))


def test_an_infinite_value_was_measured() -> None:
    history = History(LAYERS)
    history.append(frame(1, loss=[np.inf]))
    assert history.latest("loss") == [np.inf]
    assert history.whole("loss").high[0, 0] == np.inf


def test_a_window_reaches_back_a_number_of_steps_and_widens_to_hold_enough_samples() -> None:
    series = Series(1)
    for step in (*range(1, 51), 64, 96, 128):
        series.append(step, np.array([step], np.float32))
    assert series.window(64).steps.tolist() == [96, 128]
    assert series.window(65).steps.tolist() == [64, 96, 128]
    assert series.window(10, at_least=3).steps.tolist() == [64, 96, 128]


def test_a_window_longer_than_the_exact_tail_is_served_from_the_decimated_run() -> None:
    samples = np.arange(1.0, 1001.0)[:, None]
    series = filled(samples, tail=100, buckets=50)
    window = series.window(900)
    assert window.steps[0] == pytest.approx(100, abs=40)
    assert window.low.min() <= 140
    assert window.high.max() == 1000.0
    assert series.window(100).low.min() == 901.0


def test_from_series_reads_numbers_mappings_and_gaps() -> None:
    history = History.from_series(
        {
            "loss": [2.0, 1.0],
            "grad.norm": {"a": [1.0, 2.0], "b": [3.0]},
            "update.ratio": {"default": [0.1, 0.2], "a": [0.5, 0.6]},
        }
    )
    assert history.step == 2
    assert history.targets.layers == ("a", "b")
    np.testing.assert_array_equal(history.tail("grad.norm")[1], np.array([[1.0, 3.0], [2.0, np.nan]], np.float32))
    np.testing.assert_array_equal(history.latest("update.ratio"), np.array([0.6, 0.2], np.float32))


def test_from_series_names_a_target_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no target is called 'x'; there are a, b, c"):
        History.from_series({"grad.norm": {"x": [1.0]}}, LAYERS)


def test_frames_hold_only_what_was_measured() -> None:
    series = {"loss": [1.0, np.nan, 3.0], "lr": [0.1]}
    frames = list(frames_from_series(series, targets_of_series(series), epoch_steps=2))
    assert [sorted(f.values) for f in frames] == [["loss", "lr"], [], ["loss"]]
    assert [f.epoch for f in frames] == [0.5, 1.0, 1.5]


def test_parameters_find_the_layers_that_own_them() -> None:
    targets = targets_of_series({"param.grad.norm": {"fc.weight": [1.0], "fc.bias": [1.0]}})
    assert targets.layers == ("fc",)
    assert targets.param_layers == (0, 0)


def test_small_limits_are_refused_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match="tail >= 4 and buckets >= 8, got tail=1"):
        Series(1, tail=1)
