"""Makes folders that run without an installation. Needs a checkout: the pins and the sources are not installed."""
