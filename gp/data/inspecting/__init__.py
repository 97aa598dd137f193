"""The contents of shards: counts, visual tokens, evidence areas, a contact sheet; checked against their manifest."""

from gp.data.inspecting.contact_sheet import contact_sheet
from gp.data.inspecting.report import Inspection, inspect_shards, print_report
from gp.data.inspecting.tokens import token_counter

__all__ = ["Inspection", "contact_sheet", "inspect_shards", "print_report", "token_counter"]
