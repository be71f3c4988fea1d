"""Collecting rollouts: plan, schedule, attempt, record, resume."""
