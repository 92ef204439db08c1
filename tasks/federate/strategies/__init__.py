"""Federated strategies, one module each, called what `federation.strategy` calls it, with `_` for `-`."""
