"""What a process imports and compiles that others are forked from; it must not run a backward pass."""

import jobs  # noqa: F401
import sklearn.svm  # noqa: F401
import torch
from tiny import TINY_MODEL

from recon_fast.models import ReCon

with torch.no_grad():
    ReCon(TINY_MODEL)(torch.rand(2, 64, 3))
