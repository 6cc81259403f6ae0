"""What a run needs, from the real program compiled for its devices."""
