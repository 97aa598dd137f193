"""The trained parts and their losses."""

from gp.modules.gate import Gate
from gp.modules.glimpse_token import GlimpseToken
from gp.modules.losses import answer_loss, bce_loss, dice_loss
from gp.modules.vip import VisualImportancePredictor

__all__ = ["Gate", "GlimpseToken", "VisualImportancePredictor", "answer_loss", "bce_loss", "dice_loss"]
