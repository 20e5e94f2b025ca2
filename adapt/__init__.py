"""Adapt: vision foundation models, adapted to a domain and distilled for a device."""

__version__ = "0.1.0"
