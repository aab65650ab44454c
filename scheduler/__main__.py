"""`python -m scheduler`: the scaler."""

from loraplex.unknown_settings import checked

if __name__ == "__main__":
    with checked():
        from scheduler.scaler import main  # whose tasks read settings, too

        main()
