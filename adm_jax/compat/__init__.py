"""Reading and writing the formats of the original PyTorch implementations."""
