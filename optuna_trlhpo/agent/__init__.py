"""What decides: the agent that learns from trials and proposes values. It knows no study.."""
