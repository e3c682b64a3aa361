"""Bundles: a policy that can be handed on, and loaded without Ray, without pickle and without trust."""

from perceiver_rl.bundle.format import Provenance
from perceiver_rl.bundle.load import LoadedPolicy, is_bundle, load_policy
from perceiver_rl.bundle.save import save_bundle

__all__ = ["LoadedPolicy", "Provenance", "is_bundle", "load_policy", "save_bundle"]
