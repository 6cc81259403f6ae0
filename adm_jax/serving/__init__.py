"""The live page: a server that samples as a visitor moves a slider, and what the browser shows."""
