"""Runs that someone would start, a file each: `adm train --config configs/NAME.py`."""
