"""Measurement: evaluation splits, scores and the verdict on one agent."""
