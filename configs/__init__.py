"""The presets that ship with Tidecast, one TOML file each; `tidecast run --config laptop` finds `laptop.toml` here."""
