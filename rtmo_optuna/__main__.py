"""`python -m rtmo_optuna`."""

from rtmo_optuna.cli.main import main

if __name__ == "__main__":
    main()
