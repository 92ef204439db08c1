"""Federated strategies, one module each; a module's name is the value of `federation.aggregation`."""
