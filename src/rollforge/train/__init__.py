"""Training on what was collected, live and offline; an environment inside other people's trainers (`adapters`)."""
