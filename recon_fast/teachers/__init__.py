"""Frozen teachers: image and text features, computed once and kept beside the data.

`compute_features` is the way in. Model libraries are imported only when a model has to be built.
"""

from recon_fast.config.teacher import TeacherConfig, random_teacher_config
from recon_fast.teachers.store import compute_features, prompts
from recon_fast.teachers.weights import describe_weights

__all__ = ["TeacherConfig", "compute_features", "describe_weights", "prompts", "random_teacher_config"]
