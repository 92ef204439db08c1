"""Hospitals on machines of their own: orders and updates travel by Flower's Fleet API, over TLS with registered keys."""
