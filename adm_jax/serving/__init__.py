"""The live page, whose server samples as a visitor moves a slider, and a page without a server."""
