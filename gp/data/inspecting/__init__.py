"""The contents of shards: counts, visual tokens, evidence areas, a contact sheet; and what is wrong with them."""

from gp.data.inspecting.contact_sheet import Chosen, contact_sheet
from gp.data.inspecting.options import CheckConfig, describe_options, load_check_config
from gp.data.inspecting.reading import named_shards
from gp.data.inspecting.report import Inspection, inspect_shards, print_report
from gp.data.inspecting.tokens import token_counter

__all__ = [
    "CheckConfig",
    "Chosen",
    "Inspection",
    "contact_sheet",
    "describe_options",
    "inspect_shards",
    "load_check_config",
    "named_shards",
    "print_report",
    "token_counter",
]
