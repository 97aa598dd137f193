"""Building WebDataset shards: annotations and images in, tars and a manifest out."""

from gp.data.building.build import build
from gp.data.building.options import BuildConfig, describe_options, load_build_config

__all__ = ["BuildConfig", "build", "describe_options", "load_build_config"]
