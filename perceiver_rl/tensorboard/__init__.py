"""Pictures of what a policy sees and does, in TensorBoard beside a run's curves."""

from perceiver_rl.tensorboard.painter import Painter
from perceiver_rl.tensorboard.pictures import Pictures, draw_pictures

__all__ = ["Painter", "Pictures", "draw_pictures"]
