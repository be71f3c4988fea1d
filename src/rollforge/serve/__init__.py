"""Environments, agents and models as HTTP services."""
