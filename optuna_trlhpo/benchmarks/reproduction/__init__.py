"""Tables of the paper, measured: the published numbers stand beside those of the same comparison here."""
