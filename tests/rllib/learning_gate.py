"""What counts as learned on couriers, whatever learns: the fraction of right deliveries."""

LEARNED = 0.9
NOT_LEARNED = 0.4
"""Chance is 0.25: one post is right among the two to five that are seen, and waiting."""
