"""Every setting of the package as typed dataclasses.

Imports nothing heavy, so that help and mistakes are quick.
"""

from recon_fast.config.data import DataConfig, Kind, LabelledConfig, PackConfig, ReadingConfig, StatedUp
from recon_fast.config.downstream import (
    AugmentConfig,
    ChangeConfig,
    DownstreamConfig,
    FewshotConfig,
    FinetuneConfig,
    PartsegConfig,
)
from recon_fast.config.frozen import (
    ConvertConfig,
    EmbedConfig,
    ExportConfig,
    FeatureKind,
    RetrieveConfig,
    SvmConfig,
    ZeroShotConfig,
)
from recon_fast.config.model import EncoderConfig, FrozenConfig, ReConConfig
from recon_fast.config.pages import DoctorConfig, InspectConfig, ReportConfig, ShowConfig, TableConfig
from recon_fast.config.teacher import QueryTeacherConfig, TeacherConfig, random_teacher_config
from recon_fast.config.train import OptimConfig, PretrainConfig, ProbeConfig, SaveConfig

__all__ = [
    "AugmentConfig",
    "ChangeConfig",
    "ConvertConfig",
    "DataConfig",
    "DoctorConfig",
    "DownstreamConfig",
    "EmbedConfig",
    "EncoderConfig",
    "ExportConfig",
    "FeatureKind",
    "FewshotConfig",
    "FinetuneConfig",
    "FrozenConfig",
    "InspectConfig",
    "Kind",
    "LabelledConfig",
    "OptimConfig",
    "PackConfig",
    "PartsegConfig",
    "PretrainConfig",
    "ProbeConfig",
    "QueryTeacherConfig",
    "ReConConfig",
    "ReadingConfig",
    "ReportConfig",
    "RetrieveConfig",
    "SaveConfig",
    "ShowConfig",
    "StatedUp",
    "SvmConfig",
    "TableConfig",
    "TeacherConfig",
    "ZeroShotConfig",
    "random_teacher_config",
]
