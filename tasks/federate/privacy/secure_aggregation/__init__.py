"""Secure aggregation (Bonawitz et al., CCS 2017; arXiv 1611.04482): the coordinator learns a sum and nothing else.

`Participant` is a hospital's side, `Coordinator` the other. Both take and return the messages of `messages.py`.
"""
