"""Building WebDataset shards: annotations and images in, tars and a manifest out.

The options are here; `gp.data.building.build`, which needs torch, is imported by who builds.
"""

from gp.data.building.options import BuildConfig, describe_options, load_build_config

__all__ = ["BuildConfig", "describe_options", "load_build_config"]
