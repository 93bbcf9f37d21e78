"""Agent that learns from trials and proposes values, independent of the study."""
