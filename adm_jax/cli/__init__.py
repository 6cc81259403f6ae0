"""The commands: `adm COMMAND`, one thin file each."""
