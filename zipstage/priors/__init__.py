"""What predicts: the built-in weights, diffusers folders, imported ADM checkpoints, and training.

Importing it loads torch, and diffusers only once a prior needs it.
"""

from zipstage.priors.base import Prediction, Prior
from zipstage.priors.builtin import Restorer, load_restorer
from zipstage.priors.load import load_prior

__all__ = ["Prediction", "Prior", "Restorer", "load_prior", "load_restorer"]
