"""Verifiers as functions: a reply and what was expected, to a reward."""
