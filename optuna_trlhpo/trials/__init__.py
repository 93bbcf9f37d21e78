"""Reading a study: trials as sequences of steps with rewards. This subpackage does not import PyTorch."""
