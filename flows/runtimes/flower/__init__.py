"""Hospitals on machines of their own: orders and updates travel by Flower's Fleet API, with TLS and registered keys."""
