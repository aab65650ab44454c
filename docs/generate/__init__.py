"""Reference pages that are made from the code; `tests/unit/test_docs.py` compares them."""
