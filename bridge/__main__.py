"""`python -m bridge`: the command `tidecast` from a fresh checkout. Prepares the checkout where needed."""

from bridge import bootstrap

if __name__ == "__main__":
    bootstrap.ensure("bridge")

    from bridge.cli.main import main

    main()
