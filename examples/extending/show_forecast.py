"""python show_forecast.py RUN: the trained module plays a few steps and says how large each fire will be."""

import sys
from pathlib import Path

import numpy as np
import torch
from fires import FireEnv
from forecast import FORECAST
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

from perceiver_rl.rllib.checkpoint import MODULES, find_checkpoint

np.set_printoptions(precision=2, suppress=True, floatmode="fixed")
checkpoint = find_checkpoint(Path(sys.argv[1]))
module = RLModule.from_checkpoint((checkpoint / MODULES / DEFAULT_MODULE_ID).resolve())
env = FireEnv()
observation, _ = env.reset(seed=1)
print("fires now, the forecast, what became of them")
for _ in range(8):
    with torch.no_grad():
        batch = {key: torch.from_numpy(array).unsqueeze(0) for key, array in observation.items()}
        actions, output = module.policy.act(batch, greedy=True)
        change = module.head(output.extra[FORECAST])[0, : len(env.fires), 0].numpy()
    now = env.sizes.copy()
    observation, *_ = env.step(actions[0].numpy())
    print(now, now + change * (now > 0), env.sizes)
