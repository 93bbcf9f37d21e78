"""Reading a study: trials as sequences of steps, with rewards. No torch."""
