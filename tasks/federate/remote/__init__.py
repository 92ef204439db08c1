"""Hospitals on other machines: what is asked of them, what they agree to, and what came back as stages."""
