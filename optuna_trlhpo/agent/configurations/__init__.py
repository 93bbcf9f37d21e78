"""Agent for objectives of any kind, which uses only parameters and values."""
