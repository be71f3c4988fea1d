"""Models side by side on the same tasks and draws."""
