"""Settings every test shares."""

import torch

# The tests' models are so small that a second thread only adds waiting.
torch.set_num_threads(1)
