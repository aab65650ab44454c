"""`python -m scheduler`: the scaler."""

from scheduler.scaler import main

if __name__ == "__main__":
    main()
