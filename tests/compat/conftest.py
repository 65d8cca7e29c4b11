"""Tests against originals run where these are installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch_cluster") else ["test_torch_cluster_original.py"]
