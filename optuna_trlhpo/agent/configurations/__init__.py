"""The agent for objectives of any kind, which sees parameters and values alone.."""
