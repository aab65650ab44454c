"""`loraplex up`: the whole platform on one machine, as processes of one home folder."""
