"""Small reference networks and the card that says how a network is fed and read."""

from splicestore.models.card import LoadedModel, ModelCard, check_fits, load_card, load_model, save_model
from splicestore.models.splice import SpliceNet

__all__ = ["LoadedModel", "ModelCard", "SpliceNet", "check_fits", "load_card", "load_model", "save_model"]
