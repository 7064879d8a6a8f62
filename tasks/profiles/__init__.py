"""Profiles: what a model's columns looked like in training, and what each run counted into the same frozen bins."""

from tasks.profiles.bins import ColumnBins, ModelProfile
from tasks.profiles.counting import ColumnCounts, ProfileCounter
from tasks.profiles.freezing import build_profile
from tasks.profiles.history import Slot, StoredProfile, clean_runs, read_profiles, store_profiles

__all__ = [
    "ColumnBins",
    "ColumnCounts",
    "ModelProfile",
    "ProfileCounter",
    "Slot",
    "StoredProfile",
    "build_profile",
    "clean_runs",
    "read_profiles",
    "store_profiles",
]
