"""Position encodings, against Hugging Face's port of DeepMind's."""

import warnings

import pytest
import torch

from perceiver_rl.nn import FourierPositions, TrainablePositions, grid_positions, relative_positions

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    modeling = pytest.importorskip(
        "transformers.models.perceiver.modeling_perceiver", reason="pip install 'perceiver-rl[bench]'"
    )

GRIDS = [(11,), (3, 5), (2, 3, 7)]


@pytest.mark.parametrize("sizes", GRIDS)
def test_grid_positions__equal_hugging_faces(sizes: tuple[int, ...]) -> None:
    theirs = torch.as_tensor(modeling.build_linear_positions(sizes)).reshape(-1, len(sizes))
    torch.testing.assert_close(grid_positions(*sizes), theirs.float())


@pytest.mark.parametrize("sizes", GRIDS)
@pytest.mark.parametrize(("include_positions", "sine_only"), [(True, False), (False, False), (True, True)])
def test_fourier_positions__equal_hugging_faces(sizes: tuple[int, ...], include_positions: bool, sine_only: bool) -> None:
    ours = FourierPositions(sizes, 4, include_positions=include_positions, sine_only=sine_only)
    positions = grid_positions(*sizes)
    theirs = modeling.generate_fourier_features(
        positions.unsqueeze(0), num_bands=4, max_resolution=sizes, concat_pos=include_positions, sine_only=sine_only
    )
    assert ours(positions).shape == (len(positions), ours.dim)
    torch.testing.assert_close(ours(positions), theirs.reshape(len(positions), -1), atol=1e-5, rtol=1e-5)


def test_fourier_positions__are_not_saved_but_follow_the_module() -> None:
    encoding = FourierPositions((4, 6), 3)
    assert not encoding.state_dict()
    assert not list(encoding.parameters())
    assert encoding.double()(grid_positions(2, 3).double()).dtype is torch.float64


def test_fourier_positions__tell_apart_every_cell_of_their_resolution() -> None:
    encoded = FourierPositions((8, 5), 4)(grid_positions(8, 5))
    distances = torch.cdist(encoded, encoded)
    assert (distances.fill_diagonal_(torch.inf) > 0.1).all()


def test_fourier_positions__have_a_gradient_for_continuous_coordinates() -> None:
    positions = (torch.rand(2, 3, 2).double() * 2 - 1).requires_grad_()
    encoding = FourierPositions((8, 5), 4).double()
    assert encoding(positions).shape == (2, 3, encoding.dim)
    assert torch.autograd.gradcheck(encoding, positions, fast_mode=True)


def test_relative_positions__put_the_one_that_looks_at_the_origin() -> None:
    positions = torch.tensor([[[3.0, 4.0], [5.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])
    seen = relative_positions(positions, positions[:, 0], scale=2.0)
    assert torch.equal(seen, torch.tensor([[[0.0, 0.0], [1.0, -2.0]], [[0.0, 0.0], [0.5, 0.5]]]))
    moved = relative_positions(positions + 7.0, positions[:, 0] + 7.0, scale=2.0)
    torch.testing.assert_close(moved, seen)


def test_trainable_positions__start_small_and_learn() -> None:
    positions = TrainablePositions(64, 32, init_scale=0.5)
    assert 0.4 < positions().std() < 0.5
    assert positions().abs().max() <= 1.0
    positions().sum().backward()
    assert positions.table.grad.all()


def test_positions__say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^grid_positions: got sizes \(3, 0\), expected at least one axis and one cell"):
        grid_positions(3, 0)
    with pytest.raises(ValueError, match=r"^max_resolution: got \(1,\), expected a number of at least 2 for each axis$"):
        FourierPositions((1,))
    with pytest.raises(ValueError, match=r"^num_bands: got 0, expected at least 1$"):
        FourierPositions((4,), 0)
