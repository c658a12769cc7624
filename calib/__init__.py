"""Ranges: what passes through a network on a user's images, and what 8 bits make of it."""
